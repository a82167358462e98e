"""Snapshots: a machine, what was done to it, and the same machine again, to the byte.

Modules: cmafs.fs.sim.snapshot, cmafs.fs.open, cmafs.fs.dev_cma_test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cma2010_support import cma_request

from cmafs import api
from cmafs.drivers.cma2010.chardev import IOCTL_CMA_ALLOC
from cmafs.fs.dentry import RegularFile, walk
from cmafs.fs.sim.snapshot import digest
from cmafs.init import journal
from cmafs.lib.clock import ManualClock

CMA = "/sys/kernel/debug/cma/reserved"
TRACING = "/sys/kernel/debug/tracing"
OPTIONS = {"dts": "virt", "cmdline": "cma=32M", "seed": 7}


def shown(machine: api.Machine) -> dict[str, Any]:
    """Every file of the tree at one moment: what stat shows, and its bytes or errno."""
    found: dict[str, Any] = {}
    for path, inode in walk(machine.root):
        attributes = (inode.mode, inode.size, inode.nlink, inode.uid, inode.gid)
        text: object = None
        if isinstance(inode, RegularFile) and not inode.stateful and path != api.SNAPSHOT:
            try:
                text = machine.read(path)
            except OSError as error:
                text = error.errno
        found[path] = attributes, text
    return found


def operation(chance: random.Random) -> tuple[str, ...]:
    """Something that a user does."""
    name, pages = f"t{chance.randrange(4)}", chance.choice((1, 3, 64, 500, 3000, 9000))
    return chance.choice(
        [
            ("write", f"{CMA}/alloc", f"{pages}\n"),
            ("write", f"{CMA}/alloc", f"{pages}\n"),
            ("write", f"{CMA}/free", f"{pages}\n"),
            (
                "write",
                "/sim/control",
                f"spawn {name} {chance.choice(('anon', 'file', 'tmpfs', 'slab'))} {pages}K",
            ),
            ("write", "/sim/control", f"grow {name} {pages}K"),
            ("write", "/sim/control", f"kill {name}"),
            ("write", "/sim/control", f"pin {name} 1"),
            ("write", "/sim/control", f"pin_for {name} 2 {chance.randrange(1, 4)}"),
            ("write", "/sim/control", f"fail reserved {chance.randrange(1, 3)} EINTR"),
            ("write", "/sim/control", f"slow {chance.randrange(3)}"),
            ("write", "/sim/control", "nonsense"),
            ("write", "/proc/sys/vm/compact_memory", "1"),
            ("write", "/proc/sys/vm/drop_caches", "3"),
            ("write", "/sys/kernel/debug/dynamic_debug/control", "file mm/cma.c +p"),
            ("write", f"{TRACING}/events/cma/enable", chance.choice("01")),
            ("write", f"{TRACING}/events/migrate/enable", chance.choice("01")),
            ("write", f"{TRACING}/trace", ""),
            ("write", f"{TRACING}/trace_marker", "here"),
            ("write", "/dev/kmsg", "<3>hello \xff"),
            ("write", "/dev/cma_test", "x"),
            ("write", "/sim/dmesg", "clear"),
            ("mkdir", f"{TRACING}/instances/{name}"),
            ("rmdir", f"{TRACING}/instances/{name}"),
            ("chmod", f"{CMA}/used", chance.choice(("292", "256"))),
            ("truncate", f"{CMA}/used", "100"),
            ("read", "/dev/cma_test"),
            ("read", f"{TRACING}/trace_pipe"),
            ("read", "/sim/tasks"),
            ("read", "/sim/verify"),
            ("pass", f"{chance.randrange(3_000_000_000)}"),
        ]
    )


def do(machine: api.Machine, words: tuple[str, ...]) -> object:
    """What it answers."""
    name, path, *rest = words
    try:
        if name == "pass":
            machine.clock.advance(int(path))
            return None
        if name in ("chmod", "truncate"):
            return getattr(machine, name)(path, int(rest[0]))
        return getattr(machine, name)(path, *rest)
    except OSError as error:
        return error.errno


@pytest.mark.parametrize("start", range(6))
def test_a_loaded_machine_is_the_saved_one_and_goes_on_alike(start: int, tmp_path: Path) -> None:
    chance = random.Random(start)
    kernel = ("6.12", "4.4", "5.10", "7.2", "6.1", "article")[start]
    machine = api.boot(**OPTIONS, kernel=kernel)
    for _ in range(3):
        for _ in range(60):
            do(machine, operation(chance))
        machine.save(tmp_path / "snap")
        loaded = api.Machine.load(tmp_path / "snap")
        assert loaded.clock.now() == machine.clock.now()
        assert shown(loaded) == shown(machine)
        assert loaded.verify() == machine.verify() == []
        for words in [operation(chance) for _ in range(40)]:
            assert do(loaded, words) == do(machine, words), words
        assert shown(loaded) == shown(machine)
        machine = loaded  # which is saved in its turn


def test_a_machine_of_2010_gives_up_what_its_descriptors_held(tmp_path: Path) -> None:
    machine = api.boot(dts="virt", kernel="2010", cmdline="cma=r=16M cma.map=*=r")
    free = "/sys/kernel/mm/contiguous/regions/r/free"
    fds = [machine.syscalls.open("/dev/cma", os.O_RDWR) for _ in range(3)]
    for fd, size in zip(fds[:2], (4096, 1 << 20), strict=True):
        assert machine.syscalls.ioctl(fd, IOCTL_CMA_ALLOC, bytearray(cma_request(b"any", size))) == 0
    machine.syscalls.close(fds[0])
    assert machine.read(free) == b"%d\n" % (15 << 20)
    machine.save(tmp_path / "snap")
    loaded = api.Machine.load(tmp_path / "snap")
    assert loaded.read(free) == b"%d\n" % (16 << 20)
    for fd in fds[1:]:
        machine.syscalls.close(fd)
    assert shown(loaded) == shown(machine)


def test_what_is_done_to_files_is_done_again(tmp_path: Path) -> None:
    machine = api.boot(**OPTIONS)
    path = f"{CMA}/alloc"
    inode = machine.syscalls.inode(path)
    assert isinstance(inode, RegularFile)
    machine.vfs.chown(path, inode, 7, 0xFFFFFFFF)  # which leaves the group as it is
    machine.vfs.chown(f"{CMA}/free", machine.syscalls.inode(f"{CMA}/free"), 0xFFFFFFFF, 8)
    file = machine.vfs.open(path, inode, os.O_WRONLY)
    machine.vfs.ftruncate(file, inode, 55)
    assert file.write(b"3", 0) == 1
    file.release()
    machine.chmod(f"{CMA}/free", 0o600)
    machine.truncate(f"{CMA}/used", 66)
    for name in "ab":
        machine.mkdir(f"{TRACING}/instances/{name}")
    machine.rmdir(f"{TRACING}/instances/a")
    with suppress(OSError):
        machine.rmdir(f"{TRACING}/instances/a")  # which is refused, and no part of the machine's life
    machine.save(tmp_path / "snap")
    names = [entry[0] for entry in unpacked((tmp_path / "snap").read_bytes())["journal"]]
    files = ["chown", "chown", "open", "ftruncate", "write", "release", "chmod", "truncate"]
    assert names == [*files, "mkdir", "mkdir", "rmdir"]
    loaded = api.Machine.load(tmp_path / "snap")
    assert shown(loaded) == shown(machine)
    found = loaded.stat(path)
    assert (found.st_uid, found.st_gid, found.st_size) == (7, 0, 55)
    assert (loaded.stat(f"{CMA}/free").st_gid, loaded.stat(f"{CMA}/used").st_size) == (8, 66)
    assert loaded.listdir(f"{TRACING}/instances") == ["b"]


def test_time_goes_on_where_it_was(tmp_path: Path) -> None:
    machine = api.boot(**OPTIONS, clock=ManualClock(5_000_000_000))
    machine.clock.advance(1_500_000_000)
    machine.save(tmp_path / "snap")
    assert api.Machine.load(tmp_path / "snap").clock.now() == 6_500_000_000
    running = api.Machine.load(tmp_path / "snap", clock=api.RealClock()).clock
    assert 6_500_000_000 <= running.now() < running.now() + 1 < 60_000_000_000


def test_it_needs_no_file_that_the_machine_was_made_of(tmp_path: Path) -> None:
    board, config = tmp_path / "board.dts", tmp_path / "config"
    board.write_bytes((Path(api.__file__).parent / "boards" / "virt.dts").resolve().read_bytes())
    config.write_text("CONFIG_CMA_AREAS=5\nCONFIG_NOBODY_KNOWS=y\n")
    machine = api.boot(dts=str(board), config=(str(config), "CMA_SYSFS=y"))
    machine.save(tmp_path / "snap")
    board.unlink()
    config.unlink()
    assert shown(api.Machine.load(tmp_path / "snap")) == shown(machine)


def test_what_only_reads_is_not_kept() -> None:
    machine = api.boot(**OPTIONS)
    shown(machine)
    machine.control("spawn a anon 1M", "pin_for a 1 1")
    before = len(machine.booted.clock.entries or [])
    shown(machine)
    assert machine.read(f"{TRACING}/trace_pipe") == b""
    assert len(machine.booted.clock.entries or []) == before + 2  # trace_pipe was opened, and closed
    machine.clock.advance(2_000_000_000)
    shown(machine)
    assert len(machine.booted.clock.entries or []) == before + 3  # the pin's end


def test_a_read_that_gives_a_buffer_back_is_kept(tmp_path: Path) -> None:
    """/dev/cma_test; to look at the machine's state gives nothing back."""
    machine = api.boot(**OPTIONS)
    machine.write("/dev/cma_test", "1\n")
    taken = shown(machine)
    machine.save(tmp_path / "before")
    assert shown(machine) == taken == shown(api.Machine.load(tmp_path / "before"))
    assert machine.read("/dev/cma_test") == b""
    machine.save(tmp_path / "after")
    assert shown(machine) == shown(api.Machine.load(tmp_path / "after")) != taken


