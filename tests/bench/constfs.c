/*
 * The yardstick of bench_fuse.py: a file system of constants in C on libfuse 2.
 *
 * Only getattr, open, read and write. Every name is there: `used`, `alloc` and `free` are files, anything else is a
 * directory, so that the kernel walks paths as long as those of a machine. Every file answers "0\n" and takes every
 * write whole. What cmafs costs more than this is what cmafs adds to FUSE itself.
 *
 * The few declarations needed of <fuse.h> (API 26) stand here, so that no development package is needed to build it:
 *	cc -O2 -D_FILE_OFFSET_BITS=64 -o constfs constfs.c -l:libfuse.so.2
 */
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

struct fuse_file_info {
	int flags;
	unsigned long fh_old;
	int writepage;
	unsigned int direct_io : 1;
	unsigned int keep_cache : 1;
	unsigned int flush : 1;
	unsigned int nonseekable : 1;
	unsigned int flock_release : 1;
	unsigned int padding : 27;
	uint64_t fh;
	uint64_t lock_owner;
};

/* The handlers that are not used here only keep their places. */
struct fuse_operations {
	int (*getattr)(const char *, struct stat *);
	void *readlink_to_utime[13];	/* readlink getdir mknod mkdir unlink rmdir symlink rename link chmod chown
					   truncate utime */
	int (*open)(const char *, struct fuse_file_info *);
	int (*read)(const char *, char *, size_t, off_t, struct fuse_file_info *);
	int (*write)(const char *, const char *, size_t, off_t, struct fuse_file_info *);
};

int fuse_main_real(int argc, char *argv[], const struct fuse_operations *op, size_t op_size, void *user_data);

static const char answer[] = "0\n";

static int const_getattr(const char *path, struct stat *st)
{
	const char *name = strrchr(path, '/') + 1;
	int is_file = !strcmp(name, "used") || !strcmp(name, "alloc") || !strcmp(name, "free");

	memset(st, 0, sizeof(*st));
	st->st_mode = is_file ? S_IFREG | 0644 : S_IFDIR | 0755;
	st->st_nlink = is_file ? 1 : 2;
	return 0;
}

static int const_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1;
	fi->nonseekable = 1;
	return 0;
}

static int const_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if (offset >= (off_t)(sizeof(answer) - 1))
		return 0;
	if (size > sizeof(answer) - 1)
		size = sizeof(answer) - 1;
	memcpy(buf, answer, size);
	return (int)size;
}

static int const_write(const char *path, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)path;
	(void)buf;
	(void)offset;
	(void)fi;
	return (int)size;
}

static const struct fuse_operations const_operations = {
	.getattr = const_getattr,
	.open = const_open,
	.read = const_read,
	.write = const_write,
};

int main(int argc, char *argv[])
{
	return fuse_main_real(argc, argv, &const_operations, sizeof(const_operations), NULL);
}
