"""The system calls of `cmafs run` that Python's os module lacks (before 3.12, or altogether)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cmafs.mount.libc import PR_SET_SECCOMP, check, libc, prctl

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
#: ioctl(2), mmap(2) or mmap2(2), and the bytes in which that counts its offset, by audit architecture, where
#: numbers of ioctls are made as in include/uapi/asm-generic/ioctl.h and the low half of an argument is first
_NR_SUPERVISED = {
    0xC000003E: (16, 9, 1),
    0x40000003: (54, 192, 4096),
    0xC00000B7: (29, 222, 1),
    0x40000028: (54, 192, 4096),
    0xC00000F3: (29, 222, 1),
    0xC0000102: (29, 222, 1),
}
#: seccomp(2), by what uname(2) calls the machine
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277, "armv7l": 383, "i686": 354, "riscv64": 277, "loongarch64": 277}
_SECCOMP_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE_RECV = 1, 1 << 3, 1 << 5
#: Type and number of DMA_BUF_SET_NAME. A heap looks at an ioctl's number only, which is 0 as is that of
#: DMA_BUF_IOCTL_SYNC: the other one that a supervisor is asked about.
_SET_NAME = 0x6201
#: MAP_TYPE; MAP_FIXED, MAP_ANONYMOUS and MAP_DENYWRITE, with which loaders of programs map
_MAP_TYPE, _MAP_PRIVATE, _PROT_WRITE, _LOADERS = 0xF, 2, 2, 0x10 | 0x20 | 0x800
#: keyctl(2) by what uname(2) calls a machine on which long has 64 bits
_NR_KEYCTL = {"x86_64": 250, "ppc64le": 271, "s390x": 280, "aarch64": 219, "riscv64": 219, "loongarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_NR_PIDFD_GETFD, _NR_MOUNT_SETATTR = 438, 442  # the same on every architecture above
_AT_FDCWD, _AT_RECURSIVE, _AT_STATX_DONT_SYNC = -100, 0x8000, 0x4000
#: struct statx, include/uapi/linux/stat.h: stx_ino, stx_dev_major, stx_dev_minor
_STATX, _STATX_SIZE, _STATX_INO = struct.Struct("=32xQ96xII"), 256, 0x100
_X32_SYSCALL_BIT = 0x40000000


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError whose text names the target."""
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, fstype, data)]
    result = libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {target}")


def bind(source: str, target: str, recursive: bool = False) -> None:
    """Bind mount. Raises OSError."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def restrict_tree(target: str, flags: int) -> None:
    """mount_setattr(2), 5.12 on: add MS_RDONLY or MS_NODEV to a mount and all below it. Raises OSError."""
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", flags, 0, 0, 0))  # these bits are the same
    result = libc.syscall(
        _NR_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, ctypes.c_size_t(32)
    )
    check(result, f"mount_setattr {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    check(libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def join_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one, which ends with the last process that has it.

    The kernel may have no keys, or a container none of its own: then CMD cannot add any to the caller's
    either. Keyrings of users are the user namespace's (security/keys/process_keys.c, 5.3 on).
    """
    number = _NR_KEYCTL.get(platform.machine())
    if number and ctypes.sizeof(ctypes.c_long) == 8:
        libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def file_of(path: str) -> tuple[str, int]:
    """The file system, as ``Mount.device``, and the inode that a path leads to; a file system is not asked.

    What it has said before is enough: it may be that of the caller, who would wait for itself. statx(2).
    Raises OSError.
    """
    status = ctypes.create_string_buffer(_STATX_SIZE)
    done = libc.statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, _STATX_INO, status)
    check(done, f"statx {path}")
    inode, major, minor = _STATX.unpack_from(status)
    return f"{major}:{minor}", inode


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_LOAD, _JUMP_EQUAL, _JUMP_SET, _RET, _AND = 0x20, 0x15, 0x45, 0x06, 0x54
_ALLOW, _REFUSE, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_Instruction: TypeAlias = "tuple[int, int, int, int]"


def _notify(arch: int) -> list[_Instruction]:
    """Instructions that ask the supervisor about its calls; the number of the system call is loaded.

    Of mmap(2): private and writable, of a file, and not as loaders of programs do it.
    """
    if arch not in _NR_SUPERVISED:
        return []
    ioctl, mapping, _ = _NR_SUPERVISED[arch]
    return [
        (_JUMP_EQUAL, 0, 6, ioctl),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, 0xFF),
        (_JUMP_EQUAL, 9, 0, 0),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, 0xFFFF),
        (_JUMP_EQUAL, 6, 7, _SET_NAME),
        (_JUMP_EQUAL, 0, 6, mapping),
        (_LOAD, 0, 0, _argument(3)),
        (_AND, 0, 0, _MAP_TYPE | _LOADERS),
        (_JUMP_EQUAL, 0, 3, _MAP_PRIVATE),
        (_LOAD, 0, 0, _argument(2)),
        (_JUMP_SET, 0, 1, _PROT_WRITE),
        (_RET, 0, 0, _NOTIFY),
        (_RET, 0, 0, _ALLOW),
    ]


def _argument(index: int) -> int:
    """Where struct seccomp_data has the low half of an argument."""
    return 16 + 8 * index


