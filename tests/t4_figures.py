"""The files of /proc through a mount: after every step of a random life they agree with each other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import Mount
from figures_support import Figures, check, check_since

MACHINES = {
    "4.4": ("--dts", "virt", "--cmdline", "cma=64M"),
    "5.10": ("--dts", "x86-4g", "--cmdline", "cma=600M"),
    "6.12": ("--dts", "virt", "--cmdline", "cma=700M"),
    "7.2": ("--dts", "x86-4g", "--cmdline", "cma=64M"),
}
VERBS = (
    *["spawn {name} {kind} {size}K"] * 5,
    *["grow {name} {size}K", "shrink {name} {size}K", "kill {name}", "kill {name}", "pin {name} 3"],
    *["unpin {name}", "pin pfn {pfn}", "unpin pfn {pfn}", "mlock {name}", "munlock {name}"],
)
STEPS = 60


class Life:
    """What somebody does to a machine, at random; refusals are part of it."""

    def __init__(self, place: Path, seed: str) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.area = sorted((place / "sys/kernel/debug/cma").iterdir())[0]
        self.base, self.count = (int(self.read_area(name)) for name in ("base_pfn", "count"))

    def read_area(self, name: str) -> str:
        return (self.area / name).read_text()

    def write(self, path: Path, text: str) -> bool:
        try:
            with path.open("w") as file:
                file.write(text)
        except OSError:
            return False
        return True

    def step(self) -> bool:
        """One operation; whether it was done."""
        choice = self.random.choice([*VERBS, "alloc", "alloc", "free", "compact", "drop"])
        pages = self.random.choice([1, 5, 64, 700, 4000])
        files = {
            "alloc": (self.area / "alloc", f"{pages}\n"),
            "free": (self.area / "free", f"{pages}\n"),
            "compact": (self.place / "proc/sys/vm/compact_memory", "1\n"),
            "drop": (self.place / "proc/sys/vm/drop_caches", "3\n"),
        }
        line = choice.format(
            name=self.random.choice("abcd"),
            kind=self.random.choice(["anon", "file", "tmpfs", "kernel", "slab"]),
            size=self.random.choice([4, 64, 1000, 30000, 250000]),
            pfn=self.base + self.random.randrange(self.count),
        )
        return self.write(*files.get(choice, (self.place / "sim/control", f"{line}\n")))

    def elsewhere(self, now: Figures) -> int:
        """KiB in use by what has no line of its own: the kernel's own, of boot, which stays."""
        info = now.meminfo
        named = sum(info[name] for name in ("MemFree", "AnonPages", "Cached", "Buffers", "Slab"))
        areas = (self.place / "sys/kernel/debug/cma").iterdir()
        allocated = sum(int((area / "used").read_text()) for area in areas)
        return info["MemTotal"] - named - 4 * (now.by_kind("kernel") + allocated)


@pytest.mark.parametrize("kernel", list(MACHINES))
def test_figures_add_up_after_every_step(kernel: str, mount: Mount) -> None:
    place = mount("--kernel", kernel, *MACHINES[kernel])
    life = Life(place, kernel)
    before = Figures(lambda path: (place / path).read_text())
    elsewhere, done = life.elsewhere(before), 0
    for _ in range(STEPS):
        done += life.step()
        now = Figures(lambda path: (place / path).read_text())
        check(now)
        check_since(before, now)
        assert life.elsewhere(now) == elsewhere
        before = now
    assert (place / "sim/verify").read_text() == "ok\n"
    assert done > STEPS // 3
