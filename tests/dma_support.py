"""Shared by the tests of drivers: machines booted in process, on a tree given as text."""

from __future__ import annotations

from pathlib import Path

from cmafs.drivers.device import Device
from cmafs.drivers.dma.mapping import find_device, probe
from cmafs.init.machine import BootedMachine
from cmafs.init.main import start_kernel
from cmafs.init.options import MachineOptions
from cmafs.lib.clock import ManualClock
from cmafs.mm.cma import Cma
from cmafs.of.fdt import load

M = 1 << 20
PAGE = 4096

TREE = """/dts-v1/;
/ {{
	#address-cells = <2>;
	#size-cells = <2>;
	memory@40000000 {{ device_type = "memory"; reg = <0 0x40000000 0 0x40000000>; }};
	reserved-memory {{
		#address-cells = <2>;
		#size-cells = <2>;
		ranges;
		own: own@50000000 {{ {pool} reusable; reg = <0 0x50000000 0 0x2000000>; }};
		second: second@60000000 {{ {pool} reusable; reg = <0 0x60000000 0 0x400000>; }};
		coherent: coherent@70000000 {{ {pool} no-map; reg = <0 0x70000000 0 0x100000>; }};
		plain: plain@71000000 {{ reg = <0 0x71000000 0 0x100000>; }};
		off: off@72000000 {{ {pool} reusable; status = "disabled"; reg = <0 0x72000000 0 0x400000>; }};
	}};
	soc@0 {{
		compatible = "simple-bus";
		#address-cells = <1>;
		#size-cells = <1>;
		ranges = <0x0 0x0 0x0 0x40000000>;
		{extra}
	}};
}};
"""

DEVICES = """
		camera@1000 { compatible = "x,camera"; reg = <0x1000 0x100>; memory-region = <&own>; };
		codec@2000 { compatible = "x,codec"; reg = <0x2000 0x100>; memory-region = <&own>, <&second>; };
		dsp@3000 { compatible = "x,dsp"; reg = <0x3000 0x100>; memory-region = <&coherent>; };
		dsp@3100 { compatible = "x,dsp"; reg = <0x3100 0x100>; memory-region = <&coherent>; };
		bad@4000 { compatible = "x,bad"; reg = <0x4000 0x100>; memory-region = <&plain>; };
		lost@5000 { compatible = "x,lost"; reg = <0x5000 0x100>; memory-region = <99>; };
		idle@6000 { compatible = "x,idle"; reg = <0x6000 0x100>; memory-region = <&off>; };
		plain@7000 { compatible = "x,plain"; reg = <0x7000 0x100>; };
		cached@8000 { compatible = "x,cached"; reg = <0x8000 0x100>; dma-coherent; };
		absent@9000 { compatible = "x,absent"; reg = <0x9000 0x100>; status = "disabled"; };
		nameless { compatible = "x,nameless"; };
"""


def write_tree(path: Path, extra: str = DEVICES) -> str:
    """A tree with areas of all kinds and these devices; its path."""
    file = path / "machine.dts"
    file.write_text(TREE.format(pool='compatible = "shared-dma-pool";', extra=extra))
    return str(file)


def boot(
    dts: str,
    kernel: str = "6.12",
    cmdline: str | None = "cma=16M",
    arch: str | None = None,
    config: tuple[str, ...] = (),
) -> BootedMachine:
    """A machine with a manual clock."""
    options = MachineOptions(kernel=kernel, arch=arch, cmdline=cmdline, config=("tiny", *config))
    return start_kernel(load(dts, ()), options, ManualClock())


def device(machine: BootedMachine, name: str) -> Device:
    """A device whose driver has probed."""
    found = find_device(machine, name)
    probe(found)
    return found


def area_of(machine: BootedMachine, name: str) -> Cma:
    """The area of that name."""
    return next(cma for cma in machine.cma if cma.name == name)


def used(machine: BootedMachine, name: str) -> int:
    """Used pages of an area."""
    return area_of(machine, name).used()
