"""Sixteen processes take and drop buffers of a heap and pass them on: heap_many.py HEAP BUFFERS.

Prints how many pages of the area are used: at the start, with all buffers held by this process, at the end.
"""

import array
import fcntl
import mmap
import os
import random
import socket
import struct
import sys

ALLOC = 0xC0184800
USED = f"/sys/kernel/debug/cma/{os.path.basename(sys.argv[1])}/used"
heap = os.open(sys.argv[1], os.O_RDWR)
count = int(sys.argv[2])


def allocate(pages):
    data = bytearray(struct.pack("=QIIQ", pages * 4096, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    fcntl.ioctl(heap, ALLOC, data)
    return struct.unpack("=QIIQ", data)[1]


def used():
    with open(USED) as file:
        return int(file.read())


def worker(number, channel):
    random.seed(number)
    for i in range(count // 16):
        kept = allocate(1)
        other = allocate(random.randrange(1, 9))
        with mmap.mmap(kept, 4096) as memory:
            memory[:8] = b"%02d-%05d" % (number, i)
        channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [kept]))])
        os.close(kept)
        if i % 2:
            os.close(other)  # others are closed by exit


print(used(), flush=True)
channels, children = [], []
for number in range(16):
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        mine.close()
        worker(number, theirs)
        os._exit(0)
    theirs.close()
    channels.append(mine)
    children.append(pid)
held = []
for number, channel in enumerate(channels):
    for i in range(count // 16):
        _, [(_, _, data)], _, _ = channel.recvmsg(1, socket.CMSG_LEN(4))
        held.append(struct.unpack("=i", data)[0])
        assert os.pread(held[-1], 8, 0) == b"%02d-%05d" % (number, i)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
print(used(), flush=True)
for fd in held:
    os.close(fd)
print(used())