def test_a_machine_that_keeps_nothing_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 0)
    machine = api.boot(**OPTIONS)
    machine.write(f"{CMA}/alloc", "1")
    inode = machine.syscalls.inode(f"{CMA}/alloc")
    assert isinstance(inode, RegularFile) and machine.booted.clock.entries is None
    file = machine.vfs.open(f"{CMA}/alloc", inode, os.O_WRONLY)
    machine.vfs.ftruncate(file, inode, 55)
    machine.vfs.chown(f"{CMA}/alloc", inode, 7, 8)
    machine.chmod(f"{CMA}/alloc", 0o640)
    machine.truncate(f"{CMA}/used", 66)
    found = machine.stat(f"{CMA}/alloc")
    assert (found.st_size, found.st_uid, found.st_gid, found.st_mode & 0o777) == (55, 7, 8, 0o640)
    assert machine.stat(f"{CMA}/used").st_size == 66


@pytest.mark.parametrize("data", [b"", b"x" * 20_000])
def test_a_long_life_is_forgotten_and_not_saved(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 20_000)
    machine = api.boot(**OPTIONS)
    with suppress(OSError):
        machine.write("/sim/control", data)
    assert (machine.booted.clock.entries is None) == bool(data)
    for _ in range(60):
        machine.write(f"{CMA}/alloc", "1")
    assert machine.booted.clock.entries is None
    assert stat.S_IMODE(machine.stat(api.SNAPSHOT).st_mode) == 0o400
    with pytest.raises(OSError, match="EFBIG"):
        machine.save(tmp_path / "snap")
    assert not (tmp_path / "snap").exists()
    line = "snapshot: more was done to this machine since its boot than is kept"
    assert line in machine.read_text("/sim/log").splitlines()
    assert machine.read(f"{CMA}/used") == b"156\n"  # and it serves on


