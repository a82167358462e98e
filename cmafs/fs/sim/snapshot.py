"""sim/snapshot: a machine as one file: its options, its tree, its journal, and a checksum over its state.

The file is a line that names the format, a line with the SHA-256 of the rest, and the rest: JSON, compressed.
Loading boots the same machine and does the same to it again; nothing in the file is ever executed. What then
differs in the state refuses the file, so a loaded machine is the saved one.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from cmafs.fs.dentry import Directory, File, RegularFile, fail, walk
from cmafs.fs.dma_buf import Buffers
from cmafs.fs.namei import O_RDONLY, Syscalls
from cmafs.fs.open import OpenFiles
from cmafs.init.journal import BadSnapshot, Diverged
from cmafs.init.options import MachineOptions
from cmafs.lib.kconfig import FileLine

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine

MAGIC = b"cmafs snapshot "
VERSION = 1
#: The largest file and the largest text in one, in bytes: several times what a whole journal comes to.
MAX_FILE, MAX_TEXT = 64 << 20, 256 << 20
#: Bytes read at a time, as FUSE does.
_CHUNK = 128 << 10
#: No part of the state: this file itself; one that remembers its last reader; the devices, whose open files
#: remember where they are.
_NOT_STATE = ("/sim/snapshot", "/sim/verify", "/dev/")

#: What a file can make go wrong that has the right checksum and still was not written by cmafs.
_MALFORMED = (
    *(TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, RecursionError),
    *(OverflowError, StopIteration, struct.error),
)


DIFFERS = (
    "what was done to the machine does not lead to the state that it was saved in: another version of cmafs "
    "saved it, or something changed it behind its files"
)


@dataclass(frozen=True)
class Snapshot:
    """What is in such a file; ``start`` and ``now`` in nanoseconds of the machine's clock."""

    options: MachineOptions
    tree: bytes
    source: str
    start: int
    now: int
    journal: list[list[Any]]
    state: str


def digest(machine: BootedMachine, root: Directory, now: int) -> str:
    """SHA-256 over every file that shows the machine's state, as it reads at one moment."""
    return machine.clock.at(now, lambda: _digest(root))


def _digest(root: Directory) -> str:
    summed, seen = hashlib.sha256(), set()
    for path, inode in walk(root):
        if path.startswith(_NOT_STATE) or inode in seen:  # the tracer's files are at two places
            continue
        seen.add(inode)
        summed.update(f"{path}\0{inode.mode} {inode.uid} {inode.gid} {inode.size}\0".encode())
        if isinstance(inode, RegularFile) and not (inode.stateful or stat.S_ISFIFO(inode.mode)):
            summed.update(b"".join(_text(inode)) + b"\0")
    return summed.hexdigest()


def _text(inode: RegularFile) -> Iterator[bytes]:
    """What root reads there, or the errno."""
    try:
        file, offset = inode.fops.open(inode, O_RDONLY), 0
        try:
            while piece := file.read(_CHUNK, offset):
                yield piece
                offset += len(piece)
        finally:
            file.release()
    except OSError as error:
        yield b"%d" % (error.errno or 0)


def save(machine: BootedMachine, root: Directory) -> bytes:
    """The file of a machine. Raises EFBIG if not all that was done to it since its boot is kept."""
    journal = machine.clock
    now = journal.clock.now()
    state = digest(machine, root, now)
    if journal.entries is None:
        machine.simlog.append(f"snapshot: {journal.why}")
        fail(errno.EFBIG)
    options = asdict(machine.options)
    options["config"] = [[line, isinstance(line, FileLine)] for line in machine.options.config]
    content = {
        "options": options,
        "tree": base64.b64encode(machine.tree.blob).decode(),
        "source": machine.tree.source,
        "start": journal.start,
        "now": now,
        "journal": journal.entries,
        "state": state,
    }
    body = zlib.compress(json.dumps(content, default=lambda data: data.decode("latin-1")).encode(), 1)
    return b"%s%d\n%s\n" % (MAGIC, VERSION, hashlib.sha256(body).hexdigest().encode()) + body


