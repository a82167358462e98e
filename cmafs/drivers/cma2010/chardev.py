"""``/dev/cma``, the test device of the 2010 framework: one chunk per open file.

Source: ``drivers/misc/cma-dev.c`` (2010).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from cmafs.drivers.cma2010.framework import Cma2010

CMA_MAGIC = 0x634D6142
IOCTL_CMA_ALLOC = 0xC0407000
REQUEST_BYTES = 64
BY_DEVICE, BY_REGIONS = 0, 1

_REQUEST = struct.Struct("<IIQQQ32s")  # magic, type, size, alignment, start, spec
_REQUEST_V1 = struct.Struct("<I17s17sHQQQ")  # magic, name, kind, pad, size, alignment, start


@dataclass(frozen=True)
class CmaRequest:
    """``struct cma_alloc_request``: ``size``, ``alignment`` in bytes, ``start`` the address that comes back.

    ``type`` BY_DEVICE: ``spec`` is ``device[/kind]``; BY_REGIONS: a region list. v1 knows only the former.
    """

    magic: int
    type: int
    size: int
    alignment: int
    spec: bytes
    start: int = 0

    def pack(self) -> bytes:
        """The 64 bytes of v2 to vendor."""
        return _REQUEST.pack(self.magic, self.type, self.size, self.alignment, self.start, self.spec)

    def pack_v1(self) -> bytes:
        """The 64 bytes of v1: device and kind have fields of their own."""
        name, _, kind = self.spec.partition(b"/")
        return _REQUEST_V1.pack(self.magic, name, kind, 0, self.size, self.alignment, self.start)


class CmaDevice:
    """The device; ``failslab`` makes its kernel allocations fail, as fault injection does."""

    def __init__(self, cma: Cma2010, failslab: bool = False) -> None:
        self.cma = cma
        self.failslab = failslab

    def open(self) -> CmaFile:
        """An open file without a chunk."""
        return CmaFile(self)


class CmaFile:
    """One open file: at most one chunk, given back at the last close."""

    def __init__(self, device: CmaDevice) -> None:
        self.device = device
        self.cma = device.cma
        self.start: int | None = None
        self.size = 0

    def ioctl(self, cmd: int, arg: bytes | None) -> bytes:
        """Allocate as the request says; returns the request with ``start`` filled in.

        ``arg``: the caller's 64 bytes, None for a null pointer, fewer for memory it cannot read. Raises
        OSError, in this order: ENOTTY (command), EINVAL (null), EBADFD (has a chunk), EFAULT, ENOTTY
        (magic), EINVAL (type; text not terminated), ENOSPC (no kernel memory; v1 ENOMEM), then what the
        allocation answers.
        """
        if cmd != IOCTL_CMA_ALLOC:
            raise OSError(errno.ENOTTY, "no such ioctl")
        if arg is None:
            raise OSError(errno.EINVAL, "null argument")
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
        text = _c_string(spec)
        if self.device.failslab:
            raise OSError(errno.ENOSPC, "no kernel memory")
        if kind == BY_REGIONS:
            start = self.cma.cma_alloc_from(text, size, alignment)
        else:
            device, slash, type_ = text.rpartition("/")
            start = self.cma.cma_alloc(device if slash else text, type_ if slash else None, size, alignment)
        self.start, self.size = start, size
        return _REQUEST.pack(magic, kind, size, alignment, start, spec)

    def _alloc_v1(self, arg: bytes) -> bytes:
        magic, name, kind, pad, size, alignment, _ = _REQUEST_V1.unpack(arg[:REQUEST_BYTES])
        self._check_magic(magic)
        device, kind_text = _c_string(name), _c_string(kind)
        if self.device.failslab:
            raise OSError(errno.ENOMEM, "no kernel memory")
        start = self.cma.cma_alloc(device, kind_text, size, alignment)
        self.start, self.size = start, size
        return _REQUEST_V1.pack(magic, name, kind, pad, size, alignment, start)

    @staticmethod
    def _check_magic(magic: int) -> None:
        if magic != CMA_MAGIC:
            raise OSError(errno.ENOTTY, "wrong magic")

    def mmap(self, offset: int, length: int) -> int:
        """The bus address that would be mapped; both in bytes.

        Raises OSError EBADFD (no chunk), ENOSPC (beyond the size that was asked for, before rounding).
        """
        if self.start is None:
            raise OSError(errno.EBADFD, "the file holds no chunk")
        if offset > self.size or offset + length > self.size:
            raise OSError(errno.ENOSPC, "beyond the chunk")
        return self.start + offset

    def release(self) -> None:
        """The last close gives the chunk back."""
        if self.start is None:
            return
        if self.cma.profile.get_put:
            self.cma.cma_put(self.start)
        else:
            self.cma.cma_free(self.start)
        self.start = None


def _c_string(field: bytes) -> str:
    """The text up to its NUL. Raises OSError EINVAL where there is none."""
    text, nul, _ = field.partition(b"\0")
    if not nul:
        raise OSError(errno.EINVAL, "text not terminated")
    return text.decode("latin-1")