def packed(content: bytes) -> bytes:
    body = zlib.compress(content)
    return b"cmafs snapshot 1\n%s\n" % hashlib.sha256(body).hexdigest().encode() + body


def unpacked(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(data.split(b"\n", 2)[2]))
    return found


@pytest.fixture(scope="module")
def saved() -> bytes:
    machine = api.boot(**OPTIONS)
    machine.write(f"{CMA}/alloc", "16")
    return machine.read(api.SNAPSHOT)


def refused(data: bytes, tmp_path: Path) -> str:
    file = tmp_path / "bad"
    file.write_bytes(data)
    with pytest.raises(api.BadSnapshot) as caught:
        api.Machine.load(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and "\n" not in text
    return text.removeprefix(f"{file}: ")


def test_foreign_files_are_refused(saved: bytes, tmp_path: Path) -> None:
    for data in (b"", b"\0" * 100, b"PK\x03\x04", b"cmafs snapshot", b"#!/bin/sh\n"):
        assert refused(data, tmp_path) == "not a snapshot of cmafs"
    for version in (b" 2\n", b" 11\n", b" \n"):
        assert refused(saved.replace(b" 1\n", version, 1), tmp_path) == (
            "a snapshot of another version of the format; this cmafs reads version 1"
        )
    with pytest.raises(api.BadSnapshot, match=r"none: No such file or directory$"):
        api.Machine.load(tmp_path / "none")
    with pytest.raises(api.BadSnapshot, match=r"Is a directory$"):
        api.Machine.load(tmp_path)


def test_any_damage_is_seen(saved: bytes, tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(40):
        place = chance.randrange(len("cmafs snapshot 1\n"), len(saved))
        damaged = saved[:place] + bytes([saved[place] ^ 1 << chance.randrange(8)]) + saved[place + 1 :]
        for data in (saved[:place], damaged):
            assert refused(data, tmp_path) == "damaged: its checksum is not that of its content"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b"0" * (300 << 20)])
def test_content_that_cmafs_does_not_write_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refused(packed(content), tmp_path) == DAMAGED


