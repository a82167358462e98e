"""Kernels as distributions ship them: what their images have otherwise than the rows of ``abi.boot_arch``.

Those figures depend on everything that is configured, so they are known of recorded kernels alone (T): from
the ``Memory:`` line, from /proc/iomem, and from what ``memblock=debug`` says of the same packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Image:
    """One kernel: its row and architecture, how its release ends, and fields of ``ArchAbi``."""

    row: str
    arch: str
    release: str
    figures: Mapping[str, Any]


def _sizes(*kib: int) -> Mapping[str, Any]:
    """An image of which no more is known than the ``Memory:`` line says."""
    return {"kernel_sizes_kib": kib}


#: By the name of their configuration (``abi.config_sets.DISTRIBUTIONS``).
IMAGES: Mapping[str, Image] = {
    "debian-5.10-armmp": Image("5.10", "arm", "-armmp", _sizes(11264, 1667, 3212, 2048, 333)),
    "debian-6.1-armmp": Image("6.1", "arm", "-armmp", _sizes(11264, 1700, 3732, 2048, 377)),
    "debian-6.1-armmp-lpae": Image("6.1", "arm", "-armmp-lpae", _sizes(12288, 1716, 3752, 2048, 384)),
    "debian-6.12-armmp-lpae": Image("6.12", "arm", "-armmp-lpae", _sizes(14336, 1817, 4228, 2048, 431)),
    "debian-6.1-amd64-cloud": Image("6.1", "x86_64", "-cloud-amd64", _sizes(14343, 2327, 8332, 2600, 5456)),
    "debian-6.12-amd64-cloud": Image(
        "6.12", "x86_64", "-cloud-amd64", _sizes(16384, 2506, 11008, 3940, 5280)
    ),
    "debian-6.1-arm64-cloud": Image(
        "6.1",
        "arm64",
        "-cloud-arm64",
        {
            **_sizes(12032, 2020, 7808, 4608, 587),
            "image": ((0x10000, 0x1A8D000), (0x1A92000, 0x1AA0000)),
            "page_tables_full": 4,
            "pgdat_bytes": 0x2C80,
        },
    ),
    "debian-6.12-arm64-cloud": Image(
        "6.12",
        "arm64",
        "-cloud-arm64",
        {
            **_sizes(14272, 2772, 10760, 2176, 906),
            "image": ((0, 0x1E70000),),
            "pgdat_bytes": 0x3740,
        },
    ),
    "debian-6.12-arm64": Image(
        "6.12",
        "arm64",
        "-arm64",
        {
            **_sizes(15680, 3816, 13980, 3136, 938),
            "image": ((0, 0x24F0000),),
            "pgdat_bytes": 0x3740,  # the cloud kernel's (D)
        },
    ),
    "debian-6.12-arm64-16k": Image(
        "6.12",
        "arm64",
        "-arm64-16k",
        {
            **_sizes(15744, 3838, 14096, 3392, 1038),
            "image": ((0, 0x25A0000),),
            "pgdat_bytes": 0x3880,
        },
    ),
}


def image_figures(config: Iterable[str], arch: str, row: str, release: str) -> Mapping[str, Any]:
    """Figures of the kernel that a named configuration or a release means, none if it is not known."""
    named = [IMAGES[name] for name in config if name in IMAGES]
    shipped = (image for image in IMAGES.values() if release.endswith(image.release))
    for image in (*named, *sorted(shipped, key=lambda image: -len(image.release))):
        if (image.row, image.arch) == (row, arch):
            return image.figures
    return {}
