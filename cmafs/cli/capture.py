"""A capture as a file: opened whatever packs it, read in two passes, with a progress bar."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import lzma
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cmafs.board.root import DAMAGED, is_tar, reason
from cmafs.cli.options import CommandFailed
from cmafs.of.fdt import open_named
from cmafs.replay.capture import LOST, Event, Facts, Reader
from cmafs.replay.survey import Survey, survey
from cmafs.run.progress import Bar

#: Characters that a line may have; what is longer is no line of a log or a trace.
MAX_LINE = 1 << 16
#: Events that are kept in memory; of a larger capture the file is read twice.
KEPT = 1 << 18
_WANTED = (
    "wanted is the text of trace, trace_pipe, `trace-cmd report` or `perf script` with the events of cma, "
    "or a kernel log with debugging of mm/cma.c"
)


class Capture:
    """A capture on disk, surveyed; standard input, and what is taken from a tar, is kept in a temporary file
    until the capture, as a context, ends.

    ``release``: the kernel's, where a tar says it. Raises CommandFailed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.release = ""
        self._spool: IO[bytes] | None = None
        if path == "-":
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the capture
            shutil.copyfileobj(sys.stdin.buffer, self._spool)
            self._spool.flush()
        elif is_tar(path):
            self._spool, self.release = _recorded(path)
        try:
            self._survey()
        except CommandFailed:
            self.__exit__()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()

    def _survey(self) -> None:
        reader = Reader()
        self._kept: list[Event] | None = []
        self.survey: Survey = survey(self._keep(self._read(reader, "reading")))
        self.facts: Facts = reader.facts
        if not self.facts.traced and not self.facts.logged:
            raise CommandFailed(f"{self.path}: no allocation and no release in it; {_WANTED}")

    def events(self, title: str = "replaying") -> Iterator[Event]:
        """Its events, of the tracepoints if it has them."""
        if self._kept is not None:
            traced = bool(self.facts.traced)
            return (event for event in self._kept if event.kind == LOST or event.logged != traced)
        return self._read(Reader("trace" if self.facts.traced else "log"), title)

    def _keep(self, events: Iterator[Event]) -> Iterator[Event]:
        """The same events, kept as long as they are few."""
        for event in events:
            if self._kept is not None:
                self._kept.append(event)
                if len(self._kept) > KEPT:
                    self._kept = None
            yield event

    def _read(self, reader: Reader, title: str) -> Iterator[Event]:
        try:
            yield from reader.events(self._lines(title))
        except (*DAMAGED, ValueError) as error:
            raise CommandFailed(f"{self.path}: {reason(error)}; {_WANTED}") from None

    def _lines(self, title: str) -> Iterator[str]:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(self._open())
            size = os.fstat(raw.fileno()).st_size
            bar = Bar(title)
            stack.callback(bar.clear)
            text = _text(unpacked(raw))
            stack.callback(text.detach)
            lines = iter(lambda: text.readline(MAX_LINE), "")
            if ".jsonl" in Path(self.path).suffixes[-2:]:
                lines = _script_output(lines)
            for number, line in enumerate(lines):
                if not number & 0xFFF:
                    bar.show(raw.tell(), size)
                yield line

    def _open(self) -> io.BufferedReader:
        if self._spool is not None:
            spool = os.fdopen(os.dup(self._spool.fileno()), "rb")
            spool.seek(0)
            return spool
        return open_named(self.path)


def unpacked(raw: io.BufferedReader) -> Any:
    """The same file, or what is packed in it, by gzip or xz."""
    head = raw.peek(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    return raw


def _text(file: Any) -> io.TextIOWrapper:
    """Its text: UTF-8, or UTF-16 as the shell of Windows writes what it is told to write to a file."""
    file = file if hasattr(file, "peek") else io.BufferedReader(file)
    wide = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(file, encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="\n")


def _recorded(path: str) -> tuple[IO[bytes], str]:
    """The trace in a tar of `cmafs record`, or else the log; and the release."""
    from cmafs.board.memory import release
    from cmafs.board.root import MAX_TAR, RootError, TarRoot
    from cmafs.replay.transcript import RELEASE

    spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the capture
    try:
        root = TarRoot(path)
        for name in ("trace", "dmesg"):
            if root.copy(name, spool, MAX_TAR):
                break
        found = RELEASE.search(release(root))
    except RootError as error:
        spool.close()
        raise CommandFailed(str(error)) from None
    spool.flush()
    return spool, found[0] if found else ""


def _script_output(lines: Iterator[str]) -> Iterator[str]:
    """The text that a transcript's script printed. Raises ValueError."""
    for number, line in enumerate(lines, 1):
        try:
            yield from map(str, json.loads(line).get("script_output", ()))
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"line {number}: no transcript's") from None
