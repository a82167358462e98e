/* What a program can ask of dma-buf heaps, a line a step, and what the files around them say afterwards. The
 * same on a real kernel (docs/oracle.md) and in `cmafs run`. Lines of "file" are what docs/exceptions.md
 * speaks of. Numbers are results; negative ones are errnos. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define MIB (1UL << 20)
#define RW (O_RDWR | O_CLOEXEC)
#define AREAS "/sys/kernel/debug/cma"
#define BUFFERS "/sys/kernel/dmabuf/buffers"
#define SAID(call) ((call) < 0 ? -errno : 0)

typedef struct dma_heap_allocation_data request;

static int heap, kmsg, is_area;
static const char *heap_name;
static char text[1 << 16];

/* what is told */

static void __attribute__((format(printf, 2, 3))) say(const char *step, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("%s ", step);
	vprintf(format, arguments);
	putchar('\n');
	fflush(stdout);
	va_end(arguments);
}

static char *contents(const char *path)
{
	long length = 0, n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && (n = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += n;
	close(fd);
	text[length] = 0;
	return text;
}

static void say_file(const char *path)
{
	char *rest = contents(path);
	for (char *line; (line = strsep(&rest, "\n")) && (*line || rest);)
		say("|", "%s", line);
}

static int is_shown(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* the log's lines since the last time that have one of two words */
static void drain(const char *word, const char *other)
{
	for (ssize_t n; (n = read(kmsg, text, sizeof(text) - 1)) > 0;) {
		text[n] = 0;
		char *line = strchr(text, ';');
		if (line && (strstr(line, word) || strstr(line, other)))
			say("log", "%.*s", (int)strcspn(line + 1, "\n"), line + 1);
	}
}

/* the log since the last step, then each area: pages used, the longest hole, pages allocated and refused */
static void say_state(const char *step)
{
	static char before[4096];
	char now[4096] = "", path[600];
	struct dirent **names;
	drain("cma", "a_heap");
	int count = scandir(AREAS, &names, is_shown, alphasort);
	for (int i = 0; i < count; i++) {
		const char *files[][2] = {
			{ AREAS, "used" }, { AREAS, "maxchunk" },
			{ "/sys/kernel/mm/cma", "alloc_pages_success" }, { "/sys/kernel/mm/cma", "alloc_pages_fail" },
			{ "/sys/kernel/mm/cma", "release_pages_success" },
		};
		sprintf(now + strlen(now), " %s", names[i]->d_name);
		for (unsigned j = 0; j < sizeof(files) / sizeof(*files); j++) {
			snprintf(path, sizeof(path), "%s/%s/%s", files[j][0], names[i]->d_name, files[j][1]);
			if (*contents(path))
				sprintf(now + strlen(now), " %d", atoi(text));
		}
		free(names[i]);
	}
	int free_pages = 0;
	char *rest = contents("/proc/vmstat");
	for (char *line; (line = strsep(&rest, "\n"));) {
		if (!strncmp(line, "cma_", 4))
			sprintf(now + strlen(now), " %s", line);
		sscanf(line, "nr_free_cma %d", &free_pages);
	}
	if (strcmp(now, before))
		say(step, "->%s nr_free_cma %d", now, free_pages);
	strcpy(before, now);
}

static void say_buffers(void)
{
	struct dirent **names;
	char path[600];
	say_file("/sys/kernel/debug/dma_buf/bufinfo");
	int count = scandir(BUFFERS, &names, is_shown, versionsort);
	for (int i = 0; i < count; i++) {
		struct dirent **files;
		struct stat status;
		snprintf(path, sizeof(path), BUFFERS "/%s", names[i]->d_name);
		int number = scandir(path, &files, is_shown, alphasort);
		for (int j = 0; j < number; j++) {
			snprintf(path, sizeof(path), BUFFERS "/%s/%s", names[i]->d_name, files[j]->d_name);
			stat(path, &status);
			say("buffers", "%s/%s %o %ld: %s", names[i]->d_name, files[j]->d_name,
			    status.st_mode & 07777, (long)status.st_size, strtok(contents(path), "\n"));
		}
	}
}

/* steps */

static int call(unsigned number, void *argument)
{
	return ioctl(heap, number, argument) < 0 ? -errno : 0;
}

static int allocate(uint64_t length, unsigned fd_flags, uint64_t heap_flags)
{
	request data = { .len = length, .fd_flags = fd_flags, .heap_flags = heap_flags };
	int answer = call(DMA_HEAP_IOCTL_ALLOC, &data);
	return answer ? answer : (int)data.fd;
}

static int map(int fd, long pages, int protection, int how, long offset)
{
	char *p = mmap(NULL, pages * PAGE, protection, how, fd, offset * PAGE);
	if (p == MAP_FAILED)
		return -errno;
	munmap(p, pages * PAGE);
	return 0;
}

static void file_of_a_heap(void)
{
	int byte = 0;
	struct stat status = { 0 };
	fstat(heap, &status);
	say("heap", "mode %o size %ld", status.st_mode & 07777, (long)status.st_size);
	say("heap", "lseek %d %d", SAID(lseek(heap, 0, SEEK_SET)), SAID(lseek(heap, 0, SEEK_END)));
	say("heap", "read %d write %d pread %d", SAID(read(heap, &byte, 1)), SAID(write(heap, &byte, 1)),
	    SAID(pread(heap, &byte, 1, 0)));
	say("heap", "mmap %d", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, heap, 0) == MAP_FAILED ? -errno : 0);
	say("file", "of a heap: ftruncate %d, fsync %d", SAID(ftruncate(heap, 0)), SAID(fsync(heap)));
	say("file", "of a heap: FIONREAD %d", SAID(ioctl(heap, FIONREAD, &byte)));
}

static void lengths(void)
{
	static const uint64_t lengths[] = {
		0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 5 * PAGE, 100000, 17 * PAGE, MIB, MIB + 1, 3 * MIB,
		-1, -PAGE, 1ULL << 32, (1ULL << 32) + 1, /* few of those that fail: ten are logged in five seconds */
	};
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		/* more than there is: the system heap would wake the out-of-memory killer */
		if (lengths[i] > 1 << 30 && lengths[i] + 1 && !is_area)
			continue;
		int first = allocate(lengths[i], RW, 0), second = first < 0 ? first : allocate(PAGE, RW, 0);
		say("length", "%llu: %d %d, end %ld", (unsigned long long)lengths[i], first, second,
		    first < 0 ? 0 : (long)lseek(first, 0, SEEK_END));
		say_state("length");
		if (first >= 0) {
			close(first);
			close(second);
		}
		say_state("closed");
	}
}

