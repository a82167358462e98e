"""The system calls of `cmafs run` that Python's os module lacks (before 3.12, or altogether)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from cmafs.mount.prctl import PR_SET_SECCOMP, prctl

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

SECCOMP_MODE_FILTER = 2

# by audit architecture (include/uapi/linux/audit.h, each architecture's syscall table): syslog(2), splice(2),
# sendfile(2) in its one or two sizes of offset
_NR = {
    0xC000003E: (103, 275, 40),  # x86_64
    0x40000003: (103, 313, 187, 239),  # i386
    0xC00000B7: (116, 76, 71),  # aarch64
    0x40000028: (103, 340, 187, 239),  # arm
    0xC00000F3: (116, 76, 71),  # riscv64
    0xC0000015: (103, 283, 186),  # ppc64le
    0x80000016: (103, 306, 187),  # s390x
    0xC0000102: (116, 76, 71),  # loongarch64
}
#: keyctl(2) by what uname(2) calls a machine on which long has 64 bits
_NR_KEYCTL = {"x86_64": 250, "ppc64le": 271, "s390x": 280, "aarch64": 219, "riscv64": 219, "loongarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_NR_PIDFD_GETFD, _NR_MOUNT_SETATTR = 438, 442  # the same on every architecture above
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_X32_SYSCALL_BIT = 0x40000000


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError whose text names the target."""
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, fstype, data)]
    result = _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {target}")


def bind(source: str, target: str, recursive: bool = False) -> None:
    """Bind mount. Raises OSError."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def restrict_tree(target: str, flags: int) -> None:
    """mount_setattr(2), 5.12 on: add MS_RDONLY or MS_NODEV to a mount and all below it. Raises OSError."""
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", flags, 0, 0, 0))  # these bits are the same
    result = _libc.syscall(
        _NR_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, ctypes.c_size_t(32)
    )
    _check(result, f"mount_setattr {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2). Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def join_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one, which ends with the last process that has it.

    The kernel may have no keys, or a container none of its own: then CMD cannot add any to the caller's
    either. Keyrings of users are the user namespace's (security/keys/process_keys.c, 5.3 on).
    """
    number = _NR_KEYCTL.get(platform.machine())
    if number and ctypes.sizeof(ctypes.c_long) == 8:
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter() -> bytes:
    """A classic BPF program over struct seccomp_data, whatever the architecture: EPERM for syslog(2), EINVAL
    for splice(2) and sendfile(2).
    """
    load, jump_equal, ret = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000
    code = []
    for arch, (syslog, *splices) in _NR.items():
        answers = [(syslog, errno.EPERM), *((number, errno.EINVAL) for number in splices)]
        answers += [(number | _X32_SYSCALL_BIT, answer) for number, answer in answers]
        code += [(load, 0, 0, 4), (jump_equal, 0, 1 + 2 * len(answers), arch), (load, 0, 0, 0)]
        for number, answer in answers:
            code += [(jump_equal, 0, 1, number), (ret, 0, 0, refuse | answer)]
    code.append((ret, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def filter_syscalls() -> None:
    """Make syslog(2) answer EPERM, splice(2) and sendfile(2) EINVAL, from here on.

    The kernel refuses syslog(2) in a user namespace by itself only where kernel.dmesg_restrict is set:
    otherwise everybody may read (kernel/printk/printk.c:check_syslog_permissions()). From 6.5 on it splices
    from a FUSE file through the page cache and stops at the size that stat shows
    (mm/filemap.c:filemap_splice_read()): a busybox cat into a pipe would print nothing. Programs that are
    refused read instead.

    Needs CAP_SYS_ADMIN in the user namespace of the caller, and programs that gain privileges can still do
    so. Raises OSError.
    """
    program = _filter()
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(fprog), f"seccomp ({platform.machine()})")


def borrow_descriptor(pid: int, number: int) -> int:
    """A duplicate of another process's descriptor: pidfd_getfd(2), 5.6 on. Raises OSError."""
    process = os.pidfd_open(pid)
    try:
        descriptor = int(_libc.syscall(_NR_PIDFD_GETFD, process, number, 0))
        _check(min(descriptor, 0), "pidfd_getfd")
        return descriptor
    finally:
        os.close(process)
