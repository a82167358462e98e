"""Inside of a lesson: the directory where it takes place, and what its commands do.

Runs below `cmafs run`, where the machine's files stand at their absolute places. The directory has the
lesson's files, and in ``.lesson`` a copy of the lesson, the values at its start, how many hints were given.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cmafs.cli.map import in_colour
from cmafs.cli.options import CommandFailed, read_given, read_given_text
from cmafs.run.interpreter import own_program

if TYPE_CHECKING:
    from cmafs.board.areas import Area
    from cmafs.board.root import Root
    from cmafs.learn.lesson import Lesson
    from cmafs.learn.state import State

#: Commands of the shell, and what `--do` calls them.
COMMANDS = ("story", "hint", "check", "solution")

_DESK = ".lesson"
_LESSON, _SCRIPT, _START, _HINTS, _BIN = "lesson.toml", "script", "start.json", "hints", "bin"


def read_lesson(name: str, path: Path) -> Lesson:
    """A lesson's file. Raises CommandFailed, with its name."""
    from cmafs.learn.lesson import lesson_from

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return lesson_from(name, tomllib.loads(read_given(str(path)).decode()))
    except RecursionError:
        raise CommandFailed(f"{path}: nested too deeply") from None
    except ValueError as error:  # of its TOML, its encoding, a number without end; BadLesson
        raise CommandFailed(f"{path}: {error}") from None


def furnish(place: Path, source: Path, lesson: Lesson, script: str | None) -> None:
    """Put a lesson's files where it takes place; ``script``: what to run instead of a shell."""
    desk = place / _DESK
    (desk / _BIN).mkdir(parents=True)
    shutil.copy(source, desk / _LESSON)
    (desk / "name").write_text(lesson.name)
    for name, text in lesson.files.items():
        (place / name).write_text(text)
    if script is not None:
        (desk / _SCRIPT).write_text(read_given_text(script))
    for command in COMMANDS:
        file = desk / _BIN / command
        does = own_program("cmafs", "learn", "--inside", str(place), "--do", command)
        file.write_text(f"#!/bin/sh\nexec {shlex.join(does)}\n")
        file.chmod(0o755)