def private_mapping(arch: int, number: int, arguments: Sequence[int]) -> tuple[int, int, int] | None:
    """What a call asks to map: descriptor, offset and length in bytes; None where it is an ioctl(2)."""
    _, mapping, unit = _NR_SUPERVISED[arch]
    if number != mapping:
        return None
    _, length, _, _, descriptor, offset = arguments
    return descriptor, offset * unit, length


def _filter(supervised: bool) -> bytes:
    """A classic BPF program over struct seccomp_data, whatever the architecture: EPERM for syslog(2), EINVAL
    for splice(2) and sendfile(2), a notification for what the supervisor answers.
    """
    code: list[_Instruction] = []
    for arch, (syslog, *splices) in _NR.items():
        answers = [(syslog, errno.EPERM), *((number, errno.EINVAL) for number in splices)]
        answers += [(number | _X32_SYSCALL_BIT, answer) for number, answer in answers]
        block: list[_Instruction] = []
        for number, answer in answers:
            block += [(_JUMP_EQUAL, 0, 1, number), (_RET, 0, 0, _REFUSE | answer)]
        block += _notify(arch) if supervised else []
        code += [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 0, 1 + len(block), arch), (_LOAD, 0, 0, 0), *block]
    code.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _sock_fprog(program: bytes) -> _SockFprog:
    return _SockFprog(len(program) // 8, program)


def _listener() -> int | None:
    """Filter with a listener; None where the host has none for us (a container may have one of its own)."""
    number = _NR_SECCOMP.get(platform.machine())
    if number is None:
        return None
    fprog = _sock_fprog(_filter(supervised=True))
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):  # 5.19 on; 5.0 on
        listener = int(libc.syscall(number, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(fprog)))
        if listener >= 0:
            return listener
    return None


def filter_syscalls(supervised: bool) -> int | None:
    """Make syslog(2) answer EPERM, splice(2) and sendfile(2) EINVAL, from here on.

    The kernel refuses syslog(2) in a user namespace by itself only where kernel.dmesg_restrict is set:
    otherwise everybody may read (kernel/printk/printk.c:check_syslog_permissions()). From 6.5 on it splices
    from a FUSE file through the page cache and stops at the size that stat shows
    (mm/filemap.c:filemap_splice_read()): a busybox cat into a pipe would print nothing. Programs that are
    refused read instead.

    ``supervised``: a supervisor answers what ``_notify()`` lists; the descriptor on which it is asked is
    returned, None where the host has no such thing. Needs CAP_SYS_ADMIN in the user namespace of the caller,
    and programs that gain privileges can still do so. Raises OSError.
    """
    if supervised and (listener := _listener()) is not None:
        return listener
    fprog = _sock_fprog(_filter(supervised=False))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(fprog), f"seccomp ({platform.machine()})")
    return None


def borrow_descriptor(pid: int, number: int) -> int:
    """A duplicate of another process's descriptor: pidfd_getfd(2), 5.6 on. Raises OSError."""
    process = os.pidfd_open(pid)
    try:
        descriptor = int(libc.syscall(_NR_PIDFD_GETFD, process, number, 0))
        check(min(descriptor, 0), "pidfd_getfd")
        return descriptor
    finally:
        os.close(process)


#: struct iovec
_IOVEC = struct.Struct("@PN")
for _call in (libc.process_vm_readv, libc.process_vm_writev):
    _call.argtypes = (ctypes.c_int, *(ctypes.c_char_p, ctypes.c_ulong) * 2, ctypes.c_ulong)


def _transfer(call: Callable[..., int], pid: int, address: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """process_vm_readv(2) or process_vm_writev(2) of one piece: how many bytes. Raises OSError EFAULT."""
    size = ctypes.sizeof(buffer)
    done = call(pid, _IOVEC.pack(ctypes.addressof(buffer), size), 1, _IOVEC.pack(address, size), 1, 0)
    if done < 0:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return done


def read_memory(pid: int, address: int, size: int) -> bytes:
    """``copy_from_user()`` of another process. Raises OSError EFAULT."""
    data = read_memory_string(pid, address, size)
    if len(data) < size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def read_memory_string(pid: int, address: int, size: int) -> bytes:
    """As many of ``size`` bytes of another process as can be read. Raises OSError EFAULT for none."""
    buffer = ctypes.create_string_buffer(size)
    done = _transfer(libc.process_vm_readv, pid, address, buffer) if size else 0
    return buffer.raw[:done]


def write_memory(pid: int, address: int, data: bytes) -> None:
    """``copy_to_user()`` of another process. Raises OSError EFAULT."""
    buffer = ctypes.create_string_buffer(data, len(data))
    if data and _transfer(libc.process_vm_writev, pid, address, buffer) < len(data):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


def inotify_init() -> int:
    """inotify_init1(2), which does not wait. Raises OSError."""
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    check(min(descriptor, 0), "inotify_init1")
    return descriptor


def inotify_add_watch(inotify: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): the watch's number. Raises OSError."""
    watch = int(libc.inotify_add_watch(inotify, os.fsencode(path), mask))
    check(min(watch, 0), f"inotify_add_watch {path}")
    return watch
