"""Which architecture a tree's machine has: the first cpu node's ``compatible`` decides.

The strings are those of Documentation/devicetree/bindings/arm/cpus.yaml@v6.12 and, for x86, of
Documentation/devicetree/bindings/x86/.
"""

from __future__ import annotations

import re

from cmafs.of.base import DeviceNode, DeviceTree

DEFAULT_ARCH = "arm64"

#: Tried in this order; cores whose family name alone does not tell come first.
_CORES = (
    ("arm", re.compile(r"arm,cortex-(a(5|7|8|9|12|15|17|32)|m\d+.*|r[4578]f?)$")),
    ("arm", re.compile(r"arm,(arm\d|armv[4-7]|sc\d)")),
    ("arm", re.compile(r"qcom,(krait|scorpion)|brcm,brahma-b15|faraday,fa526|intel,(sa1100|xscale)")),
    ("arm", re.compile(r"marvell,(pj4|sheeva|feroceon|mohawk|xsc3|88sv)")),
    ("arm64", re.compile(r"arm,(cortex-|neoverse-|armv[89]|foundation-aarch64|rainier|c1-)")),
    ("arm64", re.compile(r"(apple|apm|cavium|fujitsu|hisilicon|nvidia|phytium|qcom|ampere),")),
    ("arm64", re.compile(r"brcm,(brahma-b53|vulcan)|samsung,mongoose")),
    ("x86_64", re.compile(r"(intel|amd|via|centaur),|x86|i[3-6]86")),
)


def cpu_arch(compatible: str) -> str | None:
    """``arm``, ``arm64`` or ``x86_64`` for one cpu compatible; None if it is no core of theirs."""
    text = compatible.lower()
    return next((arch for arch, pattern in _CORES if pattern.match(text)), None)


def cpu_nodes(tree: DeviceTree) -> list[DeviceNode]:
    """The children of /cpus that are a cpu by their device_type or their name."""
    cpus = tree.root.children.get("cpus")
    return [
        node
        for node in (cpus.children.values() if cpus else ())
        if node.property_read_string("device_type") == "cpu" or node.name.split("@")[0] == "cpu"
    ]


def machine_arch(tree: DeviceTree) -> tuple[str, str]:
    """The architecture (``arm``, ``arm64``, ``x86_64``) and why, in words for the user."""
    cpus = cpu_nodes(tree)
    if not cpus:
        return DEFAULT_ARCH, "the tree has no cpu node"
    node = cpus[0]
    names = node.property_read_strings("compatible")
    for name in names:
        if arch := cpu_arch(name):
            return arch, f"{node.path} is {name}"
    return (
        DEFAULT_ARCH,
        f"{node.path} is {', '.join(names) or 'without compatible'}, which names none of ours",
    )