static void flags(void)
{
	for (int bit = 0; bit < 32; bit++) {
		int fd = allocate(PAGE, 1U << bit, 0);
		say("fd_flags", "%#x: %d %#x %#x", 1U << bit, fd, fd < 0 ? 0 : fcntl(fd, F_GETFL) & O_ACCMODE,
		    fd < 0 ? 0 : fcntl(fd, F_GETFD));
		close(fd);
	}
	for (unsigned access = 0; access < 4; access++) {
		int fd = allocate(PAGE, access, 0);
		say("access", "%u: %d, map %d %d", access, fd, map(fd, 1, PROT_READ, MAP_SHARED, 0),
		    map(fd, 1, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
		say("file", "flags %#x", fcntl(fd, F_GETFL));
		say_buffers();
		close(fd);
	}
	for (int bit = 0; bit < 64; bit += 9)
		say("heap_flags", "%#llx: %d", 1ULL << bit, allocate(PAGE, RW, 1ULL << bit));
	request data = { .len = PAGE, .fd = 1, .fd_flags = RW };
	say("fd", "1: %d", call(DMA_HEAP_IOCTL_ALLOC, &data));
	say("fd", "all wrong: %d", call(DMA_HEAP_IOCTL_ALLOC, memset(&data, 0xff, sizeof(data))));
}

static void close_from(int fd)
{
	for (int last = fd + 4; fd < last; fd++)
		close(fd);
}

static void numbers(void)
{
	static const unsigned sizes[] = { 0, 8, 12, 15, 16, 20, 23, 24, 25, 32, 127, 128, 129, 4096, 16383 };
	static const unsigned directions[] = { _IOC_NONE, _IOC_READ, _IOC_WRITE, _IOC_READ | _IOC_WRITE };
	static unsigned char data[16384];
	int next = dup(0);
	close(next);
	for (unsigned d = 0; d < 4; d++)
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			memset(data, 0, sizeof(data));
			memset(data + sizeof(request), 0xee, 64);
			*(request *)data = (request){ .len = PAGE, .fd_flags = RW };
			int answer = call(_IOC(directions[d], 'H', 0, sizes[i]), data), fd = ((request *)data)->fd;
			say("number", "%u %u: %d, told %d, is %d, next %x %x", directions[d], sizes[i], answer, fd,
			    fcntl(next, F_GETFD), data[sizeof(request)], data[sizeof(request) + 63]);
			close_from(next);
		}
	static const unsigned others[] = {
		_IOC(3, 'H', 1, 24), _IOC(3, 'H', 255, 24), _IOC(3, 'I', 0, 24), _IOC(3, 0, 0, 24), _IOC(3, 'I', 1, 24),
		0, ~0U, DMA_BUF_IOCTL_SYNC, DMA_BUF_SET_NAME_B,
	};
	for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++) {
		*(request *)data = (request){ .len = PAGE, .fd_flags = RW };
		int answer = call(others[i], data);
		say("number", "%#x: %d, told %u", others[i], answer, ((request *)data)->fd);
		close_from(next);
	}
}