DAMAGED = "damaged: its content is not what cmafs writes"
DIFFERS = (
    "what was done to the machine does not lead to the state that it was saved in: another version of cmafs "
    "saved it, or something changed it behind its files"
)
TRUNCATED = "virt: truncated device tree blob: 3 bytes are less than its header"
CLOSED = [["open", f"{CMA}/alloc", 1, []], ["release", 1, []], ["release", 1, []]]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("state", "0", DIFFERS), ("journal", [["exec", []]], DIFFERS), ("journal", [[]], DIFFERS),
     ("journal", [["write", 9, "1", 0, []]], DIFFERS), ("journal", [["open", 5, {}, []]], DIFFERS),
     ("journal", [["open", "/dev", 0, []]], DIFFERS), ("journal", 3, DIFFERS), ("journal", CLOSED, DIFFERS),
     ("journal", [], DIFFERS), ("now", -1, DAMAGED), ("now", None, DAMAGED), ("start", "x", DAMAGED),
     ("start", 1 << 62, DAMAGED), ("tree", "AAAA", TRUNCATED), ("tree", 3, DAMAGED), ("options", {}, DAMAGED),
     ("source", 5, None), ("more", 1, DAMAGED)],
)  # fmt: skip
def test_a_forged_file_is_refused_or_changes_nothing(
    key: str, value: Any, said: str | None, saved: bytes, tmp_path: Path
) -> None:
    content = unpacked(saved)
    content[key] = value
    if said is not None:
        assert refused(packed(json.dumps(content).encode()), tmp_path) == said


@pytest.mark.parametrize("options", [{"memory": {"a": 1}}, {"unheard_of": 1}, {"config": 5}])
def test_forged_options_are_refused(options: dict[str, Any], saved: bytes, tmp_path: Path) -> None:
    content = unpacked(saved)
    content["options"].update(options)
    assert refused(packed(json.dumps(content).encode()), tmp_path) == DAMAGED


def test_what_such_a_file_consists_of(saved: bytes, tmp_path: Path) -> None:
    """The format that --load reads, so that older files stay readable."""
    magic, summed, body = saved.split(b"\n", 2)
    assert (magic, summed.decode()) == (b"cmafs snapshot 1", hashlib.sha256(body).hexdigest())
    content = unpacked(saved)
    assert list(content) == ["options", "tree", "source", "start", "now", "journal", "state"]
    assert (content["source"], content["start"], content["now"]) == ("virt", 0, 0)
    assert content["journal"] == [
        ["open", f"{CMA}/alloc", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, []],
        ["write", 1, "16", 0, []],
        ["release", 1, []],
    ]
    assert base64.b64decode(content["tree"])[:4] == b"\xd0\x0d\xfe\xed"
    assert re.fullmatch("[0-9a-f]{64}", content["state"])
    assert refused(saved + b"\n", tmp_path) == "damaged: its checksum is not that of its content"


def test_what_was_changed_behind_the_files_is_noticed(tmp_path: Path) -> None:
    machine = api.boot(**OPTIONS)
    machine.booted.log.printk("nobody wrote this")
    machine.save(tmp_path / "snap")
    assert refused((tmp_path / "snap").read_bytes(), tmp_path) == DIFFERS


def test_what_the_state_consists_of() -> None:
    machine = api.boot(**OPTIONS)

    def state(now: int = 0) -> str:
        return digest(machine.booted, machine.root, now)

    before = state()
    inode = machine.syscalls.inode(f"{CMA}/used")
    for attribute in ("mode", "uid", "gid", "size"):
        was = getattr(inode, attribute)
        setattr(inode, attribute, was ^ 1)
        assert state() != before, attribute
        setattr(inode, attribute, was)
    assert state() == before
    machine.read("/sim/verify")  # remembers its reader, which is no state
    assert state() == before
    machine.control("spawn a anon 4K", "pin_for a 1 5")
    assert len({before, state(), state(6_000_000_000)}) == 3


def test_buffers_of_heaps_are_there_until_nobody_has_them(tmp_path: Path) -> None:
    machine = api.boot(**OPTIONS)
    machine.write(f"{TRACING}/events/cma/enable", "1\n")
    for name in machine.booted.dma_heaps:
        with machine.dma_heap(name).alloc(64 << 10) as first, machine.dma_heap(name).alloc(3 << 20):
            first.set_name("camera")
            with pytest.raises(OSError, match="no "):
                machine.dma_heap(name).alloc(1 << 50)
            first.close()
            machine.save(tmp_path / "snap")
        loaded = api.Machine.load(tmp_path / "snap")  # where no process has the second: it is given back
        assert shown(loaded) == shown(machine)
        assert loaded.booted.dma_bufs == [] and loaded.verify() == []
