"""Where kernels come from: the distribution's source packages, and its ready kernel images.

A package is found below any mirror of the distribution by its path; snapshots of the archive keep what
mirrors have dropped. ``CMAFS_ORACLE_MIRROR`` names another mirror; a file of that name that lies in the cache
already is taken as it is, if its sum is right.
"""

from __future__ import annotations

from dataclasses import dataclass

MIRRORS = (
    "http://deb.debian.org/debian/",
    "http://security.debian.org/debian-security/",
    "http://snapshot.debian.org/archive/debian/20261115T000000Z/",
)


@dataclass(frozen=True)
class Package:
    """One .deb: its path below a mirror, and its sum."""

    path: str
    sha256: str

    @property
    def file(self) -> str:
        """Its file name."""
        return self.path.rsplit("/", 1)[1]


#: Row -> source package. What the transcripts of that row were recorded with.
SOURCES = {
    "5.10": Package(
        "pool/main/l/linux/linux-source-5.10_5.10.223-1_all.deb",
        "f733d27d239d65598d96d7a72f71ac50f49f2380192a1b3b4ca2f5ad5144dd63",
    ),
    "6.1": Package(
        "pool/main/l/linux/linux-source-6.1_6.1.192-2_all.deb",
        "ae95fe63d4c553f8d0e6c86cb1ab566f3894a43743eb19ab585cd97d82f26514",
    ),
    "6.12": Package(
        "pool/updates/main/l/linux-6.12/linux-source-6.12_6.12.117-1~deb12u1_all.deb",
        "e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703",
    ),
    "7.2": Package(
        "pool/main/l/linux/linux-source-7.2_7.2.13-1_all.deb",
        "30a8c5fc63f9028a62e6d7b3f7f43bee67425dbce2a05fceba83f9b87c92083d",
    ),
}

#: Name for CONFIG= -> (architecture, image package). Those that transcripts were recorded with.
IMAGES = {
    "debian-6.12-arm64": (
        "arm64",
        Package(
            "pool/main/l/linux-signed-arm64/linux-image-6.12.107+deb13-arm64_6.12.107-1_arm64.deb",
            "20c92f3f97dd466e0400a6fcb792bde85af842fbb5e8b471370065e3de9d9fc9",
        ),
    ),
    "debian-6.12-arm64-cloud": (
        "arm64",
        Package(
            "pool/main/l/linux-signed-arm64/linux-image-6.12.107+deb13-cloud-arm64_6.12.107-1_arm64.deb",
            "a1bbfc22454e984feba6353f957152ef416728b627ec0cf94d3ac04b18c14d84",
        ),
    ),
    "debian-6.12-arm64-16k": (
        "arm64",
        Package(
            "pool/main/l/linux-signed-arm64/linux-image-6.12.107+deb13-arm64-16k_6.12.107-1_arm64.deb",
            "98e22a0bb544857e39c17270dffe398219f278f3ff4424600d12c8656d862397",
        ),
    ),
    "debian-6.1-arm64-cloud": (
        "arm64",
        Package(
            "pool/updates/main/l/linux-signed-arm64/linux-image-6.1.0-50-cloud-arm64_6.1.176-1_arm64.deb",
            "9d41a53f5d687ae1a33cf546d0ed8be955f72e5f9e97b2b4e45e41dff3353b97",
        ),
    ),
    "debian-6.1-armmp": (
        "arm",
        Package(
            "pool/main/l/linux/linux-image-6.1.0-50-armmp_6.1.176-1_armhf.deb",
            "ddd1d8dd0c6beabb9eb96bcfab26549eb30c63331bae31de481ffae4af0e982a",
        ),
    ),
    "debian-6.1-armmp-lpae": (
        "arm",
        Package(
            "pool/main/l/linux/linux-image-6.1.0-50-armmp-lpae_6.1.176-1_armhf.deb",
            "7a1a2b179324d910db6415d67b73c7495a58d239f61103d9cf2b79a11b7ece3e",
        ),
    ),
    "debian-6.12-armmp-lpae": (
        "arm",
        Package(
            "pool/main/l/linux/linux-image-6.12.107+deb13-armmp-lpae_6.12.107-1_armhf.deb",
            "df79d276c587d64332a7aef1d10f53f72d290dc34a39972359f6c1c6919f94b3",
        ),
    ),
    "debian-6.12-amd64-cloud": (
        "x86_64",
        Package(
            "pool/main/l/linux-signed-amd64/linux-image-6.12.107+deb13-cloud-amd64_6.12.107-1_amd64.deb",
            "04434ff520f860423eafe4203d986a35682ce73c2f71baa39e988ca0da93ac91",
        ),
    ),
    "debian-6.1-amd64-cloud": (
        "x86_64",
        Package(
            "pool/updates/main/l/linux-signed-amd64/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb",
            "efe19f605b6f54a8352e68d85a629abb2d30b72a085faef603a9152590baa791",
        ),
    ),
}
