"""The compilers of device trees as processes: cpp, dtc, fdtoverlay; a complaint reaches the user as one line.

An edge module, like ``cmafs.of.fdt``, which alone uses it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cmafs.of.base import DtError

#: Seconds for one tool: /incbin/ of an endless file must not hang a check, nor take the host's memory.
_TIMEOUT = 10
#: KiB of address space for one tool; what compiles the largest board takes a tenth of it.
_LIMITED = ("/bin/sh", "-c", 'ulimit -v 262144 2>/dev/null; exec "$@"', "sh")

_CPP_DIRECTIVE = re.compile(
    rb"^[ \t]*#[ \t]*(?:include|define|undef|ifdef|ifndef|if|error)[ \t]+[\"<\w(!]", re.M
)
# Of what the tools complain, compiled when they do.
#: ``Error: FILE:4.2-3 syntax error`` and ``FILE:2.3-5.3: ERROR (phandle_references): /: Reference to ...``
_DTC_ERROR = (
    r"(?m)^(?:Error: )?(?P<file>.+?):(?P<line>\d+)\.(?P<column>\d+)[-\d.]*:? "
    r"(?:ERROR \(\w+\): )?(?P<what>.*)$"
)
_DTC_NODE_ERROR = r"(?m)^.*ERROR \(\w+\): (?P<what>.*)$"
_DTC_NO_INCLUDE = r"(?m)^FATAL ERROR: Couldn't open \"(?P<file>.*)\": (?P<why>.*)$"
_CPP_ERROR = r"(?m)^(?P<where>.+?:\d+:\d+): (?:fatal )?error: (?P<what>.*)$"
_OVERLAY_ERROR = r"Failed to apply '.*?(?P<index>\d+)\.dtbo': (?P<what>\S+)"

_PACKAGES = {"dtc": "device-tree-compiler", "fdtoverlay": "device-tree-compiler", "cpp": "cpp"}


Completed = subprocess.CompletedProcess[bytes]


class OverlayError(DtError):
    """fdtoverlay refused; ``index`` is which overlay, None if it did not say."""

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


def _run(command: Sequence[str], stdin: bytes | None, cwd: str | None = None) -> Completed:
    """The finished tool. Raises DtError if it is missing, or takes too long."""
    if shutil.which(command[0]) is None:
        package = _PACKAGES[command[0]]
        raise DtError(f"{command[0]} is not installed: install the package {package}")
    given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*_LIMITED, *command], stdin=given, stdout=pipe, stderr=pipe, cwd=cwd, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, _TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DtError(f"{command[0]} did not finish within {_TIMEOUT} s on {command[-1]}") from None
        finally:
            with suppress(ProcessLookupError):  # cpp has a child that does the work
                os.killpg(process.pid, signal.SIGKILL)
    return Completed(command, process.returncode, stdout, stderr)


def _died(tool: str, source: str, result: Completed) -> str:
    """The line for a tool that failed without saying anything that we know."""
    if result.returncode < 0:
        return f"{source}: {tool} was ended by {signal.Signals(-result.returncode).name}"
    lines = [line.strip() for line in result.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"{source}: {tool}: {lines[-1] if lines else f'exit status {result.returncode}'}"


def _include_directories(directory: Path) -> list[Path]:
    """The file's own directory and, inside a kernel, U-Boot or devicetree-rebasing tree, its dt-bindings.

    ``scripts/dtc/include-prefixes`` is what the kernel's build passes (scripts/Makefile.lib).
    """
    found = [directory]
    for parent in [directory.absolute(), *directory.absolute().parents]:
        if (parent / "include" / "dt-bindings").is_dir():
            candidates = [parent / "include", parent / "scripts/dtc/include-prefixes", parent / "src"]
            return found + [path for path in candidates if path.is_dir()]
    return found


def _preprocess(source: str, text: bytes, argument: str) -> bytes:
    """Text with its #includes in place and line markers for dtc. ``argument``: a file, or ``-``."""
    flags = ["-nostdinc", "-undef", "-D__DTS__", "-x", "assembler-with-cpp"]
    for path in _include_directories(Path(source).parent):
        flags += ["-I", str(path)]
    stdin = b'# 1 "%s"\n' % os.fsencode(source) + text if argument == "-" else None
    result = _run(["cpp", *flags, argument], stdin)
    if result.returncode:
        match = re.search(_CPP_ERROR, result.stderr.decode("utf-8", "replace"))
        raise DtError(f"{match['where']}: {match['what']}" if match else _died("cpp", source, result))
    return result.stdout


