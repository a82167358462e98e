"""`cmafs mount` and `cmafs umount`."""

from __future__ import annotations

import argparse

from cmafs.cli.options import Commands, boot_from

_MOUNT_EXAMPLES = """\
examples:
  cmafs mount /mnt/m                                   the bundled board virt, kernel 6.12
  cmafs mount --dts board.dts --kernel 5.10 /mnt/m
  cmafs mount --cmdline cma=64M -o allow_other /mnt/m
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `mount` and `umount` to the parser."""
    mount = commands.add_parser(
        "mount",
        parents=[machine],
        help="boot a machine and mount it",
        description="Boot a machine and mount its tree. Returns once the tree answers.",
        epilog=_MOUNT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = mount.add_argument
    add("--foreground", action="store_true", help="serve from this process, until the end")
    add("-o", metavar="OPTION[,…]", action="append", default=[], dest="options", help="option for FUSE")
    add("mountpoint", metavar="MOUNTPOINT", help="an empty directory")
    mount.set_defaults(main=mount_main)
    umount = commands.add_parser(
        "umount",
        help="end a mounted machine",
        description="Unmount a machine and wait for its server to end. Also clears the mount that a killed\n"
        "server left behind.",
        epilog="examples:\n  cmafs umount /mnt/m\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    umount.add_argument("-l", "--lazy", action="store_true", help="even if it is in use")
    umount.add_argument("mountpoint", metavar="MOUNTPOINT", help="where it is mounted")
    umount.set_defaults(main=umount_main)


def mount_main(args: argparse.Namespace) -> int:
    """Boot, then serve from the background or, with ``--foreground``, from here. Raises Failed."""
    from cmafs.mount import server

    options = server.parse_options(args.options)
    server.check(args.mountpoint, options)
    show = server.serve if args.foreground else server.spawn
    show(boot_from(args), args.mountpoint, options, log=args.log)
    return 0


def umount_main(args: argparse.Namespace) -> int:
    """Unmount. Raises MountFailed."""
    from cmafs.mount.mounts import unmount

    unmount(args.mountpoint, args.lazy)
    return 0
