"""Which kernels were recorded, how they were configured, and how many of the recordings are answered alike.

The recordings are the repository's ``tests/transcripts``; ``tests/t0_recorded.py`` counts them and what is
compared.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recording:
    """One set of recordings: a kernel, its architecture and configuration.

    ``directory``: below ``tests/transcripts``; ``config``: a set of ``--config``, or the first recordings'
    and what was changed; ``transcripts``: files; ``equal``: those that are answered alike, on the tables and
    through a mount.
    """

    directory: str
    kernel: str
    arch: str
    config: str
    transcripts: int
    equal: int


def _whole(directory: str, kernel: str, arch: str, config: str, transcripts: int) -> Recording:
    """A set of which everything is answered alike."""
    return Recording(directory, kernel, arch, config, transcripts, transcripts)


RECORDINGS = (
    _whole("4.4", "4.4.155", "x86_64", "tiny", 19),
    _whole("4.15", "4.15.0", "x86_64", "tiny", 19),
    _whole("4.19", "4.19.72", "x86_64", "tiny", 18),
    _whole("4.19-arm64", "4.19.72", "arm64", "tiny, ZONE_DMA32", 18),
    _whole("5.4", "5.4.286", "x86_64", "tiny", 19),
    _whole("5.4-arm64", "5.4.286", "arm64", "tiny, ZONE_DMA32", 18),
    _whole("5.10", "5.10.223", "x86_64", "tiny", 29),
    _whole("5.10-arm64", "5.10.223", "arm64", "tiny", 19),
    _whole("5.10-armmp", "5.10.0-30-armmp", "arm", "debian-5.10-armmp", 4),
    _whole("5.10-heaps", "5.10.223", "x86_64", "tiny+heaps", 1),
    _whole("5.15", "5.15.0", "x86_64", "tiny", 18),
    _whole("6.1", "6.1.192", "x86_64", "tiny", 29),
    _whole("6.1-amd64-debcloud", "6.1.0-50-cloud-amd64", "x86_64", "debian-6.1-amd64-cloud", 2),
    _whole("6.1-arm-heaps", "6.1.192", "arm", "tiny+heaps", 1),
    _whole("6.1-arm64-debcloud", "6.1.0-50-cloud-arm64", "arm64", "debian-6.1-arm64-cloud", 10),
    _whole("6.1-arm64-defconfig", "6.1.192", "arm64", "defconfig", 31),
    _whole("6.1-armmp", "6.1.0-50-armmp", "arm", "debian-6.1-armmp", 10),
    _whole("6.1-armmp-lpae", "6.1.0-50-armmp-lpae", "arm", "debian-6.1-armmp-lpae", 3),
    _whole("6.6", "6.6.87", "x86_64", "tiny", 18),
    _whole("6.12", "6.12.117", "x86_64", "tiny", 29),
    # One of the two died before it logged anything: nothing to compare.
    Recording("6.12-amd64-debcloud", "6.12.107+deb13-cloud-amd64", "x86_64", "debian-6.12-amd64-cloud", 2, 1),
    _whole("6.12-amd64-zonedma", "6.12.117", "x86_64", "defconfig", 4),
    _whole("6.12-arm", "6.12.117", "arm", "tiny, HIGHMEM", 54),
    _whole("6.12-arm64", "6.12.117", "arm64", "tiny", 19),
    _whole("6.12-arm64-16k", "6.12.107+deb13-arm64-16k", "arm64", "debian-6.12-arm64-16k", 4),
    _whole("6.12-arm64-64k", "6.12.117", "arm64", "tiny, 64 KiB pages", 21),
    _whole("6.12-arm64-cloud", "6.12.107+deb13-cloud-arm64", "arm64", "debian-6.12-arm64-cloud", 3),
    _whole("6.12-arm64-deb", "6.12.107+deb13-arm64", "arm64", "debian-6.12-arm64", 7),
    _whole("6.12-arm64-debcloud", "6.12.107+deb13-cloud-arm64", "arm64", "debian-6.12-arm64-cloud", 30),
    _whole("6.12-arm64-defconfig", "6.12.117", "arm64", "defconfig", 39),
    _whole("6.12-arm64-heaps", "6.12.117", "arm64", "tiny+heaps", 1),
    _whole("6.12-armmp-lpae", "6.12.107+deb13-armmp-lpae", "arm", "debian-6.12-armmp-lpae", 7),
    _whole("6.18", "6.18.2", "x86_64", "tiny", 18),
    _whole("7.2", "7.2.13", "x86_64", "tiny", 29),
    _whole("7.2-heaps", "7.2.13", "x86_64", "tiny+heaps", 1),
    _whole("7.2-arm64", "7.2.13", "arm64", "tiny", 19),
)
