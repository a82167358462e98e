/* A pool of frames as a camera or a display has it: heap_pool HEAP COUNT BYTES. */
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int heap = argc == 4 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1, count = heap < 0 ? 0 : atoi(argv[2]);
	struct dma_heap_allocation_data frame;
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_RW };
	for (int i = 0; i < count; i++) {
		memset(&frame, 0, sizeof(frame));
		frame.len = strtoul(argv[3], NULL, 0);
		frame.fd_flags = O_RDWR | O_CLOEXEC;
		if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &frame)) {
			perror("frame");
			return 1;
		}
		char name[32], *pixels = mmap(NULL, frame.len, PROT_READ | PROT_WRITE, MAP_SHARED, frame.fd, 0);
		snprintf(name, sizeof(name), "frame-%d", i);
		ioctl(frame.fd, DMA_BUF_SET_NAME, name);
		ioctl(frame.fd, DMA_BUF_IOCTL_SYNC, &sync);
		memset(pixels, 0x80, frame.len);
	}
	puts("streaming");
	fflush(stdout);
	return heap < 0 || (count && getchar() == EOF && pause());
}
