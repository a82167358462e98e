"""Bad input: one clear line each, exit status 1, nothing left behind."""

from __future__ import annotations

import errno
import lzma
import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest
from run_support import CMAFS, NOBODY, REPOSITORY, cmafs, cmafs_after, processes

ENOENT = "No such file or directory"
KNOWN_BOARDS = "am62x, article-1, article-2, camera, imx8mm, rk3588, rpi4, virt, x86-4g"
KNOWN_KERNELS = "4.4, 4.15, 4.19, 5.4, 5.10, 5.15, 6.1, 6.6, 6.12, 6.18, 7.2, article, 2010"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    place = tmp_path / "mnt"
    place.mkdir()
    return place


NO_CONFIG = (
    f"config: nofile: {ENOENT}; wanted is KEY=VALUE, a file of such lines, "
    "or a named set (`cmafs boards --configs`)"
)


def refused(place: Path | str, *options: str, **process: object) -> str:
    """What the one line says; the mount point is as it was."""
    done = cmafs("mount", *options, str(place), **process)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cmafs: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not os.path.ismount(place)
    return done.stderr.removeprefix("cmafs: ").rstrip("\n")


def dts(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.usefixtures("fuse_device")
class TestMachine:
    def test_missing_file(self, place: Path) -> None:
        assert refused(place, "--dts", "/nonexistent.dts") == "/nonexistent.dts: No such file or directory"

    def test_unknown_board(self, place: Path) -> None:
        text = refused(place, "--dts", "rpi5")
        known = f"known are {KNOWN_BOARDS}; or the path of a .dts or .dtb"
        assert text == f"unknown board 'rpi5': {known}; did you mean rpi4?"

    def test_unknown_kernel(self, place: Path) -> None:
        text = refused(place, "--kernel", "8.0")
        known = f"known are {KNOWN_KERNELS}, and any release between them"
        assert text == f"unknown kernel '8.0': {known}; did you mean 7.2?"

    def test_not_a_device_tree(self, place: Path, tmp_path: Path) -> None:
        blob = tmp_path / "board.dtb"
        blob.write_bytes(b"\x7fELF" + bytes(100))
        text = refused(place, "--dts", str(blob))
        assert text == f"{blob}: not a device tree blob: it starts with 7f454c46, not d00dfeed"

    def test_syntax_error_names_file_and_line(self, place: Path, tmp_path: Path) -> None:
        source = dts(tmp_path / "bad.dts", "/dts-v1/;\n/ {\n\tmodel = ;\n};\n")
        text = refused(place, "--dts", source)
        assert text.startswith(f"{source}:3:")
        assert "syntax error" in text

    def test_no_memory(self, place: Path, tmp_path: Path) -> None:
        source = dts(tmp_path / "empty.dts", '/dts-v1/;\n/ { model = "x"; };\n')
        text = refused(place, "--dts", source)
        assert "memory" in text
        assert "--memory" in text

    def test_panic_prints_the_end_of_the_log(self, place: Path, tmp_path: Path) -> None:
        source = dts(
            tmp_path / "outside.dts",
            """/dts-v1/;
            / {
                #address-cells = <2>; #size-cells = <2>;
                memory@40000000 { device_type = "memory"; reg = <0 0x40000000 0 0x10000000>; };
                reserved-memory {
                    #address-cells = <2>; #size-cells = <2>; ranges;
                    pool@80000000 {
                        compatible = "shared-dma-pool"; reusable; reg = <0 0x80000000 0 0x1000000>;
                    };
                };
            };""",
        )
        done = cmafs("mount", "--dts", source, str(place))
        *log, last = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (1, "")
        assert last.startswith("cmafs: kernel panic at boot: ")
        assert "] Kernel panic - not syncing: " in log[-1]
        assert not os.path.ismount(place)
        for words, status in ((["shell"], 1), (["run", "--", "true"], 125)):
            other = cmafs(words[0], "--dts", source, *words[1:])
            assert (other.returncode, other.stdout) == (status, "")
            assert other.stderr.splitlines()[-1] == last

    @pytest.mark.parametrize(
        ("option", "value", "why"),
        [
            ("--memory", "lots", "memory: 'lots' is no size: a number of bytes, or one with K, M or G"),
            ("--memory", "1G2", "memory: '1G2' is no size: a number of bytes, or one with K, M or G"),
            (
                "--config",
                "nofile",
                NO_CONFIG,
            ),
            ("--config", "CMA_AREAS=x", "CONFIG_CMA_AREAS is a number, not 'x'"),
            ("--log", "/nonexistent/log", f"/nonexistent/log: {ENOENT}"),
        ],
    )
    def test_options(self, place: Path, option: str, value: str, why: str) -> None:
        assert refused(place, option, value) == why


@pytest.mark.usefixtures("fuse_device")
class TestMountPoint:
    def test_missing(self, tmp_path: Path) -> None:
        place = tmp_path / "nowhere"
        assert refused(place) == f"{place}: No such file or directory; mkdir -p {place} makes it"

    def test_not_a_directory(self, tmp_path: Path) -> None:
        place = tmp_path / "file"
        place.touch()
        assert refused(place) == f"{place}: not a directory"
        assert refused(f"{place}/below") == f"{place}/below: Not a directory"

    def test_not_empty(self, place: Path) -> None:
        (place / "precious").touch()
        why = "not empty; choose an empty directory, or -o nonempty hides what is there"
        assert refused(place) == f"{place}: {why}"
        assert cmafs("mount", "-o", "nonempty", str(place)).returncode == 0
        assert cmafs("umount", str(place)).returncode == 0
        assert [path.name for path in place.iterdir()] == ["precious"]

    def test_unknown_fuse_option(self, place: Path) -> None:
        text = refused(place, "-o", "frobnicate=1")
        assert text == f"{place}: libfuse cannot mount: fuse: unknown option `frobnicate=1'"


class TestHost:
    def test_no_libfuse(self, place: Path, fuse_device: None) -> None:
        text = refused(place, env={**os.environ, "FUSE_LIBRARY_PATH": "libnothing.so.2"})
        packages = "libfuse2 (Debian 13, Ubuntu 24.04: libfuse2t64)"
        assert text == f"libfuse 2 is missing: install the package {packages}"

    def _without_device(self, place: Path) -> str:
        """Mount where /dev is a file system of its own."""
        command = " ".join(CMAFS)
        devices = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"
        script = f"{devices} && {command} mount {place}"
        words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        assert done.returncode == 1
        return done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs a /dev of its own")
    def test_no_device(self, place: Path) -> None:
        container = "in a container: --device /dev/fuse --cap-add SYS_ADMIN"
        text = self._without_device(place)
        assert text == f"cmafs: /dev/fuse is missing: `modprobe fuse`; {container}\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
    def test_device_of_root_alone(self) -> None:
        code = (
            "import os; from cmafs.mount.mounts import check_device, MountFailed\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "try: check_device()\nexcept MountFailed as error: print(error)"
        )
        devices = "mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229"
        script = f"{devices} && exec {CMAFS[0]} -c '{code}'"
        words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        assert done.stdout == "/dev/fuse: Permission denied: `chmod 666 /dev/fuse`\n", done.stderr


class TestUsage:
    @pytest.mark.parametrize(
        "words",
        [[], ["mount"], ["frobnicate"], ["mount", "--arch", "vax", "/m"], ["mount", "--seed", "x", "/m"]],
    )
    def test_wrong_usage_is_status_2(self, words: list[str]) -> None:
        done = cmafs(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: cmafs")

    def test_a_closed_output_is_no_traceback(self) -> None:
        command = " ".join(CMAFS)
        words = ["sh", "-c", f"{command} boards | true"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        assert done.stderr == ""

    @pytest.mark.parametrize("words", ["boards", "check --dts rpi4"])
    def test_a_full_output_is_one_line(self, words: str) -> None:
        command = ["sh", "-c", f"{' '.join(CMAFS)} {words} > /dev/full"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        full = "cmafs: standard output: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, full)


@pytest.mark.parametrize("option", [["--profile", "v1"], ["--strict-quirks"]])
def test_what_is_of_2010_alone(option: list[str]) -> None:
    done = cmafs("check", "virt", *option)
    line = "cmafs: --profile and --strict-quirks are for --kernel 2010; this is 6.12\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert cmafs("run", *option, "--", "true").returncode == 125


def limited(script: str, **process: object) -> subprocess.CompletedProcess[str]:
    """A shell snippet, with cmafs as "$@"."""
    words = ["sh", "-c", script, "sh", *CMAFS]
    options = {"capture_output": True, "text": True, "errors": "replace", "timeout": 60, "cwd": REPOSITORY}
    return subprocess.run(words, **{**options, **process})


def complained(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line of a failure."""
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert done.stderr.startswith("cmafs: ")
    assert "a bug of ours" not in done.stderr
    return done.stderr.removeprefix("cmafs: ").rstrip("\n")


#: Each of the commands, and its exit status when it fails for a reason of the process's own.
COMMANDS = {"mount {place}": 1, "run -- true": 125, "check virt": 2}
MANY, MEMORY = "raise `ulimit -n`", "raise `ulimit -v`"

_FAILS_WHEN_MOUNTED = """
import errno, os
import cmafs.mount.server as server
def topmost(place):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
server.topmost = topmost
"""


class TestLimits:
    """One line, or success: whatever the process is short of."""

    @pytest.mark.parametrize("number", [5, 8, 9, 10, 11, 12, 13])
    @pytest.mark.parametrize("command", COMMANDS)
    def test_descriptors(self, place: Path, fuse_device: None, command: str, number: int) -> None:
        done = limited(f'ulimit -n {number}; exec "$@" {command.format(place=place)}', input="")
        if done.returncode:
            assert MANY in complained(done, COMMANDS[command]) or "Too many open files" in done.stderr
        else:
            assert (number > 8, done.stderr) == (True, "")
            assert not os.path.ismount(place) or cmafs("umount", str(place)).returncode == 0
        assert not os.path.ismount(place)

    @pytest.mark.parametrize("command", [word for word in COMMANDS if "check" not in word])
    def test_what_is_missing_once_it_is_mounted(self, place: Path, fuse_device: None, command: str) -> None:
        """Whoever waits for the mount is told of it, and nothing stays mounted."""
        words = [*cmafs_after(_FAILS_WHEN_MOUNTED), *command.format(place=place).split()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert MANY in complained(done, COMMANDS[command])
        assert not os.path.ismount(place)

    @pytest.mark.parametrize("size", [24000, 30000])
    @pytest.mark.parametrize("command", COMMANDS)
    def test_memory(self, place: Path, fuse_device: None, command: str, size: int) -> None:
        done = limited(f'ulimit -v {size}; exec "$@" {command.format(place=place)}', input="")
        if done.returncode:
            complained(done, COMMANDS[command])
        assert not os.path.ismount(place) or cmafs("umount", str(place)).returncode == 0
        assert not os.path.ismount(place)

    @pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
    def test_closed_descriptors(self, place: Path, fuse_device: None, closed: str) -> None:
        assert limited(f'exec "$@" mount {place} {closed}').returncode == 0
        assert (place / "sim/verify").read_text() == "ok\n"
        assert limited(f'exec "$@" umount {place} {closed}').returncode == 0
        assert limited(f"exec \"$@\" run -- sh -c 'exit 7' {closed}").returncode == 7
        assert limited(f'exec "$@" mount /nonexistent {closed}').returncode == 1

    def test_what_was_closed_is_closed_for_the_command(self, fuse_device: None) -> None:
        listing = "sh -c 'ls /proc/self/fd' <&- 2>&-"
        done = limited(f'exec "$@" run -- {listing}')
        assert (done.returncode, done.stdout) == (0, limited(listing).stdout)

    @pytest.mark.parametrize("words", ["boards", "--help"])
    def test_an_output_that_is_closed(self, words: str) -> None:
        text = complained(limited(f'exec "$@" {words} >&-'), 1)
        assert text == "standard output: Bad file descriptor"

    @pytest.mark.parametrize("words", ["frobnicate", "mount"])
    def test_an_error_output_that_takes_nothing(self, words: str) -> None:
        assert limited(f'exec "$@" {words} 2> /dev/full').returncode == 2
        assert limited(f'exec "$@" {words} 2>&-').returncode == 2


class TestPlaces:
    def test_a_directory_that_was_removed(self, place: Path, tmp_path: Path, fuse_device: None) -> None:
        gone = tmp_path / "gone"
        for words, status in (
            ("mount rel", 1),
            ("mount .", 1),
            ("umount rel", 1),
            ("run --log x -- pwd", 125),
        ):
            gone.mkdir()
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            done = limited(f'rmdir {gone}; exec "$@" {words}', cwd=gone, env=environment)
            assert "working directory was removed" in complained(done, status) or words == "umount rel"
        gone.mkdir()
        done = limited(f'rmdir {gone}; exec "$@" mount {place}', cwd=gone, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert cmafs("umount", str(place)).returncode == 0

    @pytest.mark.parametrize("option", ["--log", "--dts", "--overlay", "--config"])
    def test_a_fifo_is_not_waited_for(
        self, place: Path, tmp_path: Path, option: str, fuse_device: None
    ) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        text = complained(cmafs("mount", option, str(fifo), str(place), timeout=20), 1)
        assert str(fifo) in text
        assert "FIFO" in text
        assert complained(cmafs("run", option, str(fifo), "--", "true", timeout=20), 125) == text

    def test_a_fifo_in_place_of_a_machine_is_not_waited_for(self, tmp_path: Path) -> None:
        (tmp_path / "sim").mkdir()
        for name in ("control", "log", "dmesg"):
            os.mkfifo(tmp_path / "sim" / name)
        assert "is not a file" in complained(cmafs("ctl", str(tmp_path), "kill", "x", timeout=20), 1)
        assert "is not a file" in complained(cmafs("dmesg", str(tmp_path), timeout=20), 1)

    def test_what_is_no_machine_is_not_written_to(self, tmp_path: Path) -> None:
        """Not a copy of a tree, nor what links in the place of its files lead to."""
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (tmp_path / "sim").mkdir()
        (tmp_path / "sim" / "control").symlink_to(victim)
        (tmp_path / "copy" / "sim").mkdir(parents=True)
        (tmp_path / "copy" / "sim" / "control").write_text("")
        for place in (tmp_path, tmp_path / "copy"):
            text = complained(cmafs("ctl", str(place), "spawn", "a", "anon", "1M"), 1)
            assert text == f"{place}: no machine is mounted there (sim/control is not a file of one)"
        assert victim.read_text() == "precious"
        assert (tmp_path / "copy" / "sim" / "control").read_text() == ""

    @pytest.mark.parametrize("command", ["compare", "replay", "size", "why"])
    def test_a_device_without_an_end_is_no_file(self, command: str) -> None:
        limited = ["prlimit", "--as=2000000000", *CMAFS, command, "/dev/zero"]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=20)
        assert done.returncode == (1 if command == "why" else 2)
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("cmafs: /dev/zero: ")

    def test_a_line_without_an_end_is_refused(self, tmp_path: Path) -> None:
        """A gigabyte of one letter, packed."""
        bomb = tmp_path / "bomb.jsonl.xz"
        with lzma.open(bomb, "wb", preset=0) as file:
            for _ in range(64):
                file.write(b"x" * (1 << 24))
        limited = ["prlimit", "--as=1000000000", *CMAFS, "compare", str(bomb)]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"cmafs: {bomb}: line 1: ")

    def test_what_is_replaced_keeps_its_mode(self, tmp_path: Path) -> None:
        """Whole or not at all is a new file; whose it is and who may read it stays."""
        file = tmp_path / "picture.svg"
        file.write_text("old")
        file.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(file, NOBODY, NOBODY)
        before = file.stat()
        assert cmafs("run", "--", *CMAFS, "map", "--svg", str(file)).returncode == 0
        after = file.stat()
        assert "<svg" in file.read_text()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)

    def test_an_unknown_level_starts_nothing(self, tmp_path: Path) -> None:
        """Inside of a run the host's dmesg answers then, from beside the machine; here that may be any."""
        program = tmp_path / "real" / "dmesg"
        for file in (program, tmp_path / "m" / "sim" / "dmesg"):
            file.parent.mkdir(parents=True)
            file.write_text("#!/bin/sh\necho started\n")
        program.chmod(0o755)
        done = cmafs("dmesg", "-l", "err,bogus", str(tmp_path / "m"))
        assert "unknown level 'bogus': known are emerg, " in complained(done, 2)

    @pytest.mark.parametrize("words", ["map {}", "why {}", "top {} --count 1", "why --dmesg {}", "size {}"])
    def test_nor_where_a_board_or_its_log_was_meant(self, tmp_path: Path, words: str) -> None:
        os.mkfifo(tmp_path / "fifo")
        inside = tmp_path / "copy/sys/kernel/debug/cma/x"
        inside.mkdir(parents=True)
        os.mkfifo(inside / "count")
        for path in (tmp_path / "fifo", tmp_path / "copy"):
            if path.is_dir() and ("{} " not in f"{words} " or words.startswith(("size", "why --dmesg"))):
                continue
            done = cmafs(*words.format(path).split(), timeout=20)
            assert str(path) in complained(done, 2 if words.startswith("size") else 1)

    def test_what_is_no_file_is_written_to_and_never_replaced(self, tmp_path: Path) -> None:
        device, fifo, link = tmp_path / "null", tmp_path / "fifo", tmp_path / "link"
        device.symlink_to("/dev/null")
        os.mkfifo(fifo)
        (tmp_path / "file").write_text("old")
        link.symlink_to("file")
        export = cmafs("export", "--cmdline", "cma=4M", str(tmp_path / "copy"))
        assert export.returncode == 0, export.stderr
        draw = ["map", str(tmp_path / "copy"), "--svg"]
        assert cmafs(*draw, str(device)).returncode == 0
        assert device.is_symlink() and stat.S_ISCHR(Path("/dev/null").stat().st_mode)
        assert "nobody reads this FIFO" in complained(cmafs(*draw, str(fifo), timeout=20), 1)
        assert stat.S_ISFIFO(fifo.lstat().st_mode)
        assert cmafs(*draw, str(link)).returncode == 0
        assert link.is_symlink() and "<svg" in (tmp_path / "file").read_text()
        assert "Is a directory" in complained(cmafs(*draw, str(tmp_path)), 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "fifo", "file", "link", "null"]

    def test_a_pipe_of_the_shells_is_read(self) -> None:
        done = limited("""exec bash -c '"$@" check --dts <(cat dts/rpi4.dts)' bash "$@" """)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (
            0,
            "1 of 1 regions that ask for an area became one",
        )

    @pytest.mark.parametrize("include", ['/include/ "/dev/zero"', '#include "/dev/zero"'])
    def test_an_endless_include_takes_no_memory(self, tmp_path: Path, include: str) -> None:
        source = dts(tmp_path / "endless.dts", f"/dts-v1/;\n{include}\n/ {{ }};")
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        complained(cmafs("check", "--dts", source), 2)
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 300_000)
        assert processes(str(tmp_path)) == []  # of the compiler that cpp starts

    def test_a_full_log_is_no_answer(self, place: Path, fuse_device: None) -> None:
        """The errno of the user's own operation stays."""
        assert cmafs("mount", "--log", "/dev/full", str(place)).returncode == 0
        try:
            for name, text in (
                ("sim/control", b"frobnicate\n"),
                ("sys/kernel/debug/cma/reserved/alloc", b"x"),
            ):
                with (place / name).open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
                    file.write(text)
                assert caught.value.errno == errno.EINVAL
            assert (place / "sim/verify").read_text() == "ok\n"
        finally:
            assert cmafs("umount", str(place)).returncode == 0

    def test_a_relative_log_of_a_run_is_where_the_caller_is(self, tmp_path: Path) -> None:
        script = "echo frobnicate > $CMAFS_MOUNT/sim/control"
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        cmafs("run", "--log", "log", "--", "sh", "-c", script, cwd=tmp_path, env=environment)
        assert "unknown verb" in (tmp_path / "log").read_text()


#: An ASCII output; locales without UTF-8, with and without Python's own ways around them.
LOCALES = ("PYTHONIOENCODING=ascii", "LC_ALL=C", "LC_ALL=POSIX PYTHONCOERCECLOCALE=0 PYTHONUTF8=0")


@pytest.mark.parametrize("locale", LOCALES)
class TestBytes:
    def _cmafs(self, locale: str, *words: bytes) -> subprocess.CompletedProcess[bytes]:
        line = ["env", *locale.split(), *CMAFS, *words]
        return subprocess.run(line, capture_output=True, timeout=60, cwd=REPOSITORY)

    def test_on_the_command_line_of_the_kernel(self, locale: str, fuse_device: None) -> None:
        text = b"\xc3\xa9 \xff"
        done = self._cmafs(locale, b"run", b"--cmdline", text, b"--", b"cat", b"/proc/cmdline")
        assert (done.returncode, done.stdout, done.stderr) == (0, text + b"\n", b"")
        shown = self._cmafs(locale, b"check", b"virt", b"--cmdline", text)
        assert (shown.returncode, shown.stderr) == (0, b"")

    def test_in_names(self, locale: str) -> None:
        text = b"a\n\xff\x1b[2J\xc3\xa9"
        for words, status in (
            ([b"mount", text], 1),
            ([b"check", b"--dts", text, b"--kernel", text], 2),
            ([b"run", b"--config", text, b"--", b"true"], 125),
            ([b"trace-alloc", text, b"1"], 1),
        ):
            done = self._cmafs(locale, *words)
            assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (status, b"", 1), done
            assert done.stderr.startswith(b"cmafs: ")
            assert b"a bug of ours" not in done.stderr
            assert b"\x1b" not in done.stderr
