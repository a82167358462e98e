"""System calls in process: how paths are walked, what an open may do, as fs/namei.c and fs/open.c have it.

Modules: cmafs.fs.open.
"""

from __future__ import annotations

import errno
import os
import stat

import pytest
from cma_support import refused_with

from cmafs.fs import namei, seq_file
from cmafs.fs.dentry import Directory, Symlink, new_directory
from cmafs.fs.libfs import DEBUGFS
from cmafs.fs.namei import O_DIRECT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY, Syscalls
from cmafs.fs.seq_file import SeqOperations
from cmafs.fs.tree import mount_points


class Store:
    """What a file holds."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def write(self, data: bytes) -> int:
        self.data = data
        return len(data)


def link(directory: Directory, name: str, target: str) -> None:
    directory.add(name, Symlink(directory.fs, stat.S_IFLNK | 0o777, len(target), target=target))


@pytest.fixture
def store() -> Store:
    return Store(b"content\n")


@pytest.fixture
def calls(store: Store) -> Syscalls:
    """/a/b/file, /a/plain, and links."""
    root = new_directory(DEBUGFS)
    b = root.subdir("a").subdir("b")
    b.file("file", 0o644, SeqOperations(lambda: store.data, store.write))
    root.subdir("a").file("plain", 0o600, SeqOperations(lambda: b"plain"))
    for name, target in (
        ("absolute", "/a/b"),
        ("relative", "a//./b/"),
        ("up", "a/b/../plain"),
        ("above", "../../../a/plain"),
        ("file", "a/b/file"),
        ("dangling", "a/nothing"),
        ("loop", "pool"),
        ("pool", "loop"),
    ):
        link(root, name, target)
    link(b, "back", "../plain")
    link(b, "slashes", "..///plain")
    link(b, "root", "/a/plain")
    return Syscalls(root)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/a/b/file", b"content\n"),
        ("a/b/file", b"content\n"),
        ("//a/./b//file", b"content\n"),
        ("/a/../a/b/../../a/plain", b"plain"),
        ("/../../a/plain", b"plain"),
        ("/absolute/file", b"content\n"),
        ("/relative/file", b"content\n"),
        ("/relative/../plain", b"plain"),
        ("/up", b"plain"),
        ("/above", b"plain"),
        ("/file", b"content\n"),
        ("/absolute/back", b"plain"),
        ("/absolute/slashes", b"plain"),
        ("/a/b/root", b"plain"),
    ],
)
def test_paths(calls: Syscalls, path: str, content: bytes) -> None:
    assert calls.read_file(path) == content


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", errno.ENOENT),
        ("/a/none", errno.ENOENT),
        ("/none/file", errno.ENOENT),
        ("/a/plain/x", errno.ENOTDIR),
        ("/a/plain/", errno.ENOTDIR),
        ("/file/x", errno.ENOTDIR),
        ("/dangling", errno.ENOENT),
        ("/loop", errno.ELOOP),
        ("/loop/x", errno.ELOOP),
        ("/" + "n" * 255, errno.ENOENT),
        ("/" + "n" * 256, errno.ENAMETOOLONG),
        ("/" + "ü" * 128, errno.ENAMETOOLONG),
        ("/a" * 2047 + "/", errno.ENOENT),
        ("/a" * 2048, errno.ENAMETOOLONG),
    ],
)
def test_paths_that_lead_nowhere(calls: Syscalls, path: str, code: int) -> None:
    refused_with(code, calls.open, path, O_RDONLY)
    if code != errno.ENOTDIR or not path.endswith("/"):
        refused_with(code, calls.stat, path)


def test_links_are_followed_or_not(calls: Syscalls) -> None:
    assert stat.S_ISLNK(calls.lstat("/file").st_mode)
    assert stat.S_ISREG(calls.stat("/file").st_mode)
    assert (calls.readlink("/file"), calls.lstat("/file").st_size) == ("a/b/file", 8)
    refused_with(errno.ELOOP, calls.open, "/file", O_RDONLY | O_NOFOLLOW)
    refused_with(errno.EINVAL, calls.readlink, "/a/plain")
    refused_with(errno.ENOENT, calls.stat, "/dangling")
    assert stat.S_ISLNK(calls.lstat("/dangling").st_mode)
    assert calls.listdir("/absolute") == calls.listdir("/a/b")


def test_forty_links_are_enough_and_one_more_is_too_many() -> None:
    root = new_directory(DEBUGFS)
    root.file("end", 0o444, SeqOperations(lambda: b"end"))
    for number in range(41):
        link(root, f"l{number}", "end" if number == 0 else f"l{number - 1}")
    calls = Syscalls(root)
    assert calls.read_file("/l39") == b"end"
    refused_with(errno.ELOOP, calls.open, "/l40", O_RDONLY)


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        ("/a/plain", O_EXCL, None),  # which means nothing alone
        ("/a/plain", os.O_CREAT, None),
        ("/a/plain", os.O_CREAT | O_EXCL, errno.EEXIST),
        ("/file", os.O_CREAT | O_EXCL | O_NOFOLLOW, errno.EEXIST),
        ("/file", os.O_CREAT | O_NOFOLLOW, errno.ELOOP),
        ("/a/new", os.O_CREAT, errno.EACCES),
        ("/a/new", O_EXCL, errno.ENOENT),
        ("/a/new/", os.O_CREAT, errno.EISDIR),
        ("/a/plain/", os.O_CREAT, errno.EISDIR),
        ("/none/new", os.O_CREAT, errno.ENOENT),
        ("/a", os.O_CREAT | O_EXCL, errno.EEXIST),
        ("/a", os.O_CREAT, errno.EISDIR),
        ("/a/", O_DIRECTORY, None),
        ("/a", O_RDWR, errno.EISDIR),
        ("/absolute", O_DIRECTORY, None),
        ("/absolute", O_NOFOLLOW, errno.ELOOP),
        ("/absolute", O_DIRECTORY | O_NOFOLLOW, errno.ENOTDIR),
        ("/absolute/", O_NOFOLLOW, None),
        ("/a/plain", O_DIRECTORY, errno.ENOTDIR),
    ],
)
def test_flags_of_open(calls: Syscalls, path: str, flags: int, code: int | None) -> None:
    """fs/namei.c:open_last_lookups(), do_open(), may_open() @v6.12"""
    if code is None:
        calls.close(calls.open(path, flags))
    else:
        refused_with(code, calls.open, path, flags)


def test_flags_are_the_kernels() -> None:
    """include/uapi/asm-generic/fcntl.h, include/uapi/linux/fs.h"""
    assert (O_RDONLY, O_WRONLY, O_RDWR, seq_file.O_ACCMODE) == (0, 1, 2, 3)
    assert (namei.O_CREAT, O_EXCL, seq_file.O_TRUNC, namei.O_APPEND) == (0o100, 0o200, 0o1000, 0o2000)
    assert (namei.O_NONBLOCK, O_DIRECT, O_DIRECTORY, O_NOFOLLOW) == (0o4000, 0o40000, 0o200000, 0o400000)
    assert (namei.SEEK_SET, namei.SEEK_CUR, namei.SEEK_END) == (0, 1, 2)


def test_what_an_open_may_do(calls: Syscalls, store: Store) -> None:
    refused_with(errno.EISDIR, calls.open, "/a", O_WRONLY)
    refused_with(errno.EISDIR, calls.open, "/a", O_RDONLY | os.O_CREAT)
    refused_with(errno.ENOTDIR, calls.open, "/a/plain", O_RDONLY | O_DIRECTORY)
    refused_with(errno.EEXIST, calls.open, "/a/plain", O_WRONLY | os.O_CREAT | O_EXCL)
    refused_with(errno.EINVAL, calls.open, "/a/plain", O_RDONLY | O_DIRECT)
    fd = calls.open("/a", O_RDONLY | O_DIRECTORY)
    assert fd == 3  # behind the three that every process begins with
    refused_with(errno.EISDIR, calls.read, fd, 10)
    calls.close(fd)
    refused_with(errno.EBADF, calls.read, fd, 10)
    refused_with(errno.EBADF, calls.close, fd)
    reader, writer = calls.open("/file", O_RDONLY), calls.open("/file", O_WRONLY)
    assert (reader, writer) == (fd + 1, fd + 2)
    refused_with(errno.EBADF, calls.write, reader, b"x")
    refused_with(errno.EBADF, calls.read, writer, 10)
    assert calls.write(writer, b"new") == 3
    assert (calls.read(reader, 2), calls.read(reader, 9), calls.read(reader, 9)) == (b"ne", b"w", b"")
    both = calls.open("/file", O_RDWR)
    assert (calls.write(both, b"newer"), store.data) == (5, b"newer")
    assert calls.pread(both, 3, 1) == b"ewe"
    refused_with(errno.EINVAL, calls.pread, both, 3, -1)
    refused_with(errno.EINVAL, calls.pwrite, both, b"x", -1)
    assert (calls.pwrite(both, b"at", 7), store.data) == (2, b"at")


def test_what_cannot_be_removed(calls: Syscalls) -> None:
    for path, code in (
        ("/", errno.EBUSY),
        ("/a/.", errno.EINVAL),
        ("/a/b/..", errno.ENOTEMPTY),
        ("/none", errno.ENOENT),
        ("/none/.", errno.ENOENT),
    ):
        refused_with(code, calls.rmdir, path)


@pytest.mark.parametrize(
    ("path", "unlink", "rmdir", "mkdir", "symlink"),
    [
        ("", errno.ENOENT, errno.ENOENT, errno.ENOENT, errno.ENOENT),
        ("/", errno.EISDIR, errno.EBUSY, errno.EEXIST, errno.EEXIST),
        (".", errno.EISDIR, errno.EINVAL, errno.EEXIST, errno.EEXIST),
        ("..", errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EEXIST),
        ("/a/b", errno.EISDIR, errno.EPERM, errno.EEXIST, errno.EEXIST),
        ("/a/b/", errno.EISDIR, errno.EPERM, errno.EEXIST, errno.EEXIST),
        ("/a/b//..", errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EEXIST),
        ("/a/b/.", errno.EISDIR, errno.EINVAL, errno.EEXIST, errno.EEXIST),
        ("/a/plain", errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/a/plain/", errno.ENOTDIR, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/file", errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/dangling", errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/absolute", errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),  # a link to a directory
        ("/absolute/", errno.ENOTDIR, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/loop", errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EEXIST),
        ("/absolute/new", errno.ENOENT, errno.ENOENT, errno.EPERM, errno.EPERM),
        ("/a/b~", errno.ENOENT, errno.ENOENT, errno.EPERM, errno.EPERM),
        ("/a/new", errno.ENOENT, errno.ENOENT, errno.EPERM, errno.EPERM),
        ("/a/new/", errno.ENOENT, errno.ENOENT, errno.EPERM, errno.ENOENT),
        ("/none/new", errno.ENOENT, errno.ENOENT, errno.ENOENT, errno.ENOENT),
        ("/a/plain/new", errno.ENOTDIR, errno.ENOTDIR, errno.ENOTDIR, errno.ENOTDIR),
    ],
)
def test_what_removing_and_making_answers(
    calls: Syscalls, path: str, unlink: int, rmdir: int, mkdir: int, symlink: int
) -> None:
    """fs/namei.c@v6.12: do_unlinkat(), do_rmdir(), filename_create()."""
    refused_with(unlink, calls.unlink, path)
    refused_with(rmdir, calls.rmdir, path)
    refused_with(mkdir, calls.mkdir, path)
    refused_with(symlink, calls.symlink, "target", path)


def test_what_the_mount_asks_of_a_directory() -> None:
    """Where no walk came before: fuse_ops.mkdir(), rmdir(), unlink(), create()."""
    root = new_directory(DEBUGFS)
    root.subdir("a").file("plain", 0o600, SeqOperations(lambda: b"plain"))
    a = root.subdir("a")
    refused_with(errno.EEXIST, root.mkdir, "a")
    refused_with(errno.EPERM, root.mkdir, "b")
    refused_with(errno.ENOENT, root.rmdir, "b")
    refused_with(errno.ENOTDIR, a.rmdir, "plain")
    refused_with(errno.EPERM, root.rmdir, "a")
    refused_with(errno.ENOENT, root.unlink, "b")
    refused_with(errno.EISDIR, root.unlink, "a")
    refused_with(errno.EPERM, a.unlink, "plain")
    refused_with(errno.EACCES, a.create, "new")


def test_directories_have_no_ioctl(calls: Syscalls) -> None:
    fd = calls.open("/a", O_RDONLY)
    refused_with(errno.ENOTTY, calls.ioctl, fd, 0x5401, bytearray())
    found = calls.fstat(fd)
    assert stat.S_ISDIR(found.st_mode)
    assert (found.st_nlink, found.st_uid, found.st_gid, found.st_blocks, found.st_blksize) == (
        3,
        0,
        0,
        0,
        4096,
    )


def test_seeking(calls: Syscalls) -> None:
    fd = calls.open("/file", O_RDONLY)
    assert calls.lseek(fd, 3) == 3
    assert calls.read(fd, 3) == b"ten"
    assert calls.lseek(fd, -2, os.SEEK_CUR) == 4
    assert calls.read(fd, 100) == b"ent\n"
    assert calls.pread(fd, 3, 1) == b"ont"
    assert calls.lseek(fd, 0, os.SEEK_CUR) == 8  # which pread() leaves
    both = calls.open("/file", O_RDWR)
    for written in (3, 6):
        assert calls.write(both, b"abc") == 3
        assert calls.lseek(both, 0, os.SEEK_CUR) == written
    assert calls.pwrite(both, b"abc", 1) == 3
    assert calls.lseek(both, 0, os.SEEK_CUR) == 6
    calls.truncate("/a/b/file", 5)
    assert (calls.lseek(both, 0, os.SEEK_END), calls.lseek(both, -5, os.SEEK_END)) == (5, 0)
    refused_with(errno.EINVAL, calls.lseek, both, -6, os.SEEK_END)
    refused_with(errno.EINVAL, calls.lseek, fd, -1, os.SEEK_SET)
    refused_with(errno.EINVAL, calls.lseek, fd, 0, os.SEEK_DATA)


def test_the_directories_that_are_mounted_on() -> None:
    calls = Syscalls(mount_points())
    found = {}
    for path in ("", "/sys", "/sys/kernel", "/sys/kernel/debug", "/sys/kernel/mm", "/sys/firmware", "/proc"):
        names = calls.listdir(path or "/")
        found[path] = {name: oct(calls.lstat(f"{path}/{name}").st_mode & 0o7777)[2:] for name in names}
    assert found == {
        "": {"sys": "555", "proc": "555", "dev": "755", "boot": "755"},
        "/sys": {"kernel": "755", "firmware": "755"},
        "/sys/kernel": {"debug": "700", "mm": "755"},
        "/sys/kernel/debug": {},
        "/sys/kernel/mm": {},
        "/sys/firmware": {},
        "/proc": {},
    }
    refused_with(errno.EACCES, calls.open, "/new", O_WRONLY | os.O_CREAT)
    refused_with(errno.EPERM, calls.mkdir, "/sys/kernel/new")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("/a/plain", "/a/other", errno.EPERM),
        ("/a/nothing", "/a/other", errno.ENOENT),
        ("/a/plain", "/nothing/other", errno.ENOENT),
        ("/a/plain", "/a/plain/other", errno.ENOTDIR),
        ("/nothing/x", "/a/plain/other", errno.ENOENT),
        ("/dangling", "/a/other", errno.EPERM),
        ("/loop", "/pool", errno.EPERM),
        ("/a/plain", "/loop/x", errno.ELOOP),
    ],
)
def test_rename_looks_at_both_paths(calls: Syscalls, old: str, new: str, code: int) -> None:
    """fs/namei.c:do_renameat2()@v6.12: first both directories, then the old name."""
    refused_with(code, calls.rename, old, new)
