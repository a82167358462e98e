"""Ask a heap and its buffers for anything: heap_random.py HEAP SECONDS SEED; prints the errnos, by call."""

import ctypes
import errno
import mmap
import os
import random
import sys
import time

IOCTL = {"ALLOC": 0xC0184800, "SYNC": 0x40086200, "NAME_A": 0x40046201, "NAME_B": 0x40086201}
EDGES = (0, 1, 3, 4095, 4096, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

rng = random.Random(int(sys.argv[3]))
heap = os.open(sys.argv[1], os.O_RDWR)
end = time.monotonic() + float(sys.argv[2])
memory = mmap.mmap(-1, 3 * mmap.PAGESIZE)  # the last page is none
place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(place + 2 * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
held: list[int] = []
said: set[tuple[str, str]] = set()


def number() -> int:
    return rng.choice((rng.choice(EDGES), rng.choice(EDGES) + rng.randrange(9), rng.getrandbits(64))) % (
        1 << 64
    )


def argument() -> int:
    """A struct of nearly the right kind, at a place that may be none."""
    length, flags = (
        rng.choice((4096, 8192, 65536, number())),
        rng.choice((0, 2, os.O_RDWR | os.O_CLOEXEC, number())),
    )
    struct = length.to_bytes(8, "little") + rng.choice((0, number() % (1 << 32))).to_bytes(4, "little")
    struct += (flags % (1 << 32)).to_bytes(4, "little") + rng.choice((0, 0, 1, number())).to_bytes(
        8, "little"
    )
    data = rng.choice((struct, rng.randbytes(24), b"\xff" * 40))
    memory[: 2 * mmap.PAGESIZE] = data.ljust(2 * mmap.PAGESIZE, rng.choice((b"\0", b"x")))
    return rng.choice((place, place, place, place + 2 * mmap.PAGESIZE - rng.randrange(30), number()))


while time.monotonic() < end:
    file = rng.choice((heap, *held, *held, number() % 300))
    if rng.randrange(5):
        name = rng.choice((*IOCTL, "ANY"))
        command = IOCTL.get(name, number() % (1 << 32))
        if rng.randrange(8) == 0:
            command ^= 1 << rng.randrange(32)
            name = "ANY"
        result = libc.ioctl(file, command, argument())
        if result == 0 and command == IOCTL["ALLOC"] and file == heap:
            held = [
                int(fd)
                for fd in os.listdir("/proc/self/fd")
                if "dmabuf" in os.path.realpath(f"/proc/self/fd/{fd}")
            ]
    else:
        name, length = "MMAP", rng.choice((4096, 8192, 65536, number() % (1 << 40)))
        result = libc.mmap(
            None, length, rng.randrange(4), rng.choice((1, 2)), file, number() % (1 << 50) & -4096
        )
        if result != ctypes.c_void_p(-1).value:
            libc.munmap(result, length)
            result = 0
        else:
            result = -1
    if result == -1:
        said.add((name, errno.errorcode[ctypes.get_errno()]))
    while len(held) > 20:
        os.close(held.pop(rng.randrange(len(held))))
print(*sorted(f"{name}:{code}" for name, code in said))
