"""What a run lets through of the host: lists of what is allowed, which docs/run.md has as a table.

Whatever is on none of them can be seen at most: a device not opened, a file of /proc or /sys not written.
"""

from __future__ import annotations

#: Names of /dev, besides the machine's, that CMD may open, and why.
DEVICES = {
    "full": "no state",
    "null": "no state",
    "zero": "no state",
    "random": "what is written is mixed in, and counts for nothing",
    "urandom": "what is written is mixed in, and counts for nothing",
    "tty": "the caller's own terminal",
    "pts": "pseudoterminals, the caller's among them",
    "ptmx": "new pseudoterminals",
    "fd": "CMD's own descriptors",
    "stdin": "CMD's own descriptors",
    "stdout": "CMD's own descriptors",
    "stderr": "CMD's own descriptors",
    "fuse": "file systems that CMD serves itself, in its own namespaces",
    "shm": "files of the host's, as in /tmp",
    "mqueue": "the run's own POSIX queues",
}

#: What CMD may write below /proc, and why; `N` is a process of the run.
PROC = {
    "N": "processes of the run",
    "sys/vm": "files of the run's own; the machine's among them",
    "sys/kernel/printk": "a file of the run's own",
    "sysrq-trigger": "a file of the run's own",
}

#: Namespaces of the run's own, besides those of mounts, processes and users.
IPC = "System V queues, semaphores and shared memory, POSIX queues"
