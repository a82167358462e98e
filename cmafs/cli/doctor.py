"""`cmafs doctor`: whether this host can mount and run machines."""

from __future__ import annotations

import argparse

from cmafs.cli.options import Commands

_DESCRIPTION = """\
Print one line for each thing that cmafs needs of this host: ok, or which setting or package is missing, and
the command that puts it right. A mount is tried in a user namespace; nothing on the host is changed.

Exit status: 0 all is well, 1 something is missing.
"""
_EXAMPLES = """\
examples:
  cmafs doctor
  cmafs doctor || exit 1    # first step of a CI job
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `doctor` to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="check whether this host can mount and run machines",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the findings; 1 if anything is missing."""
    from cmafs.run.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.problem for finding in findings) else 0
