/*
 * The recorder: the only process of a guest. It reads /case (one operation a line, as operations.py writes it),
 * does each operation as FORMAT.md says and prints its outcome on the serial line, one JSON object a line with
 * "@@ " before it, so that what the kernel prints in between is not taken for ours.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEBUGFS_CMA "/sys/kernel/debug/cma"
#define LOG_BYTES (4 << 20)
#define FIELDS 8

enum { READ_ALL = 3, READ_CLEAR = 4, CONSOLE_OFF = 6, LOG_EVERY = 8 };

static char data[1 << 18], klog[LOG_BYTES], out[1 << 16];
static size_t klog_used;

struct text { char *bytes; size_t length; };

/* JSON */

static void put_string(const char *bytes, size_t length)
{
	putchar('"');
	for (size_t i = 0; i < length; i++) {
		unsigned char c = bytes[i];
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c == '\n')
			fputs("\\n", stdout);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void put_bytes(const char *name, const char *bytes, size_t length)
{
	printf(", \"%s\": ", name);
	put_string(bytes, length);
}

static void put_number(const char *name, long number)
{
	printf(", \"%s\": %ld", name, number);
}

static void end_line(void)
{
	fputs("}\n", stdout);
	fflush(stdout);
}

static void put_line(const char *name, const char *bytes, size_t length)
{
	printf("@@ {\"%s\": ", name);
	put_string(bytes, length);
	end_line();
}

static void __attribute__((format(printf, 1, 2))) report(const char *format, ...)
{
	static char line[8192];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	put_line("script", line, length < (int)sizeof(line) ? length : (int)sizeof(line) - 1);
}

static void put_lines(const char *name, char *bytes, size_t length)
{
	for (char *end; length; length -= end - bytes, bytes = end) {
		end = memchr(bytes, '\n', length);
		end = end ? end + 1 : bytes + length;
		put_line(name, bytes, end - bytes - (end[-1] == '\n'));
	}
}

/* files */

static long read_file(const char *path)
{
	long length = 0, n;
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	while ((n = read(fd, data + length, sizeof(data) - 1 - length)) > 0)
		length += n;
	close(fd);
	data[length] = 0;
	return length;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The sorted names of a directory, "." and ".." with them; their number, or -1. */
static int list(const char *path, char **names, int most)
{
	int count = 0;
	DIR *directory = opendir(path);
	if (!directory)
		return -1;
	for (struct dirent *entry; count < most && (entry = readdir(directory));)
		names[count++] = strdup(entry->d_name);
	closedir(directory);
	qsort(names, count, sizeof(*names), by_name);
	return count;
}

/* "/@N" in a path stands for the N-th name of the directory before it, counted round: a case is made without
 * knowing what its areas will be called. */
static int resolve(struct text *path)
{
	char *names[256], *mark = strstr(path->bytes, "/@"), *rest, *made;
	int count, number, shown = 0;
	if (!mark)
		return 1;
	number = strtol(mark + 2, &rest, 10);
	*mark = 0;
	count = list(path->bytes, names, 256);
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], ".") && strcmp(names[i], ".."))
			names[shown++] = names[i];
	if (!shown || asprintf(&made, "%s/%s%s", path->bytes, names[number % shown], rest) < 0)
		return 0;
	*path = (struct text){ made, strlen(made) };
	return 1;
}

/* the kernel's log, taken away before its buffer is full */

static void take_log(void)
{
	int n = klogctl(READ_CLEAR, klog + klog_used, LOG_BYTES - klog_used);
	if (n > 0)
		klog_used += n;
}

static void put_log(const char *name)
{
	take_log();
	put_lines(name, klog, klog_used);
	klog_used = 0;
}

/* operations: struct text f[] holds kind, path and what else FORMAT.md lists for the kind */

static long f_number(const struct text *field)
{
	return field->bytes ? strtol(field->bytes, NULL, 0) : 0;
}

static int opened(const struct text *path, int flags)
{
	int fd = open(path->bytes, flags, 0666);
	if (fd < 0)
		put_number("open_errno", errno);
	return fd;
}

static void write_once(int fd, const struct text *bytes, const char *ret, const char *number)
{
	long n = write(fd, bytes->bytes, bytes->length);
	int failed = n < 0 ? errno : 0;
	put_number(ret, n);
	put_number(number, failed);
}