static void places(void)
{
	char *pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	request data = { .len = PAGE, .fd_flags = RW }, none = { .fd_flags = RW };
	int next = dup(0);
	close(next);
	for (int at = 0; at <= (int)sizeof(data); at += 4)
		memcpy(pages + PAGE - at, &data, at);
	mprotect(pages + PAGE, PAGE, PROT_NONE);
	say("place", "null %d, bad %d, last %d", call(DMA_HEAP_IOCTL_ALLOC, NULL),
	    call(DMA_HEAP_IOCTL_ALLOC, pages + PAGE), call(DMA_HEAP_IOCTL_ALLOC, (void *)-1L));
	for (unsigned at = 4; at <= sizeof(data); at += 4) {
		say("place", "%u before the end: %d", at,
		    call(DMA_HEAP_IOCTL_ALLOC, memcpy(pages + PAGE - at, &data, at)));
		close_from(next);
	}
	say("place", "a short struct there %d",
	    call(_IOC(3, 'H', 0, 16), memcpy(pages + PAGE - 16, &data, 16)));
	close_from(next);
	say("place", "odd address %d", call(DMA_HEAP_IOCTL_ALLOC, memcpy(pages + 1, &data, sizeof(data))));
	close_from(next);
	memcpy(pages, &data, sizeof(data));
	memcpy(pages + 64, &none, sizeof(data));
	mprotect(pages, PAGE, PROT_READ);
	say_state("place");
	say("place", "read-only %d, is %d", call(DMA_HEAP_IOCTL_ALLOC, pages), fcntl(next, F_GETFD));
	say_state("place");
	close_from(next);
	say("place", "read-only, refused %d", call(DMA_HEAP_IOCTL_ALLOC, pages + 64));
	say("place", "read-only, not told %d", call(_IOC(1, 'H', 0, 24), pages));
	close_from(next);
	munmap(pages, 3 * PAGE);
	say_state("place");
}

static void names_of_a_buffer(int fd)
{
	static const char *const names[] = {
		"", "x", "frame 7", "a\tb", "a\nb", "\xff\xc3\xa9/..%s", "1234567890123456789012345678901",
		"12345678901234567890123456789012", "1234567890123456789012345678901234567890",
	};
	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		say("name", "%s: %d", names[i], SAID(ioctl(fd, DMA_BUF_SET_NAME, names[i])));
		say_file("/sys/kernel/debug/dma_buf/bufinfo");
	}
	char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pages, 'n', PAGE);
	munmap(pages + PAGE, PAGE);
	say("name", "null %d", SAID(ioctl(fd, DMA_BUF_SET_NAME, NULL)));
	say("name", "to the end %d, near it %d", SAID(ioctl(fd, DMA_BUF_SET_NAME, pages + PAGE - 32)),
	    SAID(ioctl(fd, DMA_BUF_SET_NAME, pages + PAGE - 31)));
	pages[PAGE - 1] = 0;
	say("name", "ends there %d", SAID(ioctl(fd, DMA_BUF_SET_NAME, pages + PAGE - 4)));
	munmap(pages, PAGE);
	static const unsigned numbers[] = {
		DMA_BUF_SET_NAME_A, DMA_BUF_SET_NAME_B, _IO('b', 1), _IOR('b', 1, uint64_t), _IOW('b', 1, char[32]),
		_IOW('b', 2, uint64_t), _IOW('b', 0, uint32_t), _IO('b', 0), DMA_HEAP_IOCTL_ALLOC, 0, ~0U,
	};
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		say("number", "%#x: %d", numbers[i], SAID(ioctl(fd, numbers[i], "again")));
	say_buffers();
}

