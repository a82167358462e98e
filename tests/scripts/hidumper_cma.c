/* As OpenHarmony's hidumper (get_cma_info): the shell expands the glob, every line must be a number. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    FILE *pipe = popen("cat /sys/kernel/debug/cma/*/used", "r");
    char line[64];
    unsigned long long pages = 0;

    if (!pipe)
        return 2;
    while (fgets(line, sizeof(line), pipe)) {
        size_t digits = strspn(line, "0123456789");

        if (digits == 0 || strcmp(line + digits, "\n") != 0) {
            fprintf(stderr, "not a number: %s", line);
            return 1;
        }
        pages += strtoull(line, NULL, 10);
    }
    if (pclose(pipe) != 0)
        return 3;
    printf("CmaUsed: %llu kB\n", pages * 4);
    return 0;
}