def parse(data: bytes) -> Snapshot:
    """What a file says. Raises BadSnapshot."""
    head, _, rest = data.partition(b"\n")
    if not head.startswith(MAGIC):
        raise BadSnapshot("not a snapshot of cmafs")
    if head != MAGIC + b"%d" % VERSION:
        raise BadSnapshot(f"a snapshot of another version of the format; this cmafs reads version {VERSION}")
    summed, _, body = rest.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != summed:
        raise BadSnapshot("damaged: its checksum is not that of its content")
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(body, MAX_TEXT)
        if not inflate.eof:
            raise ValueError
        return _snapshot(json.loads(text))
    except (*_MALFORMED, zlib.error):
        raise BadSnapshot("damaged: its content is not what cmafs writes") from None


def _snapshot(content: dict[str, Any]) -> Snapshot:
    options = {**content["options"]}
    lines = [(str(line), from_file) for line, from_file in options.pop("config")]
    options["config"] = [FileLine(line) if from_file else line for line, from_file in lines]
    if options.keys() != {one.name for one in fields(MachineOptions)}:
        raise KeyError
    made = {**content, "options": MachineOptions.named(**options), "tree": base64.b64decode(content["tree"])}
    if not 0 <= content["start"] <= content["now"]:
        raise ValueError
    return Snapshot(**made)


class _Replay:
    """The operations of a journal, done again; open files by their numbers."""

    def __init__(self, calls: Syscalls, vfs: OpenFiles, machine: BootedMachine) -> None:
        self._vfs = vfs
        self._calls = calls
        self.files: dict[int, tuple[File, RegularFile]] = {}
        self.buffers = Buffers(machine)
        self.operations: dict[str, Callable[..., object]] = {
            "open": self._open,
            "read": lambda number, size, offset: self.files[number][0].read(size, offset),
            "write": lambda number, data, offset: self.files[number][0].write(data.encode("latin-1"), offset),
            "ioctl": lambda number, cmd, data: self.files[number][0].ioctl(
                cmd, bytearray(data.encode("latin-1"))
            ),
            "release": lambda number: self.files.pop(number)[0].release(),
            "ftruncate": lambda number, length: vfs.ftruncate(*self.files[number], length),
            "chmod": lambda path, mode: calls.chmod(path, mode),
            "chown": lambda path, uid, gid: vfs.chown(path, calls.inode(path), uid, gid),
            "truncate": lambda path, length: calls.truncate(path, length),
            "mkdir": lambda path: calls.mkdir(path),
            "rmdir": lambda path: calls.rmdir(path),
            "dma_heap_alloc": self.buffers.allocate,
            "dma_buf_set_name": lambda ino, text: self.buffers.set_name(ino, text.encode("latin-1")),
            "dma_buf_release": self.buffers.release,
            "expire": lambda: machine.clock.do(machine.faults.expire, "expire"),
        }

    def _open(self, path: str, flags: int) -> None:
        inode = self._calls.inode(path)
        if not isinstance(inode, RegularFile):
            raise Diverged
        file = self._vfs.open(path, inode, flags)
        self.files[self._vfs.last] = file, inode


def replay(
    snapshot: Snapshot, machine: BootedMachine, root: Directory, calls: Syscalls, vfs: OpenFiles
) -> None:
    """Bring a machine that was just booted to where the saved one was; then close what nobody holds here
    (open files, buffers of heaps).

    Raises BadSnapshot where it does not come to the same state.
    """
    done = _Replay(calls, vfs, machine)
    try:
        for name, *arguments, answers in snapshot.journal:
            operation = done.operations[name]
            machine.clock.redo(lambda: operation(*arguments), answers)  # noqa: B023  # called at once
        if digest(machine, root, snapshot.now) != snapshot.state:
            raise Diverged
    except (*_MALFORMED, Diverged):
        raise BadSnapshot(DIFFERS) from None
    for file, _ in done.files.values():
        file.release()
    for buffer in [*machine.dma_bufs]:
        done.buffers.release(buffer.ino)
