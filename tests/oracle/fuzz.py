"""`make oracle-fuzz`: random machines and operations, the real kernel against cmafs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oracle import record, tracing
from oracle.build import Kernel
from oracle.compare import compare, signature
from oracle.generate import Machine, machine
from oracle.shrink import shrink

from cmafs.replay.transcript import Transcript


@dataclass
class Campaign:
    """Figures of a run, and what it found: signature -> the files and numbers of cases."""

    boots: int = 0
    operations: int = 0
    differing: int = 0
    died: int = 0
    shrinking: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """One line."""
        return (
            f"{self.boots} boots ({self.died} died), {self.operations} operations, {self.differing} boots"
            f" differ in {len(self.found)} ways; {self.shrinking} boots to shrink them"
        )


def answers(kernel: Kernel, machine: Machine, path: Path) -> Transcript:
    """What the kernel says of a machine."""
    return record.record(kernel, machine.case(path.stem), path.stem)


def keep(kernel: Kernel, one: Machine, path: Path, wanted: str) -> tuple[Transcript, int]:
    """Shrink a case that differs in this way and write it as a transcript; the boots it took."""

    def differs(candidate: Machine) -> bool:
        return wanted in map(signature, compare(answers(kernel, candidate, path)))

    smallest, boots = shrink(one, differs)
    final = answers(kernel, smallest, path)
    record.write(final, path)
    return final, boots


def run(kernels: Sequence[Kernel], seeds: Sequence[int], place: Path, operations: int) -> Campaign:
    """One boot for each seed; every new way to differ is shrunk and kept below ``place``."""
    campaign, start = Campaign(), time.monotonic()
    for seed in seeds:
        kernel = kernels[seed % len(kernels)]
        one = machine(
            seed, kernel.arch, kernel.config, operations, tracing.FRAGMENT in kernel.name.split("-")
        )
        path = place / f"{kernel.name}-{seed}.jsonl"
        recorded = answers(kernel, one, path)
        problems = compare(recorded)
        campaign.boots += 1
        campaign.operations += len(recorded.operations)
        campaign.died += not recorded.script_output
        if problems:
            _differs(campaign, kernel, one, path, problems)
        if campaign.boots % 20 == 0:
            print(f"{time.monotonic() - start:.0f} s: {campaign.line()}", flush=True)
    return campaign


def _differs(campaign: Campaign, kernel: Kernel, one: Machine, path: Path, problems: list[str]) -> None:
    campaign.differing += 1
    first = signature(problems[0])
    new = first not in campaign.found
    campaign.found.update({signature(problem) for problem in problems})
    print(
        f"{path.stem}: {len(problems)} differences{'' if new else ' (seen)'}: {problems[0][:300]}", flush=True
    )
    if new:
        kept, boots = keep(kernel, one, path, first)
        campaign.shrinking += boots
        print(f"  kept {path} after {boots} boots:", flush=True)
        for problem in compare(kept)[:6]:
            print(f"    {problem[:400]}", flush=True)
