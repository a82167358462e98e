/* A program of 32 bits on a host of 64: heap_compat HEAP, its system calls made by int 0x80. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif

enum { NR_IOCTL = 54, NR_MMAP2 = 192 };

static int call(long nr, long a, long b, long c, long d, long e, long f)
{
#ifdef __x86_64__
	__asm__ volatile("push %%rbp; mov %7, %%rbp; int $0x80; pop %%rbp"
			 : "=a"(nr)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(f)
			 : "memory", "r8", "r9", "r10", "r11");
#else
	nr = a + b + c + d + e + f;
#endif
	return nr;
}

int main(int argc, char **argv)
{
	int heap = argc == 2 ? open(argv[1], O_RDWR) : -1, rw = PROT_READ | PROT_WRITE;
	void *low = mmap(NULL, 4096, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct dma_heap_allocation_data *data = low;
	char *name = strcpy((char *)low + sizeof(*data), "thirty-two");
	*data = (struct dma_heap_allocation_data){ .len = 8192, .fd_flags = O_RDWR };
	printf("%d, ", call(NR_IOCTL, heap, DMA_HEAP_IOCTL_ALLOC, (long)data, 0, 0, 0));
	printf("%u, %d, ", data->fd, call(NR_IOCTL, data->fd, DMA_BUF_SET_NAME_A, (long)name, 0, 0, 0));
	printf("%d\n", call(NR_MMAP2, 0, 4096, rw, MAP_PRIVATE, data->fd, 1));
	fflush(stdout);
	return getchar() == EOF;
}
