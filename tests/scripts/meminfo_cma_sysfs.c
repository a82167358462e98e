/* As Android's libmeminfo (ReadKernelCmaUsageKb): success minus release of every area in sysfs. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int read_u64(const char *area, const char *name, unsigned long long *value)
{
    char path[512];
    FILE *file;
    int got;

    snprintf(path, sizeof(path), "/sys/kernel/mm/cma/%s/%s", area, name);
    file = fopen(path, "r");
    if (!file)
        return -1;
    got = fscanf(file, "%llu", value);
    fclose(file);
    return got == 1 ? 0 : -1;
}

int main(void)
{
    DIR *directory = opendir("/sys/kernel/mm/cma");
    unsigned long long kb = 0, allocated, released;
    struct dirent *entry;

    if (!directory) {
        fprintf(stderr, "Failed to open dir: /sys/kernel/mm/cma\n");
        return 1;
    }
    while ((entry = readdir(directory))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        if (read_u64(entry->d_name, "alloc_pages_success", &allocated) ||
            read_u64(entry->d_name, "release_pages_success", &released))
            return 2;
        kb += (allocated - released) * (unsigned long long)getpagesize() / 1024;
    }
    closedir(directory);
    printf("%llu\n", kb);
    return 0;
}