static void syncs(int fd)
{
	for (uint64_t flags = 0; flags < 16; flags++)
		say("sync", "%llx: %d, and more %d", (unsigned long long)flags, SAID(ioctl(fd, DMA_BUF_IOCTL_SYNC, &flags)),
		    SAID(ioctl(fd, DMA_BUF_IOCTL_SYNC, &(uint64_t){ flags | 1ULL << 32 })));
	say("sync", "null %d", SAID(ioctl(fd, DMA_BUF_IOCTL_SYNC, NULL)));
}

static void file_of_a_buffer(int fd)
{
	char bytes[16] = "";
	const int rw = PROT_READ | PROT_WRITE;
	say("lseek", "end %ld, start %ld", (long)lseek(fd, 0, SEEK_END), (long)lseek(fd, 0, SEEK_SET));
	say("file", "lseek to 1 %d, from here %d, past the end %d", SAID(lseek(fd, 1, SEEK_SET)),
	    SAID(lseek(fd, 0, SEEK_CUR)), SAID(lseek(fd, 1, SEEK_END)));
	say("file", "read %d, write %d, ftruncate %d", SAID(read(fd, bytes, 1)), SAID(write(fd, bytes, 1)),
	    SAID(ftruncate(fd, 0)));
	say("map", "all %d, its end %d, no bytes %d", map(fd, 5, rw, MAP_SHARED, 0), map(fd, 2, rw, MAP_SHARED, 3),
	    map(fd, 0, rw, MAP_SHARED, 0));
	say("map", "private %d, one page of it %d", map(fd, 5, rw, MAP_PRIVATE, 0), map(fd, 1, rw, MAP_PRIVATE, 0));
	say("file", "map private for reading %d", map(fd, 5, PROT_READ, MAP_PRIVATE, 0));
	say("file", "map too much %d, behind the end %d", map(fd, 6, rw, MAP_SHARED, 0), map(fd, 1, rw, MAP_SHARED, 5));
}

static void contents_of_a_buffer(int fd)
{
	long sum = 0, n = 5 * PAGE;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *q;
	for (long i = 0; i < n; i++)
		sum += p[i] != 0;
	memset(p, 0x5a, n);
	munmap(p, n);
	q = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
	say("contents", "%ld of %ld set at first, then %x %x", sum, n, q[0], q[n - 1]);
	munmap(q, n);
}

static void child(int fd, char end, const char *path)
{
	pid_t pid = fork();
	int status;
	if (!pid) {
		if (end == 'k')
			raise(SIGKILL);
		if (end == 'x')
			execl(path, path, "held", NULL);
		char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		_exit(p == MAP_FAILED ? 1 : (*p = 3));
	}
	waitpid(pid, &status, 0);
	say("child", "%c %#x", end, status);
}

/* of the buffer's last reference: its pages go then, and not before */
static void references(const char *path)
{
	int fd = allocate(7 * PAGE, O_RDWR, 0), other = dup(fd);
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	say_state("allocated");
	close(fd);
	say_state("closed");
	child(other, 'e', path);
	child(other, 'k', path);
	child(other, 'x', path);
	say_state("children");
	close(other);
	say_state("closed");
	say("mapped", "%d", *p);
	munmap(p, PAGE);
	say_state("unmapped");
	for (int kills = 0; kills < 2; kills++) {
		if (!fork()) {
			allocate(9 * PAGE, O_RDWR, 0);
			allocate(9 * PAGE, RW, 0);
			say_state("in a child");
			if (kills)
				raise(SIGKILL);
			execl(path, path, "after exec", NULL);
		}
		wait(NULL);
		say_state("child gone");
	}
}