static void do_write(struct text *f)
{
	int fd = opened(&f[1], *f[0].bytes == 'W' ? O_WRONLY | O_TRUNC | O_CREAT : O_WRONLY | O_APPEND);
	if (fd < 0)
		return;
	write_once(fd, &f[2], "ret", "errno");
	put_number("close", close(fd) ? errno : 0);
}

static void do_read(struct text *f)
{
	long size = *f[0].bytes == 'B' ? f_number(&f[2]) : 1 << 17, length = 0, n, calls = 0;
	int fd = opened(&f[1], O_RDONLY);
	if (fd < 0)
		return;
	if (*f[0].bytes == 'P') {
		n = length = pread(fd, data, 4096, f_number(&f[2]));
		length = length < 0 ? 0 : length;
	} else {
		for (; length + size <= (long)sizeof(data) && (n = read(fd, data + length, size)) > 0; calls++)
			length += n;
	}
	int failed = n < 0 ? errno : 0;
	close(fd);
	put_bytes("out", data, length);
	put_number("errno", failed);
	if (*f[0].bytes == 'B')
		put_number("calls", calls);
}

static void do_lstat(struct text *f)
{
	struct stat st;
	char mode[16];
	if (lstat(f[1].bytes, &st)) {
		put_number("errno", errno);
		return;
	}
	snprintf(mode, sizeof(mode), "%o", (unsigned)st.st_mode);
	put_bytes("mode", mode, strlen(mode));
	put_number("size", st.st_size);
	put_number("uid", st.st_uid);
	put_number("gid", st.st_gid);
	put_number("nlink", st.st_nlink);
	put_number("blocks", st.st_blocks);
	put_number("blksize", st.st_blksize);
}

static void do_readlink(struct text *f)
{
	long n = readlink(f[1].bytes, data, sizeof(data));
	if (n < 0)
		put_number("errno", errno);
	else
		put_bytes("out", data, n);
}

static void do_list(struct text *f)
{
	char *names[1024];
	int count = list(f[1].bytes, names, 1024);
	if (count < 0) {
		put_number("errno", errno);
		return;
	}
	fputs(", \"names\": [", stdout);
	for (int i = 0; i < count; i++) {
		fputs(i ? ", " : "", stdout);
		put_string(names[i], strlen(names[i]));
	}
	putchar(']');
}

static void do_change(struct text *f)
{
	const char *path = f[1].bytes;
	int failed = 0;
	switch (*f[0].bytes) {
	case 'M': failed = mkdir(path, 0777); break;
	case 'U': failed = unlink(path); break;
	case 'D': failed = rmdir(path); break;
	case 'C': failed = chmod(path, strtol(f[2].bytes, NULL, 8)); break;
	case 'T': failed = truncate(path, f_number(&f[2])); break;
	}
	put_number("errno", failed ? errno : 0);
}

static void do_two_writes(struct text *f)
{
	int fd = opened(&f[1], O_WRONLY);
	if (fd < 0)
		return;
	write_once(fd, &f[2], "ret", "errno");
	write_once(fd, &f[3], "ret2", "errno2");
	close(fd);
}

static void put_read(int fd, const char *name)
{
	long n = read(fd, data, 4096);
	put_bytes(name, data, n < 0 ? 0 : n);
}

static void do_stale(struct text *f)
{
	int fd = opened(&f[1], O_RDONLY), other, failed;
	if (fd < 0)
		return;
	put_read(fd, "first");
	other = open(f[3].bytes, O_WRONLY);
	failed = write(other, f[2].bytes, f[2].length) < 0 ? errno : 0;
	close(other);
	put_number("write_errno", failed);
	put_read(fd, "again");
	lseek(fd, 0, SEEK_SET);
	put_read(fd, "rewound");
	close(fd);
}

static const struct { const char *kinds; void (*call)(struct text *); } handlers[] = {
	{ "WA", do_write }, { "RBP", do_read }, { "S", do_lstat }, { "K", do_readlink }, { "L", do_list },
	{ "MUDCT", do_change }, { "2", do_two_writes }, { "Z", do_stale },
};

/* the state after boot, as the scripts of the recorded boots printed it */

static long number_in(const char *area, const char *name)
{
	char path[512];
	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/%s", area, name);
	return read_file(path) < 0 ? -1 : atol(data);
}

static void put_section(const char *title, const char *path)
{
	long length = read_file(path);
	report("%s", title);
	if (length > 0)
		put_lines("script", data, length);
}

static void put_matching(const char *path, const char *word)
{
	if (read_file(path) < 0)
		return;
	for (char *line = strtok(data, "\n"); line; line = strtok(NULL, "\n"))
		if (strstr(line, word))
			report("%s", line);
}

