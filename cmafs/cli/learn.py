"""`cmafs learn`: lessons in the shell, each on a machine of its own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmafs.cli.options import CommandFailed, Commands, read_given_text, write_whole

if TYPE_CHECKING:
    from cmafs.learn.lesson import Lesson
    from cmafs.learn.progress import Progress

LESSONS = Path(__file__).resolve().parent.parent / "learn" / "lessons"

_DESCRIPTION = """\
Learn what CMA is and does, in your own shell, on simulated machines: a story, a machine in a certain state,
and something to bring about. What counts is the state of the machine, not how you got there. In a lesson's
shell:

  story      tell it again             check      am I done?
  hint       one more hint             solution   how it can be done

Without LESSON goes on where you were. Options of a machine replace those of the lesson, so that most lessons
can be taken on any board and kernel. What is done is kept below $XDG_STATE_HOME.

Exit status: 0 the lesson is done; 1 it is not; 2 it could not be begun.
"""
_EXAMPLES = """\
examples:
  cmafs learn
  cmafs learn --list
  cmafs learn fragmentation --kernel 5.10
  cmafs learn exhaust --check answer.sh     # for teachers: does this script solve it?
"""


def add_parser(commands: Commands, machine: argparse.ArgumentParser) -> None:
    """Add `learn` to the parser."""
    parser = commands.add_parser(
        "learn",
        parents=[machine],
        help="lessons in the shell: what CMA is, and what to do when it fails",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("lesson", metavar="LESSON", nargs="?", help="its name, a part of it, or its number; or a .toml file")
    add("--list", action="store_true", help="all lessons, and which are done")
    add("--resume", action="store_true", help="go on with the lesson begun last (as without LESSON)")
    add(
        "--check",
        metavar="SCRIPT",
        help="run SCRIPT instead of a shell (- for standard input); keep no progress",
    )
    add("--lessons", metavar="DIR", type=Path, help="lessons of your own, besides those that come with cmafs")
    add("--inside", metavar="DIR", type=Path, help=argparse.SUPPRESS)
    add("--do", default="lesson", help=argparse.SUPPRESS)
    parser.set_defaults(main=run_learn, failure=2, explain=False)


def run_learn(args: argparse.Namespace) -> int:
    """List, or hold one lesson; its status."""
    from cmafs.cli.classroom import inside, read_lesson

    if args.inside:
        return inside(args.inside, args.do)
    lessons = _lessons(args.lessons)
    progress = _load()
    if args.list:
        for number, (name, path) in enumerate(lessons.items(), 1):
            lesson = read_lesson(name, path)
            print(f"{number:2} {'done' if name in progress.done else '    '}  {name:22} {lesson.about}")
        return 0
    name, path = _chosen(args.lesson, lessons, progress)
    lesson = read_lesson(name, path)
    if args.check is None:
        progress.last = name
        _save(progress)
    status = _hold(args, lesson, path)
    if args.check is None and status == 0:
        progress.done = [*(one for one in progress.done if one != name), name]
        _save(progress)
        following = progress.next_of(list(lessons))
        print(f"next: cmafs learn {following}" if following else "All lessons are done.")
    return status


def _lessons(own: Path | None) -> dict[str, Path]:
    """Name -> file, in the order of the files' names; a number before a name is for the order only."""
    if own is not None and not own.is_dir():
        raise CommandFailed(f"--lessons: {own}: no such directory")
    files = [path for place in (LESSONS, own) if place for path in sorted(place.glob("*.toml"))]
    return {path.stem.lstrip("0123456789-"): path for path in files}


def _chosen(wanted: str | None, lessons: dict[str, Path], progress: Progress) -> tuple[str, Path]:
    names = list(lessons)
    if wanted is None:
        name = progress.next_of(names)
        if name is None:
            raise CommandFailed("all lessons are done; `cmafs learn --list` names them", 0)
        return name, lessons[name]
    if wanted.endswith(".toml"):
        return Path(wanted).stem.lstrip("0123456789-"), Path(wanted)
    by_number = [name for number, name in enumerate(names, 1) if str(number) == wanted]
    found = by_number or [name for name in names if name == wanted] or [n for n in names if wanted in n]
    if len(found) != 1:
        which = f"{', '.join(found)}?" if found else "`cmafs learn --list` names them"
        raise CommandFailed(f"no lesson '{wanted}': {which}")
    return found[0], lessons[found[0]]


def _state_file() -> Path:
    place = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(place) / "cmafs" / "learn.json"


def _load() -> Progress:
    from cmafs.learn.progress import BadProgress, Progress

    file = _state_file()
    if not file.exists():
        return Progress()
    try:
        return Progress.parse(read_given_text(str(file)))
    except BadProgress as error:
        raise CommandFailed(f"{file}: {error}") from None


def _save(progress: Progress) -> None:
    """Whole or not at all."""
    file = _state_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(str(file), progress.dump().encode())
    except (OSError, CommandFailed) as error:
        why = str(error).removeprefix(f"{file}: ") if isinstance(error, CommandFailed) else error.strerror
        print(f"cmafs: {file}: progress cannot be kept: {why}", file=sys.stderr)


def _hold(args: argparse.Namespace, lesson: Lesson, path: Path) -> int:
    """Boot the lesson's machine and let the learner, or the teacher's script, at it."""
    import tempfile

    from cmafs.cli.classroom import furnish
    from cmafs.cli.run import run_on
    from cmafs.init.options import BadOption, MachineOptions
    from cmafs.run.interpreter import own_program

    try:
        MachineOptions.named(**lesson.machine)
    except BadOption as error:
        raise CommandFailed(f"{path}: machine: {error}") from None
    for option, value in lesson.machine.items():
        if args.load is None and getattr(args, option) in (None, [], False):
            setattr(args, option, value)
    with tempfile.TemporaryDirectory(prefix="cmafs-learn-") as place:
        furnish(Path(place), path, lesson, args.check)
        args.command = own_program("cmafs", "learn", "--inside", place)
        status = run_on(args, args.kernel, args.command)
    return status if status in (0, 1) else 2
