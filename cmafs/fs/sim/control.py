"""sim/control: the verbs that make occupants of memory and buffers of devices, one a line.

Each happens whole or not at all; a refusal is an errno to the writer and ``VERB: reason`` in sim/log.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from cmafs.drivers.dma.mapping import dma_alloc, dma_free
from cmafs.fs.cma_debug import directory_name
from cmafs.lib.cmdline import SIZE_SHIFTS
from cmafs.lib.kstrtox import U64_MAX, parse_integer
from cmafs.mm.page_owner import MOVABLE_KINDS
from cmafs.sim import workload
from cmafs.sim.verbs import UNPIN_PFN, VERBS

if TYPE_CHECKING:
    from cmafs.init.machine import BootedMachine
    from cmafs.mm.cma import Cma

#: What FUSE passes on at a time; a line that is cut there comes whole with the next write.
MAX_WRITE = 128 << 10
#: The word between ``pin`` and a frame; no task can have it as its name.
PFN = "pfn"
#: Characters of a word of the user's that a reason repeats.
QUOTE = 40
#: What a number becomes that 64 bits cannot hold: more than any memory has.
U64 = U64_MAX + 1

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Refused(OSError):
    """A control line that is not obeyed: errno, and the reason without the verb."""


def refuse(reason: str, code: int = errno.EINVAL) -> Refused:
    """The exception for a reason."""
    return Refused(code, reason)


def number(word: str) -> int:
    """N or PFN: decimal or 0x. Raises Refused."""
    parsed = parse_integer(word, 16 if word[:2].lower() == "0x" else 10)
    if parsed.rest or not parsed.digits:
        raise refuse(f"not a number: {quoted(word)}")
    return U64 if parsed.overflow else parsed.value


def size_in_bytes(word: str) -> int:
    """SIZE as memparse reads it: bytes, more than 0; what would wrap there is 2^64, more than any memory has.

    Raises Refused.
    """
    parsed = parse_integer(word)
    shift = {"": 0, **SIZE_SHIFTS}.get(parsed.rest.lower())
    if shift is None or not parsed.digits:
        raise refuse(f"not a size: {quoted(word)}")
    value = U64 if parsed.overflow else parsed.value
    if not value:
        raise refuse("the size is 0")
    return min(value << shift, U64)


def quoted(word: str) -> str:
    """A word of the user's, safe for a log line."""
    return repr(word[:QUOTE]) + ("…" if len(word) > QUOTE else "")


#: What runs a verb: it gets the words behind it.
Verb: TypeAlias = "Callable[[SimControl, list[str]], object]"