/* descriptors that are not what they seem */
static void descriptors(const char *place)
{
	uint64_t flags = DMA_BUF_SYNC_RW;
	char link[32];
	int own = heap, fd = allocate(PAGE, RW, 0);
	struct pollfd events = { .fd = fd, .events = POLLIN | POLLOUT };
	static const int ways[] = { O_RDONLY, O_WRONLY, O_ACCMODE, O_PATH, O_RDWR | O_TRUNC | O_APPEND };
	for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		heap = open(place, ways[i] | O_CLOEXEC);
		int answer = allocate(PAGE, RW, 0);
		say("open", "%#x: %d, %d", ways[i], heap, answer);
		close(answer);
		close(heap);
	}
	say("open", "closed: %d", allocate(PAGE, RW, 0));
	heap = own;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	int path = open(link, O_PATH | O_CLOEXEC);
	say("open", "a buffer's path: %d, sync %d, name %d", path, SAID(ioctl(path, DMA_BUF_IOCTL_SYNC, &flags)),
	    SAID(ioctl(path, DMA_BUF_SET_NAME, "path")));
	close(path);
	int ready = poll(&events, 1, 0);
	say("poll", "%d %d", ready, events.revents);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	say("file", "epoll %d", SAID(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN })));
	close(epoll);
	close(fd);
	say_state("closed");
}

static void no_descriptor(void)
{
	struct rlimit before, few = { 0, 0 };
	int next = dup(0);
	close(next);
	getrlimit(RLIMIT_NOFILE, &before);
	few = (struct rlimit){ next, before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &few);
	say("full", "no descriptor left: %d", allocate(PAGE, RW, 0));
	setrlimit(RLIMIT_NOFILE, &before);
	say_state("full");
}

static void exhaust(void)
{
	int fds[256], count = 0;
	while (count < 256 && (fds[count] = allocate(MIB, RW, 0)) >= 0)
		count++;
	say("full", "after %d: %d", count, fds[count]);
	say_state("full");
	for (int i = 0; i < count; i += 2)
		close(fds[i]);
	say_state("every other");
	say("full", "2 MiB: %d", allocate(2 * MIB, RW, 0));
	say_state("full");
	int again = allocate(300 * PAGE / 2, RW, 0);
	say_state("a hole");
	close(again);
	for (int i = 1; i < count; i += 2)
		close(fds[i]);
	say_state("empty");
}

static void heap_steps(const char *path)
{
	struct stat area;
	char place[600];
	say("==", "%s", heap_name);
	snprintf(place, sizeof(place), "/dev/dma_heap/%s", heap_name);
	heap = open(place, O_RDWR | O_CLOEXEC);
	is_area = strcmp(heap_name, "system") != 0 && !stat(AREAS, &area);
	file_of_a_heap();
	lengths();
	flags();
	numbers();
	places();
	say_state("before");
	int fd = allocate(5 * PAGE, RW, 0), more = allocate(PAGE, O_RDONLY, 0);
	say_buffers();
	contents_of_a_buffer(fd);
	syncs(fd);
	names_of_a_buffer(fd);
	file_of_a_buffer(fd);
	close(fd);
	close(more);
	say_buffers();
	references(path);
	descriptors(place);
	no_descriptor();
	if (is_area)
		exhaust();
	close(heap);
	say_state("end");
}

int main(int argc, char **argv)
{
	struct dirent **names;
	static char self[4096];
	setvbuf(stdout, NULL, _IOLBF, 0);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (argc == 2) { /* what a child with a buffer became: it holds what was not closed on exec */
		drain("none of", "them");
		say_state(argv[1]);
		return 0;
	}
	drain("a_heap", "dma-buf");
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 1;
	int count = scandir("/dev/dma_heap", &names, is_shown, alphasort);
	say_state("boot");
	for (int i = 0; i < count; i++) {
		heap_name = names[i]->d_name;
		heap_steps(self);
	}
	return count <= 0;
}
