"""sys/firmware/devicetree/base and proc/device-tree without a mount.

Modules: cmafs.fs.devicetree.
"""

from __future__ import annotations

import errno

import pytest
from boot_support import boot, tree_of

from cmafs.fs.namei import O_RDONLY, O_WRONLY, Syscalls
from cmafs.fs.tree import build_tree
from cmafs.of.base import DeviceNode, DeviceTree

BASE = "/sys/firmware/devicetree/base"
POOL = """cam@50000000 { compatible = "shared-dma-pool"; reusable; reg = <0x0 0x50000000 0x0 0x1000000>; };"""


def tree_files(tree: DeviceTree) -> Syscalls:
    return Syscalls(build_tree(boot(tree)))


@pytest.fixture
def calls() -> Syscalls:
    return tree_files(tree_of(POOL))


def test_every_node_and_property(calls: Syscalls) -> None:
    tree = tree_of(POOL)

    def check(node: DeviceNode, path: str) -> None:
        assert set(calls.listdir(path)) == {*node.props, "name", *node.children}
        for name, value in node.props.items():
            assert calls.read_file(f"{path}/{name}") == value
            assert calls.lstat(f"{path}/{name}").st_size == len(value)
        for name, child in node.children.items():
            check(child, f"{path}/{name}")

    check(tree.root, BASE)


def test_the_name_that_the_kernel_adds(calls: Syscalls) -> None:
    assert calls.read_file(f"{BASE}/reserved-memory/cam@50000000/name") == b"cam\0"
    assert calls.read_file(f"{BASE}/name") == b"\0"


def test_link_from_proc(calls: Syscalls) -> None:
    assert calls.readlink("/proc/device-tree") == "../sys/firmware/devicetree/base"
    assert calls.lstat("/proc/device-tree").st_mode == 0o120777
    assert calls.lstat("/proc/device-tree").st_size == len("../sys/firmware/devicetree/base")
    assert calls.read_file("/proc/device-tree/reserved-memory/cam@50000000/reg").hex() == (
        "00000000500000000000000001000000"
    )


def test_modes_and_writes(calls: Syscalls) -> None:
    assert calls.lstat(BASE).st_mode == 0o040755
    assert calls.lstat(f"{BASE}/#address-cells").st_mode == 0o100444
    with pytest.raises(OSError) as error:
        calls.open(f"{BASE}/#address-cells", O_WRONLY)
    assert error.value.errno == errno.EACCES
    fd = calls.open(f"{BASE}/#address-cells", O_RDONLY)
    assert calls.pread(fd, 10, 2) == b"\0\2"
    assert calls.pread(fd, 10, 4) == b""


def test_secrets_and_names_used_twice() -> None:
    tree = tree_of()
    root = tree.root
    root.props["security-key"] = b"secret"
    root.props["twice"] = b"a"
    root.props["name"] = b"own\0"
    root.props["twice#1"] = b"b"
    root.props["a/b"] = b"c"
    root.children["twice"] = DeviceNode("twice", parent=root)
    files = tree_files(tree)
    secret = files.lstat(f"{BASE}/security-key")
    assert (secret.st_mode, secret.st_size) == (0o100400, 0)
    assert files.read_file(f"{BASE}/security-key") == b"secret"
    assert files.read_file(f"{BASE}/twice") == b"a"
    assert files.read_file(f"{BASE}/twice#1") == b"b"
    assert files.listdir(f"{BASE}/twice#2") == ["name"]
    assert files.read_file(f"{BASE}/a!b") == b"c"
    assert files.read_file(f"{BASE}/name") == b"own\0"


def test_a_deep_tree() -> None:
    tree = tree_of()
    node = tree.root
    for depth in range(1500):
        node.children["n"] = child = DeviceNode("n", {"depth": depth.to_bytes(4, "big")}, parent=node)
        node = child
    files = tree_files(tree)
    assert files.read_file(BASE + "/n" * 1500 + "/depth") == (1499).to_bytes(4, "big")
