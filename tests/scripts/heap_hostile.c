/* What no program should do to a heap: heap_hostile HEAP CALLS. Threads change the struct, unmap it, close
 * descriptors and put others in their place while others call; signals interrupt; children are killed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct dma_heap_allocation_data *shared;
static volatile int done;
static int heap;

static void nothing(int number) { (void)number; }

static void *meddle(void *unused)
{
	for (unsigned i = 0; !done; i++) {
		shared->fd = i & 1;
		shared->len = i * 4099ULL % 100000;
		shared->fd_flags = i % 5 ? O_RDWR | O_CLOEXEC : i;
		if (i % 64 == 0) {
			mprotect(shared, 4096, PROT_NONE);
			mprotect(shared, 4096, PROT_READ);
			mprotect(shared, 4096, PROT_READ | PROT_WRITE);
		}
		if (i % 16 == 0)
			dup2(i & 16 ? heap : 2, 200);
	}
	return unused;
}

static void child(int calls)
{
	pthread_t thread;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction action = { .sa_handler = nothing };
	sigaction(SIGALRM, &action, NULL);
	ualarm(2000, 3000);
	pthread_create(&thread, NULL, meddle, NULL);
	for (int i = 0; i < calls; i++) {
		ioctl(i % 3 ? heap : 200, DMA_HEAP_IOCTL_ALLOC, i % 7 ? (void *)shared : (void *)(i * 4096L));
		ioctl(i % 50, DMA_BUF_SET_NAME, i % 2 ? (void *)shared : (void *)-1L);
		ioctl(i, _IOC(3, 'H', 0, i % 16384), shared);
		if (i % 20 == 19)
			for (int fd = 3; fd < 100; fd++)
				if (fd != heap)
					close(fd);
	}
	done = 1;
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	int calls = argc == 3 ? atoi(argv[2]) : 0;
	heap = argc == 3 ? open(argv[1], O_RDWR) : -1;
	for (int i = 0; heap >= 0 && i < 8; i++) {
		pid_t pid = fork();
		if (!pid) {
			child(i % 2 ? 1 << 30 : calls);
			_exit(0);
		}
		if (i % 2) {
			usleep(50000);
			kill(pid, SIGKILL);
		}
	}
	while (wait(NULL) > 0)
		;
	return heap < 0;
}