class SimControl:
    """The verbs over one machine."""

    def __init__(self, machine: BootedMachine) -> None:
        self.machine = machine
        self.memory = machine.memory
        self.faults = machine.faults
        self._verbs: Mapping[str, Verb] = {
            "spawn": SimControl.spawn,
            "grow": lambda c, w: workload.grow(c.memory, w[0], c.pages(w[1])),
            "shrink": lambda c, w: workload.shrink(c.memory, w[0], c.pages(w[1])),
            "kill": lambda c, w: workload.kill(c.memory, w[0]),
            "pin": SimControl.pin,
            "unpin": lambda c, w: workload.unpin(c.memory, w[0]),
            "mlock": lambda c, w: workload.mlock(c.memory, w[0]),
            "munlock": lambda c, w: workload.munlock(c.memory, w[0]),
            "dma_alloc": lambda c, w: dma_alloc(c.machine, w[0], c.bytes(w[1])),
            "dma_free": lambda c, w: dma_free(c.machine, w[0], c.bytes(w[1])),
            "dirty": lambda c, w: workload.dirty(c.memory, w[0], number(w[1])),
            "clean": lambda c, w: workload.clean(c.memory, w[0]),
            "fail": lambda c, w: c.faults.fail(c.area(w[0]), number(w[1]), w[2]),
            "unfail": lambda c, w: c.faults.unfail(c.area(w[0])),
            "pin_for": SimControl.pin_for,
            "slow": lambda c, w: c.faults.set_slow(number(w[0])),
            "deactivate": lambda c, w: c.faults.deactivate(c.area(w[0])),
            "activate": lambda c, w: c.faults.activate(c.area(w[0])),
            "lockdown": SimControl.lockdown,
        }

    def write(self, data: bytes) -> int:
        """One write(2): its lines in order, up to the first that is refused. Raises its OSError."""
        if len(data) >= MAX_WRITE and not data.endswith(b"\n") and b"\n" in data:
            data = data[: data.rindex(b"\n") + 1]
        for line in data.decode("utf-8", "replace").split("\n"):
            self.run(line)
        return len(data)

    def run(self, line: str) -> None:
        """One line; a blank one is nothing. Raises OSError, its reason logged."""
        words = line.split()
        if not words:
            return
        try:
            self._verb(words)(self, words[1:])
            self._announce(words)
        except OSError as error:
            verb = words[0] if _WORD.fullmatch(words[0]) else quoted(words[0])
            self.machine.simlog.append(f"{verb}: {error.strerror}")
            raise

    def _announce(self, words: list[str]) -> None:
        """Tell whoever shows simulated tasks as processes; the kernel's own users of memory are none."""
        process = words[0] == "kill" or (words[0] == "spawn" and words[2] in MOVABLE_KINDS)
        if process and self.machine.on_task is not None:
            self.machine.on_task(words[0], words[1])

    def _verb(self, words: list[str]) -> Verb:
        """What runs a line that has as many words as its verb needs. Raises Refused."""
        verb = self._verbs.get(words[0])
        if verb is None:
            raise refuse(f"unknown verb, known are {' '.join(self._verbs)}")
        usage = VERBS[words[0]].usage
        if words[0] == "unpin" and words[1:2] == [PFN]:
            verb, usage = SimControl.unpin_pfn, UNPIN_PFN.usage
        if len(words) - 1 != len(usage.split()):
            raise refuse(f"expected {usage}")
        return verb

    def pages(self, word: str) -> int:
        """SIZE in pages, rounded up. Raises Refused."""
        return -(-size_in_bytes(word) >> self.memory.layout.page_shift)

    def bytes(self, word: str) -> int:
        """SIZE in bytes, rounded up to pages. Raises Refused."""
        return self.pages(word) << self.memory.layout.page_shift

    def area(self, word: str) -> Cma:
        """AREA: its name, or that of its directory in debugfs. Raises Refused."""
        for cma in self.machine.cma:
            if word in (cma.label, directory_name(cma).rstrip()):
                return cma
        known = " ".join(cma.label for cma in self.machine.cma)
        raise refuse(f"no area {quoted(word)}, there are: {known or 'none'}", errno.ENOENT)

    def pin_for(self, words: list[str]) -> None:
        """``pin_for NAME N SECONDS``"""
        if not number(words[1]):
            raise refuse("the number of pages is 0")
        self.faults.pin_for(words[0], number(words[1]), number(words[2]))

    def lockdown(self, words: list[str]) -> None:
        """``lockdown on`` and ``lockdown off``"""
        if words[0] not in ("on", "off"):
            raise refuse("expected on|off")
        if not self.machine.abi.cma.lockdown:
            raise refuse("this kernel has no lockdown, which came with 5.4", errno.EOPNOTSUPP)
        self.machine.cma.locked_down = words[0] == "on"

    def spawn(self, words: list[str]) -> None:
        """``spawn NAME KIND SIZE``"""
        if words[0] == PFN:
            raise refuse(f"'{PFN}' is no name: it is a word of 'pin pfn'")
        workload.spawn(self.memory, words[0], words[1], self.pages(words[2]))

    def pin(self, words: list[str]) -> None:
        """``pin NAME N`` and ``pin pfn PFN``"""
        count = number(words[1])
        if words[0] == PFN:
            workload.pin_pfn(self.memory, count)
        elif not count:
            raise refuse("the number of pages is 0")
        else:
            workload.pin(self.memory, words[0], count)

    def unpin_pfn(self, words: list[str]) -> None:
        """``unpin pfn PFN``"""
        workload.unpin_pfn(self.memory, number(words[1]))
