"""Which lesson a notebook is, by its content, and which checks that lesson has, by the lesson's own notebook."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lora_course import checks
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

LARGEST = 64 * 2**20
"""Bytes of a notebook."""
ALIKE = 0.2  # of a lesson's cells and checks together, 0 to 2
ANYTHING = object()  # stands in a lesson's call for what the student fills in, or has computed


class Cell(NamedTuple):
    """A cell of a notebook."""

    source: str
    code: bool
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exercise:
    """One call of a check in a lesson: `check_turned("4", "true", ...)`."""

    check: str
    call: str
    open: bool  # the answer is written into the call itself, so it cannot be asked for in the student's place

    @cached_property
    def given(self) -> inspect.BoundArguments:
        """What the lesson wrote, by the check's own names; `ANYTHING` where the student writes."""
        call = ast.parse(self.call, mode="eval").body
        assert isinstance(call, ast.Call)
        signature, fixed = _signature(self.check), [*map(_template, call.args)]
        by_name = {word.arg: _template(word.value) for word in call.keywords if word.arg}
        if len(by_name) < len(call.keywords):  # **choice: whatever else the check needs
            left = [*signature.parameters.values()][len(fixed) :]
            by_name = dict.fromkeys((one.name for one in left if one.default is one.empty), ANYTHING) | by_name
        return signature.bind(*fixed, **by_name)

    def is_asked_by(self, check: str, arguments: Sequence[Any], by_name: Mapping[str, Any]) -> bool:
        """Whether a student's call is this one: the same check, and whatever the lesson fixed is as it was."""
        if check != self.check:
            return False
        try:
            given = _signature(check).bind(*arguments, **by_name).arguments
        except TypeError:
            return False
        wanted = self.given.arguments
        return given.keys() == wanted.keys() and all(_fits(given[name], wanted[name]) for name in given)


@dataclass(frozen=True)
class Lesson:
    """A lesson as it ships: its name, its cells (to know it again) and its exercises."""

    name: str
    cells: frozenset[str]
    exercises: tuple[Exercise, ...]

    def likeness(self, cells: frozenset[str], called: set[str]) -> float:
        """Share of the lesson's cells that stand in a notebook, and share of its checks; 0 to 2."""
        names = {exercise.check for exercise in self.exercises}
        return len(self.cells & cells) / max(1, len(self.cells)) + len(names & called) / max(1, len(names))


def lessons(folder: Path | None = None) -> list[Lesson]:
    """The lessons of a folder of notebooks, the lab's own when left out."""
    return [lesson_of(path) for path in sorted((folder or shipped("notebooks")).glob("*.ipynb"))]


def lesson_of(path: Path) -> Lesson:
    """A notebook as a lesson: its exercises are the checks of the cells tagged `exercise`, or of all if none is."""
    cells = cells_of(path)
    tagged = [cell for cell in cells if "exercise" in cell.tags]
    rest = [cell for cell in cells if "exercise" not in cell.tags]
    exercises = tuple(_exercise(call) for cell in tagged or cells for call in _calls(cell))
    return Lesson(path.stem, _kept(rest), exercises)


def cells_of(path: Path) -> list[Cell]:
    """The cells of a notebook.

    Raises: NotFound; BadValue for what is no notebook, or one of more than 64 MiB.
    """
    if not path.is_file():
        raise NotFound(f"there is no notebook {path}: give the path of an .ipynb file")
    if path.stat().st_size > LARGEST:
        raise BadValue(f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB: clear its outputs and try again")
    try:
        cells = read_json(path)["cells"]
        return [_cell(cell) for cell in cells]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{path.name} is no notebook of version 4 (its cells are missing or damaged)") from error


def recognise(name: str, cells: Sequence[Cell], known: Sequence[Lesson]) -> Lesson | None:
    """The lesson that a notebook is: by its cells and checks, and where those tell nothing by its file's name."""
    kept, called = _kept(cells), {_name(call) for cell in cells for call in _calls(cell)}
    best = max(known, key=lambda lesson: lesson.likeness(kept, called), default=None)
    if best and best.likeness(kept, called) >= ALIKE:
        return best
    return next((lesson for lesson in known if lesson.name in name), None)


def _cell(cell: Mapping[str, Any]) -> Cell:
    source, tags = cell["source"], cell.get("metadata", {}).get("tags", [])
    text = source if isinstance(source, str) else "".join(source)
    return Cell(text, cell["cell_type"] == "code", tuple(map(str, tags)))


def _kept(cells: Iterable[Cell]) -> frozenset[str]:
    """Sources as they are compared: without spaces, and those of a few letters not at all."""
    return frozenset(short for cell in cells if len(short := "".join(cell.source.split())) >= 30)


def _calls(cell: Cell) -> list[ast.Call]:
    """Calls of checks in a cell; lines of magic are passed over, and a cell that is no Python has none."""
    if not cell.code:
        return []
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.splitlines()]
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node).startswith("check_")]


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _exercise(call: ast.Call) -> Exercise:
    open_ = any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(call))
    return Exercise(_name(call), ast.unparse(call), open_)


def _signature(check: str) -> inspect.Signature:
    function = getattr(checks, check, None)
    if function is None:
        raise BadValue(f"there is no check {check} in this version of the lab: update the lab or the lesson")
    return inspect.signature(function)


def _template(node: ast.expr) -> Any:
    """What a lesson's argument fixes: constants and the keys of a dict; all else may be anything."""
    if isinstance(node, ast.Constant) and node.value is not ...:
        return node.value
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return dict(zip(keys, map(_template, node.values), strict=True)) if keys else ANYTHING
    return ANYTHING


def _fits(given: Any, wanted: Any) -> bool:
    if wanted is ANYTHING:
        return True
    if isinstance(wanted, tuple):  # what *arguments collect
        return isinstance(given, tuple) and len(given) == len(wanted) and all(map(_fits, given, wanted))
    if isinstance(wanted, dict):
        return isinstance(given, dict) and given.keys() == wanted.keys()
    return type(given) is type(wanted) and given == wanted
