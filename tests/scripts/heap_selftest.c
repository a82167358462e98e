/* What a test of dma-buf heaps checks of every heap of the machine, a line each: allocate, write, free; zeroed;
 * structs of other sizes; what is refused. Written from a description of the kernel's own test. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1L << 20)
#define FLAGS (O_RDWR | O_CLOEXEC)

static int failed;

static void check(const char *heap, const char *what, int good)
{
	printf("%s %s: %s\n", good ? "ok" : "not ok", heap, what);
	failed |= !good;
}

static int alloc(int heap, size_t len, unsigned fd_flags, unsigned long long heap_flags)
{
	struct dma_heap_allocation_data data = { .len = len, .fd_flags = fd_flags, .heap_flags = heap_flags };
	return ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data) ? -errno : (int)data.fd;
}

static int sync_buffer(int fd, unsigned long long flags)
{
	struct dma_buf_sync sync = { .flags = flags };
	return ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync) ? -errno : 0;
}

static int all(const unsigned char *p, long n, int value)
{
	while (n--)
		if (*p++ != value)
			return 0;
	return 1;
}

static void allocates(int heap, const char *name)
{
	int fd = alloc(heap, MIB, FLAGS, 0), other = dup(fd);
	unsigned char *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *q, *own;
	check(name, "allocated and mapped", fd >= 0 && p != MAP_FAILED);
	check(name, "close on exec", fcntl(fd, F_GETFD) == FD_CLOEXEC);
	check(name, "its size", lseek(fd, 0, SEEK_END) == MIB && lseek(fd, 0, SEEK_SET) == 0);
	check(name, "sync start", sync_buffer(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW) == 0);
	memset(p, 0xff, MIB);
	check(name, "sync end", sync_buffer(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE) == 0);
	check(name, "sync refused", sync_buffer(fd, 0) == -EINVAL && sync_buffer(fd, 8 | 3) == -EINVAL);
	q = mmap(NULL, MIB, PROT_READ, MAP_SHARED, other, 0);
	check(name, "seen by a second mapping", all(q, MIB, 0xff));
	own = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check(name, "no private mapping", (own == MAP_FAILED && errno == EINVAL) || !strcmp(name, "system"));
	check(name, "named", ioctl(fd, DMA_BUF_SET_NAME, "test") == 0);
	check(name, "name too long",
	      ioctl(fd, DMA_BUF_SET_NAME, "12345678901234567890123456789012") && errno == EINVAL);
	check(name, "no such ioctl", ioctl(fd, _IO('b', 77)) && errno == ENOTTY);
	munmap(p, MIB);
	munmap(q, MIB);
	if (own != MAP_FAILED)
		munmap(own, MIB);
	close(fd);
	close(other);
}

static void zeroed(int heap, const char *name)
{
	int good = 1, fds[32];
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 32; i++) {
			fds[i] = alloc(heap, 65536, FLAGS, 0);
			unsigned char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
			good &= p != MAP_FAILED && all(p, 65536, 0);
			memset(p, 0xff, 65536);
			munmap(p, 65536);
		}
		for (int i = 0; i < 32; i++)
			close(fds[i]);
	}
	check(name, "zeroed", good);
}

struct older { uint64_t len; uint32_t fd, fd_flags; };
struct newer { struct dma_heap_allocation_data data; uint64_t more; };

static void other_sizes(int heap, const char *name)
{
	struct older small = { .len = MIB, .fd_flags = FLAGS };
	struct newer large = { .data = { .len = MIB, .fd_flags = FLAGS }, .more = 0xffffffff };
	check(name, "an older struct", ioctl(heap, _IOWR('H', 0, struct older), &small) == 0 && small.fd > 2);
	check(name, "a newer struct", ioctl(heap, _IOWR('H', 0, struct newer), &large) == 0 && large.data.fd > 2);
	check(name, "the rest of it untouched", large.more == 0xffffffff);
	close(small.fd);
	close(large.data.fd);
}

static void refuses(int heap, const char *name)
{
	struct dma_heap_allocation_data data = { .len = 4096, .fd = 7, .fd_flags = FLAGS };
	void *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(name, "bad descriptor flags", alloc(heap, 4096, ~FLAGS, 0) == -EINVAL);
	check(name, "bad heap flags", alloc(heap, 4096, FLAGS, ~0ULL) == -EINVAL);
	check(name, "no length", alloc(heap, 0, FLAGS, 0) == -EINVAL && alloc(heap, -1, FLAGS, 0) == -EINVAL);
	check(name, "a descriptor given", ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data) && errno == EINVAL);
	check(name, "too much", alloc(heap, 1L << 40, FLAGS, 0) == -ENOMEM);
	check(name, "no such ioctl", ioctl(heap, _IOWR('H', 1, data), &data) && errno == EINVAL);
	check(name, "no struct", ioctl(heap, DMA_HEAP_IOCTL_ALLOC, NULL) && errno == EFAULT);
	check(name, "a struct that is all zero and read-only", ioctl(heap, DMA_HEAP_IOCTL_ALLOC, readable) == -1);
	check(name, "no reading or writing", read(heap, &data, 1) < 0 && errno == EINVAL && write(heap, "", 1) < 0);
	int fd = alloc(heap, 5000, O_RDONLY, 0);
	check(name, "whole pages", lseek(fd, 0, SEEK_END) == (5000 / getpagesize() + 1) * getpagesize());
	check(name, "not writable", mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	check(name, "not close on exec", fcntl(fd, F_GETFD) == 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
	close(fd);
}

int main(void)
{
	DIR *directory = opendir("/dev/dma_heap");
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		int heap = openat(dirfd(directory), entry->d_name, O_RDONLY | O_CLOEXEC);
		allocates(heap, entry->d_name);
		zeroed(heap, entry->d_name);
		other_sizes(heap, entry->d_name);
		refuses(heap, entry->d_name);
		close(heap);
	}
	return failed || !directory;
}
