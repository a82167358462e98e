/* As SpacemiT's dma_alloc.c: the physical base of linux,cma, wherever this kernel keeps it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *area = argc > 1 ? argv[1] : "linux,cma";
    const char *const names[] = { "base_pfn", "ranges/0/base_pfn" };
    char path[256], text[64];

    for (int i = 0; i < 2; i++) {
        FILE *file;

        snprintf(path, sizeof(path), "/sys/kernel/debug/cma/%s/%s", area, names[i]);
        file = fopen(path, "r");
        if (!file)
            continue;
        if (fgets(text, sizeof(text), file)) {
            printf("0x%lx\n", strtoul(text, NULL, 10) * 4096);
            return 0;
        }
    }
    return 1;
}
