"""What a run lets through of the host: lists of what is allowed, which docs/run.md has as a table.

Whatever is on none of them can be seen at most: a device not opened, a file of /proc or /sys not written.
"""

from __future__ import annotations

_DESCRIPTORS = "CMD's own descriptors"
_OWN_FILE = "a file of the run's own"
_STATELESS = "nothing of it is kept"
_TERMINALS = "pseudoterminals, the caller's among them"

#: Names of /dev, besides the machine's, that CMD may open, and why.
DEVICES = {
    "full": _STATELESS,
    "null": _STATELESS,
    "random": _STATELESS,
    "urandom": _STATELESS,
    "zero": _STATELESS,
    "fd": _DESCRIPTORS,
    "stderr": _DESCRIPTORS,
    "stdin": _DESCRIPTORS,
    "stdout": _DESCRIPTORS,
    "ptmx": _TERMINALS,
    "pts": _TERMINALS,
    "tty": _TERMINALS,
    "fuse": "file systems that CMD serves, in namespaces of its own",
    "mqueue": "the run's own POSIX queues",
    "shm": "files of the host, as in `/tmp`",
}

#: Files and a directory of /proc that a run has of its own.
OSRELEASE, PRINTK, VERSION = "sys/kernel/osrelease", "sys/kernel/printk", "sys/kernel/version"
SYSRQ, VM = "sysrq-trigger", "sys/vm"

#: Names below /proc, besides the machine's, that CMD may write, and why; PID is a process of the run.
PROC = {
    "PID": "the run's own processes",
    OSRELEASE: _OWN_FILE,
    PRINTK: _OWN_FILE,
    VERSION: _OWN_FILE,
    VM: "files of the run's own",
    SYSRQ: _OWN_FILE,
}


def table() -> str:
    """Both lists in Markdown, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for place, names in (("/dev", DEVICES), ("/proc", PROC)):
        for name, why in names.items():
            reasons.setdefault(why, []).append(f"`{place}/{name}`")
    rows = [f"| {', '.join(places)} | {why} |" for why, places in reasons.items()]
    return "\n".join(["| open to CMD | since it is |", "|---|---|", *rows, ""])
