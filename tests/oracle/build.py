"""Kernels for the oracle: unpacked, configured and built below the cache directory, not in the repository."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oracle.sources import IMAGES, MIRRORS, SOURCES, Package

from cmafs.abi.kconfig import SYMBOLS

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "config"


@dataclass(frozen=True)
class Arch:
    """What building for an architecture takes: the image's target and path, the compiler, the defconfig."""

    target: str
    image: str
    cross: str
    defconfig: str
    compiler: str
    qemu: str
    qemu_package: str


ARCHS = {
    "arm64": Arch(
        "Image", "arch/arm64/boot/Image", "aarch64-linux-gnu-", "defconfig",
        "gcc-aarch64-linux-gnu", "qemu-system-aarch64", "qemu-system-arm",
    ),
    "arm": Arch(
        "zImage", "arch/arm/boot/zImage", "arm-linux-gnueabihf-", "multi_v7_defconfig",
        "gcc-arm-linux-gnueabihf", "qemu-system-arm", "qemu-system-arm",
    ),
    "x86_64": Arch(
        "bzImage", "arch/x86/boot/bzImage", "x86_64-linux-gnu-", "x86_64_defconfig",
        "gcc-x86-64-linux-gnu", "qemu-system-x86_64", "qemu-system-x86",
    ),
}  # fmt: skip
#: Program -> package that has it.
_TOOLS = {"make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison", "bc": "bc", "perl": "perl",
          "dtc": "device-tree-compiler", "dpkg-deb": "dpkg", "xz": "xz-utils"}  # fmt: skip
_HEADERS = {"openssl/ssl.h": "libssl-dev", "gelf.h": "libelf-dev"}


class OracleError(Exception):
    """One line for the user: what is missing or failed, and what to do."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that boots: its image, and the lines of its configuration that cmafs reads."""

    name: str
    row: str
    arch: str
    image: Path
    config: tuple[str, ...]


def cache() -> Path:
    """CMAFS_ORACLE_CACHE, or cmafs-oracle below XDG_CACHE_HOME."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("CMAFS_ORACLE_CACHE") or base / "cmafs-oracle").absolute()
    place.mkdir(parents=True, exist_ok=True)
    return place


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"oracle: {text}", file=sys.stderr, flush=True)


# what the host must have


def missing(arch: str) -> list[str]:
    """The packages that building and booting needs and this host lacks, by their Debian names."""
    arch_data = ARCHS[arch]
    tools = {**_TOOLS, arch_data.cross + "gcc": arch_data.compiler, arch_data.qemu: arch_data.qemu_package}
    lacking = [package for program, package in tools.items() if shutil.which(program) is None]
    include = [Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")]
    lacking += [
        package for header, package in _HEADERS.items() if not any((d / header).exists() for d in include)
    ]
    return sorted(set(lacking))


def require(arch: str) -> None:
    """Install what is missing where that is possible; else name it in one line."""
    packages = missing(arch)
    if not packages:
        return
    line = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() or not shutil.which("apt-get"):
        raise OracleError(f"missing: {' '.join(packages)}; as root: {line}")
    say(line)
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL)


# packages


def fetch(package: Package) -> Path:
    """The package in the cache, downloaded once, its sum checked."""
    file = cache() / package.file
    mirrors = [m for m in (os.environ.get("CMAFS_ORACLE_MIRROR"), *MIRRORS) if m]
    for mirror in mirrors if not file.exists() else []:
        url = mirror.rstrip("/") + "/" + package.path
        say(f"downloading {url}")
        partial = file.with_suffix(".partial")
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as out:
                shutil.copyfileobj(answer, out)
            partial.rename(file)
            break
        except (urllib.error.URLError, OSError) as error:
            say(f"{url}: {error}")
    if not file.exists():
        raise OracleError(
            f"cannot download {package.file}: put it into {cache()}, or set CMAFS_ORACLE_MIRROR"
        )
    with file.open("rb") as stream:
        found = hashlib.sha256(stream.read()).hexdigest()
    if found != package.sha256:
        raise OracleError(f"{file}: its sha256 is {found}, not {package.sha256}: delete it")
    return file


def unpack_deb(file: Path, place: Path) -> None:
    """The files of a .deb below a directory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--extract", str(file), str(place)], check=True)


def source(row: str) -> Path:
    """The unpacked source of a row; ``linux-source-ROW`` in the cache may be a link to one."""
    place = cache() / f"linux-source-{row}"
    if place.exists():
        return place.resolve()
    if row not in SOURCES:
        raise OracleError(f"no source package for {row}: one of {', '.join(SOURCES)}")
    package = cache() / f"package-{row}"
    unpack_deb(fetch(SOURCES[row]), package)
    archive = next(package.glob("usr/src/linux-source-*.tar.xz"))
    say(f"unpacking {archive.name}")
    unpacked = cache() / f"unpacking-{row}"
    unpacked.mkdir(exist_ok=True)
    subprocess.run(["tar", "-C", str(unpacked), "-xf", str(archive)], check=True)
    next(unpacked.iterdir()).rename(place)
    unpacked.rmdir()
    shutil.rmtree(package)
    return place


# configuration


def config_lines(text: str) -> list[str]:
    """Of a .config, the lines of symbols that cmafs reads: what a transcript's header has.

    A symbol that this kernel does not offer is off too, whatever its default is elsewhere.
    """
    found = {}
    for line in text.splitlines():
        match = re.match(r"(?:# )?CONFIG_(\w+)(?:=| is not set)", line)
        if match:
            found[match[1]] = line
    off = {symbol.name: f"# CONFIG_{symbol.name} is not set" for symbol in SYMBOLS if symbol.high is None}
    names = dict.fromkeys(symbol.name for symbol in SYMBOLS)
    return [line for name in names if (line := found.get(name) or off.get(name))]


