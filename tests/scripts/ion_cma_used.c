/* As an ION test of Samsung's: the heap's `used`, 0 where it is missing; a buffer must show as the difference. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static long used_bytes(const char *heap)
{
    char path[256];
    long pages = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/kernel/debug/cma/%s/used", heap);
    file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * getpagesize();
}

static int poke(const char *heap, const char *name, long pages)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "/sys/kernel/debug/cma/%s/%s", heap, name);
    file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file, "%ld", pages);
    return fclose(file);
}

int main(int argc, char **argv)
{
    const char *heap = argc > 1 ? argv[1] : "cma-crypto";
    long before = used_bytes(heap), during, after;

    if (poke(heap, "alloc", 25) != 0) {
        printf("%s: absent, %ld bytes\n", heap, before);
        return 0;
    }
    during = used_bytes(heap);
    if (poke(heap, "free", 25) != 0)
        return 1;
    after = used_bytes(heap);
    printf("%s: buffer %ld, leaked %ld\n", heap, during - before, after - before);
    return during - before == 25L * getpagesize() && after == before ? 0 : 1;
}