def _explain_dtc(source: str, text: bytes, result: Completed) -> str:
    """dtc's first complaint as ``file:line:column: what``."""
    stderr = result.stderr.decode("utf-8", "replace")
    if match := re.search(_DTC_ERROR, stderr):
        what, plugin = match["what"], b"/plugin/" in text
        if what == "syntax error" and b"/dts-v1/" not in text:
            what += " (a device tree source starts with /dts-v1/;)"
        elif what.endswith("not found") and not plugin and what.startswith("Label"):
            what += " (if this is an overlay, it lacks /plugin/;)"
        return f"{match['file']}:{match['line']}:{match['column']}: {what}"
    if match := re.search(_DTC_NO_INCLUDE, stderr):
        before, found, _ = text.partition(f'"{match["file"]}"'.encode())
        line = f":{before.count(10) + 1}" if found else ""
        return f'{source}{line}: cannot include "{match["file"]}": {match["why"]}'
    if match := re.search(_DTC_NODE_ERROR, stderr):
        return f"{source}: {match['what']}"
    return _died("dtc", source, result)


def compile_source(source: str, text: bytes, regular: bool, symbols: bool) -> bytes:
    """The blob of a device tree source.

    ``source``: the path as the user wrote it. ``text``: its bytes. ``regular``: whether the tools may open
    the path again (a pipe cannot be). ``symbols``: keep the labels (``dtc -@``), which overlays need.
    Raises DtError.
    """
    return _dtc(source, text, regular, ["-O", "dtb", *(["-@"] if symbols else [])])


def annotated_source(source: str, text: bytes, regular: bool) -> str:
    """The tree as dtc prints it, with file, line and column of each node and property. Raises DtError."""
    return _dtc(source, text, regular, ["-O", "dts", "-T", "-T"]).decode("utf-8", "replace")


def _dtc(source: str, text: bytes, regular: bool, flags: Sequence[str]) -> bytes:
    argument = "-"
    if regular:
        argument = f"./{source}" if source.startswith("-") else source
    stdin, cwd = None if regular else b'# 1 "%s"\n' % os.fsencode(source) + text, None
    if _CPP_DIRECTIVE.search(text):
        stdin, cwd = _preprocess(source, text, argument), str(Path(source).parent)
        argument = "-"  # the working directory is then where dtc's own /include/ looks
    result = _run(["dtc", "-q", "-I", "dts", *flags, argument], stdin, cwd)
    if result.returncode or not result.stdout:
        raise DtError(_explain_dtc(source, text, result))
    return result.stdout


def apply_overlays(base: bytes, overlays: Sequence[bytes]) -> bytes:
    """The base blob with overlay blobs applied in order. Raises OverlayError."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cmafs-dt-") as name:
        directory = Path(name)
        base_file, merged = directory / "base.dtb", directory / "merged.dtb"
        base_file.write_bytes(base)
        files = [directory / f"{index}.dtbo" for index in range(len(overlays))]
        for file, blob in zip(files, overlays, strict=True):
            file.write_bytes(blob)
        result = _run(["fdtoverlay", "-i", str(base_file), "-o", str(merged), *map(str, files)], None)
        if result.returncode == 0 and merged.exists():
            return merged.read_bytes()
    match = re.search(_OVERLAY_ERROR, result.stderr.decode("utf-8", "replace"))
    if match:
        raise OverlayError(f"fdtoverlay: {match['what']}", int(match["index"]))
    raise OverlayError(_died("fdtoverlay", "overlay", result))
