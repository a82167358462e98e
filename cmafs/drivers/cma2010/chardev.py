"""``/dev/cma``, the test device of the 2010 framework: one chunk per open file.

Source: ``drivers/misc/cma-dev.c`` (2010).
"""

from __future__ import annotations

import errno
import struct

from cmafs.drivers.cma2010.framework import Cma2010
from cmafs.lib.printk import decode

CMA_MAGIC = 0x634D6142
IOCTL_CMA_ALLOC = 0xC0407000
REQUEST_BYTES = 64
BY_DEVICE, BY_REGIONS = 0, 1

#: ``struct cma_alloc_request``: magic, type, size, alignment, start, spec: ``device[/kind]`` by device, or a
#: region list; v1: magic, name, kind, padding, size, alignment, start. Bytes; ``start`` is what comes back.
_REQUEST = struct.Struct("<IIQQQ32s")
_REQUEST_V1 = struct.Struct("<I17s17sHQQQ")


class CmaFile:
    """One open file: ``start`` is that of its chunk, None without one; the last close gives it back."""

    def __init__(self, cma: Cma2010) -> None:
        self.cma = cma
        self.start: int | None = None

    def ioctl(self, cmd: int, arg: bytes) -> bytes:
        """Allocate as the request says; returns the request with ``start`` filled in.

        ``arg``: the caller's 64 bytes, fewer for memory that it cannot read. Raises OSError, in this order:
        ENOTTY (command), EBADFD (has a chunk), EFAULT, ENOTTY (magic), EINVAL (type; a size or alignment
        beyond the word; text not terminated), then what the allocation answers.
        """
        if cmd != IOCTL_CMA_ALLOC:
            raise OSError(errno.ENOTTY, "no such ioctl")
        if self.start is not None:
            raise OSError(errno.EBADFD, "the file holds a chunk already")
        if len(arg) < REQUEST_BYTES:
            raise OSError(errno.EFAULT, "the request cannot be read")
        return self._alloc_v1(arg) if self.cma.profile.table else self._alloc(arg)

    def _alloc(self, arg: bytes) -> bytes:
        magic, kind, size, alignment, _, spec = _REQUEST.unpack(arg[:REQUEST_BYTES])
        self._check_magic(magic)
        if kind not in (BY_DEVICE, BY_REGIONS):
            raise OSError(errno.EINVAL, "no such type")
        text, words = _c_string(spec), self._words(size, alignment)
        if kind == BY_REGIONS:
            self.start = self.cma.cma_alloc_from(text, *words)
        else:
            device, slash, type_ = text.rpartition("/")
            self.start = self.cma.cma_alloc(device if slash else text, type_ if slash else None, *words)
        return _REQUEST.pack(magic, kind, size, alignment, self.start, spec)

    def _alloc_v1(self, arg: bytes) -> bytes:
        magic, name, kind, pad, size, alignment, _ = _REQUEST_V1.unpack(arg[:REQUEST_BYTES])
        self._check_magic(magic)
        device, kind_text = _c_string(name), _c_string(kind)
        self.start = self.cma.cma_alloc(device, kind_text, *self._words(size, alignment))
        return _REQUEST_V1.pack(magic, name, kind, pad, size, alignment, self.start)

    def _words(self, *numbers: int) -> list[int]:
        """The request's numbers of 64 bits as size_t and dma_addr_t: with Q19 cut, else looked at later."""
        mask = self.cma.word.mask
        return [number & mask if self.cma.quirks.q19_request_cut_to_word else number for number in numbers]

    @staticmethod
    def _check_magic(magic: int) -> None:
        if magic != CMA_MAGIC:
            raise OSError(errno.ENOTTY, "wrong magic")

    def release(self) -> None:
        """``cma_file_release()``"""
        if self.start is not None:
            give_back = self.cma.cma_put if self.cma.profile.table else self.cma.cma_free
            give_back(self.start)
            self.start = None


def _c_string(field: bytes) -> str:
    """The text up to its NUL. Raises OSError EINVAL where there is none."""
    text, nul, _ = field.partition(b"\0")
    if not nul:
        raise OSError(errno.EINVAL, "text not terminated")
    return decode(text)
