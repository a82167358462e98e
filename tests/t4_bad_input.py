"""Bad input: one clear line each, exit status 1, nothing left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from run_support import CMAFS, NOBODY, REPOSITORY, cmafs

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