static void put_state(void)
{
	static const char *const files[][2] = {
		{ "IOMEM", "/proc/iomem" }, { "MEMINFO", "/proc/meminfo" }, { "ZONEINFO", "/proc/zoneinfo" },
		{ "BUDDYINFO", "/proc/buddyinfo" }, { "PAGETYPEINFO", "/proc/pagetypeinfo" },
	};
	char *names[256], path[512];
	int count = list(DEBUGFS_CMA, names, 256);
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], ".") && strcmp(names[i], ".."))
			report("area %s base_pfn=%ld count=%ld order_per_bit=%ld used=%ld maxchunk=%ld", names[i],
			       number_in(names[i], "base_pfn"), number_in(names[i], "count"),
			       number_in(names[i], "order_per_bit"), number_in(names[i], "used"),
			       number_in(names[i], "maxchunk"));
	put_matching("/proc/meminfo", "Cma");
	put_matching("/proc/meminfo", "HighTotal");
	put_matching("/proc/vmstat", "cma");
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		put_section(files[i][0], files[i][1]);
	for (int i = 0; i < count; i++) {
		if (!strcmp(names[i], ".") || !strcmp(names[i], ".."))
			continue;
		snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/bitmap", names[i]);
		report("BITMAP %s", names[i]);
		read_file(path);
		put_lines("script", data, strlen(data));
	}
}

/* the case */

static void unescape(struct text *field)
{
	char *to = field->bytes;
	for (char *from = to; *from; from++) {
		unsigned code;
		if (*from == '%' && sscanf(from + 1, "%2x", &code) == 1) {
			*to++ = code;
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = 0;
	field->length = to - field->bytes;
}

static void do_line(char *line, int number)
{
	struct text f[FIELDS] = { { NULL, 0 } };
	int there = 0;
	for (char *field; there < FIELDS && (field = strsep(&line, "\t")); there++) {
		f[there] = (struct text){ field, 0 };
		unescape(&f[there]);
	}
	if (there < 2 || !resolve(&f[1]) || (*f[0].bytes == 'Z' && !resolve(&f[3])))
		return;
	printf("@@ {\"n\": %d", number);
	put_bytes("path", f[1].bytes, f[1].length);
	if (*f[0].bytes == 'Z')
		put_bytes("other", f[3].bytes, f[3].length);
	for (size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++)
		if (strchr(handlers[i].kinds, *f[0].bytes))
			handlers[i].call(f);
	end_line();
}

static void do_case(char *text)
{
	int number = 0;
	for (char *line; (line = strsep(&text, "\n")) && *line; number++) {
		do_line(line, number);
		if (number % LOG_EVERY == 0)
			take_log();
	}
}

/* a program that lies beside the case: what it prints, and how it ended */
static void run_program(void)
{
	int ends[2], status;
	size_t size = 0;
	char *line = NULL;
	if (access("/program", X_OK) || pipe(ends))
		return;
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		execl("/program", "/program", NULL);
		_exit(127);
	}
	close(ends[1]);
	FILE *from = fdopen(ends[0], "r");
	for (ssize_t n; (n = getline(&line, &size, from)) > 0;)
		put_line("program", line, n - (line[n - 1] == '\n'));
	fclose(from);
	waitpid(pid, &status, 0);
	if (status)
		put_line("program", "failed", 6);
}

static void echo(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		report("cannot write %s", path);
	close(fd);
}

int main(void)
{
	struct utsname name;
	struct timespec start, end;
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	klogctl(CONSOLE_OFF, NULL, 0);
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	uname(&name);
	puts("");
	put_line("release", name.release, strlen(name.release));
	put_log("boot");
	if (read_file("/proc/cmdline") > 0 && strstr(data, "dyndbg_cma")) {
		echo("/sys/kernel/debug/dynamic_debug/control", "file mm/cma.c +p\n");
		echo("/sys/kernel/debug/dynamic_debug/control", "file mm/cma_debug.c +p\n");
	}
	put_state();
	klogctl(READ_CLEAR, klog, LOG_BYTES);
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (read_file("/case") > 0)
		do_case(strdup(data));
	run_program();
	clock_gettime(CLOCK_MONOTONIC, &end);
	put_log("dmesg");
	printf("@@ {\"seconds\": %ld}\n", (long)(end.tv_sec - start.tv_sec + 1));
	fflush(stdout);
	for (;;)
		pause();
}