def _make(row: str, arch: str, place: Path, *targets: str, log: Path | None = None) -> None:
    place.mkdir(parents=True, exist_ok=True)
    jobs = os.environ.get("CMAFS_ORACLE_JOBS") or str(os.cpu_count() or 1)
    words = [
        "nice",
        "-n",
        "10",
        "make",
        "-s",
        f"-j{jobs}",
        "-C",
        str(source(row)),
        f"O={place}",
        f"ARCH={arch}",
    ]
    words += [f"CROSS_COMPILE={ARCHS[arch].cross}", *targets]
    log = log or place / "cmafs-config.log"
    with log.open("w") as out:
        done = subprocess.run(words, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise OracleError(f"`make {' '.join(targets)}` of {row} for {arch} failed: see {log}")


def _is_known(config: str) -> bool:
    """Whether it is one of ``tests/oracle/config``, or several with ``+`` between them."""
    return all((CONFIG / part).exists() for part in config.split("+"))


def _fragments(row: str, arch: str, config: str) -> Iterator[Path]:
    """The files that make a configuration, each on top of the one before."""
    names = ["guest", f"guest-{arch}"]
    if config == "defconfig":
        place = cache() / "build" / f"{row}-{arch}-whole-defconfig"
        if not (place / ".config").exists():
            _make(row, arch, place, ARCHS[arch].defconfig)
        fragment = place / "fragment"
        fragment.write_text("\n".join([*config_lines((place / ".config").read_text()), ""]))
        yield fragment
    elif _is_known(config):
        names += [name for part in config.split("+") for name in (part, f"{part}-{arch}")]
    else:
        yield Path(config)
    yield from (CONFIG / name for name in names if (CONFIG / name).exists())


def _merge(base: list[str], fragments: Iterable[Path]) -> str:
    """Kconfig takes the last line of a symbol that it reads."""
    lines = list(base)
    for fragment in fragments:
        lines += fragment.read_text().splitlines()
    last: dict[str, str] = {}
    for line in lines:
        match = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set)", line)
        if match:
            last.pop(match[1], None)
            last[match[1]] = line
    return "\n".join([*last.values(), ""])


def configure(row: str, arch: str, config: str, place: Path) -> str:
    """Write ``.config``; its text. A whole .config is taken for the base in tinyconfig's place."""
    whole = Path(config).is_file() and "Automatically generated file" in Path(config).read_text()
    _make(row, arch, place, "tinyconfig")
    base = [] if whole else (place / ".config").read_text().splitlines()
    (place / ".config").write_text(_merge(base, _fragments(row, arch, config)))
    _make(row, arch, place, "olddefconfig")
    return (place / ".config").read_text()


def config_name(config: str) -> str:
    """What a configuration is called in names of files."""
    return re.sub(r"\W+", "-", Path(config).name)


def kernel(row: str, arch: str, config: str = "tiny") -> Kernel:
    """The kernel, built if it is not there yet; ``config``: tiny, defconfig, a file, a name of IMAGES."""
    if arch not in ARCHS:
        raise OracleError(f"no architecture {arch}: one of {', '.join(ARCHS)}")
    if config.startswith("debian-"):
        return packaged(row, arch, config)
    if config != "defconfig" and not _is_known(config) and not Path(config).is_file():
        raise OracleError(
            f"no configuration {config}: tiny, tiny+heaps, tiny+tracing, defconfig, a file, or one of"
            f" {', '.join(IMAGES)}"
        )
    require(arch)
    name = f"{row}-{arch}-{config_name(config)}"
    place = cache() / "build" / name
    image, built = place / ARCHS[arch].image, place / "cmafs-built"
    text = configure(row, arch, config, place) if not built.exists() else (place / ".config").read_text()
    if not built.exists():
        say(f"building {name}: minutes (log: {place / 'cmafs-build.log'})")
        _make(row, arch, place, ARCHS[arch].target, log=place / "cmafs-build.log")
        built.write_text("")
    return Kernel(name, row, arch, image, tuple(config_lines(text)))


def packaged(row: str, arch: str, config: str) -> Kernel:
    """A distribution's kernel as it ships it."""
    if config not in IMAGES or IMAGES[config][0] != arch or f"-{row}-" not in config:
        raise OracleError(f"no image {config} of {row} for {arch}: one of {', '.join(IMAGES)}")
    require(arch)
    place = cache() / "build" / config
    if not place.exists():
        unpack_deb(fetch(IMAGES[config][1]), place)
    image = next(place.glob("boot/vmlinuz-*"), None)
    if image is None:
        raise OracleError(f"{IMAGES[config][1].file} has no kernel in it")
    raw = image.read_bytes()
    if raw[:2] == b"\x1f\x8b" or raw[:6] == b"\xfd7zXZ\0":  # the loader of a guest unpacks nothing
        import gzip

        plain = place / "Image"
        plain.write_bytes(gzip.decompress(raw) if raw[0] == 0x1F else lzma.decompress(raw))
        image = plain
    text = next(place.glob("boot/config-*")).read_text()
    return Kernel(f"{row}-{arch}-{config}", row, arch, image, tuple(config_lines(text)))


def recorder(arch: str) -> bytes:
    """The recorder, compiled for an architecture."""
    program, text = cache() / f"recorder-{arch}", HERE / "init.c"
    stamp = cache() / f"recorder-{arch}.sha256"
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    if not program.exists() or not stamp.exists() or stamp.read_text() != digest:
        words = [ARCHS[arch].cross + "gcc", "-static", "-Os", "-s", "-Wall", "-std=gnu11"]
        subprocess.run([*words, "-o", str(program), str(text)], check=True)
        stamp.write_text(digest)
    return program.read_bytes()