class Classroom:
    """A lesson that takes place: its directory, its machine."""

    def __init__(self, place: Path) -> None:
        from cmafs.board.root import DirectoryRoot

        self.place, self.desk = place, place / _DESK
        self.lesson = read_lesson((self.desk / "name").read_text(), self.desk / _LESSON)
        self.root: Root = DirectoryRoot(os.environ["CMAFS_MOUNT"])
        self.area = self._area()

    def _area(self) -> Area:
        """The area that the lesson is about: the default one as boards call it, else the first."""
        from cmafs.board.areas import is_directory_of, read_areas
        from cmafs.board.root import RootError

        try:
            areas = [area for area in read_areas(self.root) if area.count]
        except (RootError, ValueError) as error:
            raise CommandFailed(f"this machine does not suit the lesson: {error}") from None
        if not areas:
            raise CommandFailed("this machine does not suit the lesson: it has no CMA area")
        names = ("linux,cma", "reserved")
        likely = [area for area in areas if any(is_directory_of(area.name, name) for name in names)]
        return (likely or areas)[0]

    @property
    def directory(self) -> str:
        """The area's, in debugfs."""
        from cmafs.board.areas import PLACES

        return f"/{PLACES[0]}/{self.area.name}"

    def environment(self) -> dict[str, str]:
        """What story and scripts call by short names."""
        path = f"{self.desk / _BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "AREA": self.directory, "SIM": str(Path(self.root.name, "sim")), "PATH": path}

    def prepare(self) -> None:
        """Bring the machine into the state that the lesson begins with, and remember it."""
        directory = Path(self.directory)
        for name in self.lesson.needs:
            if not (directory / name).exists():
                raise CommandFailed(f"this lesson needs {directory / name}, which this machine has not")
        script = ["/bin/sh", "-e", "-c", self.lesson.prepare]
        done = subprocess.run(script, env=self.environment(), cwd=self.place, capture_output=True, text=True)
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise CommandFailed(f"this machine does not suit the lesson: its preparation failed: {line}")
        state = self.state()
        terms = {term for goal in self.lesson.goals for term in goal.start_terms()}
        (self.desk / _START).write_text(json.dumps({term: state.value(term) for term in terms}))

    def state(self) -> State:
        """What the machine is in."""
        from cmafs.learn.state import State

        return State(self.root, self.area.name, self._board)

    def _board(self, file: str, what: str) -> int:
        """A figure of the boot of a .dts in the learner's directory: areas, problems, pages of all areas."""
        from cmafs.check.examine import report_on
        from cmafs.init.options import MachineOptions
        from cmafs.of.base import DtError
        from cmafs.of.fdt import load

        try:
            tree = load(str(self.place / file), ())
            report = report_on(tree, MachineOptions(dts=str(self.place / file), kernel=self._kernel()))
        except (DtError, ValueError):
            return -1
        areas = list(report.areas)
        figures = {
            "areas": len(areas),
            "problems": 0 if report.ok else 1,
            "pages": sum(area.count for area in areas),
        }
        return figures[what]

    def _kernel(self) -> str:
        from cmafs.board.memory import release

        return release(self.root)

    def unreached(self) -> list[str]:
        """What is still to do: a line for each goal that does not hold."""
        from cmafs.board.root import RootError
        from cmafs.learn.goal import BadGoal

        start = json.loads((self.desk / _START).read_text())
        state = self.state()
        try:
            return [goal.not_yet for goal in self.lesson.goals if not goal.holds(state.value, start)]
        except (BadGoal, RootError, KeyError) as error:
            raise CommandFailed(f"goal: {error}") from None

    # what the learner sees

    def told(self, text: str) -> str:
        """A text of the lesson with this machine's picture and names in it."""
        text = text.replace("{area}", self.directory).replace("{name}", self.area.name)
        return text.replace("{map}", self._map()) if "{map}" in text else text

    def _map(self) -> str:
        from cmafs.board.areas import read_areas
        from cmafs.board.extents import read_extents
        from cmafs.board.memory import page_size
        from cmafs.view.picture import pictures_of
        from cmafs.view.text import draw

        areas = [area for area in read_areas(self.root) if area.name == self.area.name]
        size = page_size(self.root, areas)
        pictures = pictures_of([(area, read_extents(self.root, area)) for area in areas], size)
        width = min(shutil.get_terminal_size().columns, 100)
        return "\n".join(draw(pictures, [], size, width, in_colour("auto")))

    def story(self) -> int:
        """Tell what it is about."""
        print(f"\n== {self.lesson.title}\n\n{self.told(self.lesson.story)}\n")
        print("Commands: story, hint, check, solution. exit leaves the lesson; begun again, the")
        print("machine is as it was at first.\n", flush=True)
        return 0

    def hint(self) -> int:
        """One hint more than last time."""
        file = self.desk / _HINTS
        given = len(file.read_text()) if file.exists() else 0
        if given >= len(self.lesson.hints):
            print("There is no further hint; `solution` shows how it can be done.")
            return 1
        file.write_text("." * (given + 1))
        print(textwrap.fill(self.told(self.lesson.hints[given]), 80, break_on_hyphens=False))
        return 0

    def solution(self) -> int:
        """How it can be done."""
        print(self.told(self.lesson.solution))
        return 0

    def check(self) -> int:
        """Whether all goals are reached; 1 if not."""
        todo = self.unreached()
        if todo:
            print(*(f"not yet: {self.told(line)}" for line in todo), sep="\n")
            return 1
        print(f"Done. To remember on a real board:\n\n{self.told(self.lesson.remember)}\n")
        return 0

    def hold(self) -> int:
        """Prepare, let the learner's shell or the teacher's script at it, check."""
        self.prepare()
        script = self.desk / _SCRIPT
        if script.exists():
            subprocess.run(["/bin/sh", str(script)], env=self.environment(), cwd=self.place)
        else:
            self.story()
            shell = os.environ.get("SHELL") or "/bin/sh"
            subprocess.run([shell], env=self.environment(), cwd=self.place)
        return self.check()


def inside(place: Path, do: str) -> int:
    """What `cmafs learn --inside` does: a whole lesson, or one of its commands."""
    room = Classroom(place)
    actions: dict[str, Callable[[], int]] = {name: getattr(room, name) for name in COMMANDS}
    return actions.get(do, room.hold)()
