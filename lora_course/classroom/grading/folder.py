"""A class: every notebook of a folder graded, each in a throw-away copy of its own folder, and the table of all."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from lora_course import predictions
from lora_course.classroom.grading import table
from lora_course.classroom.grading.environ import environment
from lora_course.classroom.grading.judge import WORDS
from lora_course.classroom.grading.kernel import Job
from lora_course.classroom.grading.lessons import Exercise, Lesson, cells_of, lessons, recognise
from lora_course.classroom.grading.session import Session
from lora_lab.errors import LabError, NotFound, printable

GIB = 2**30
BESIDE = 100 * 2**20  # bytes of other files that are copied along with a notebook
PASSED_OVER = ("solutions", "runs", ".ipynb_checkpoints", ".jupyter", "__pycache__")
ABSENT = "absent"
NO_MEMORY = "can't allocate memory"  # torch's words


@dataclass(frozen=True)
class Limits:
    """What a notebook may take. `full`: as long as the lesson's own; else FAST=1, an illustration."""

    seconds: float = 300
    memory_gib: float = 4
    full: bool = False


@dataclass
class Grade:
    """One notebook's row. `checks` has one entry for each of the lesson's, whatever the notebook has."""

    file: str
    status: str
    lesson: str = ""
    words: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0
    walls: dict[str, bool] = field(default_factory=dict)
    guesses: list[dict[str, Any]] = field(default_factory=list)
    cell_seconds: list[float] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        """How many of the lesson's checks came out so: right, not right, not yet or absent."""
        return sum(check["verdict"] == verdict for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The row as `lora-lab grade --json` prints it."""
        counts = {word.replace(" ", "_"): self.count(word) for word in (*WORDS.values(), ABSENT)}
        return {"file": self.file, "lesson": self.lesson, "status": self.status, **counts, "of": len(self.checks),
                "words": self.words, "checks": self.checks, "errors": self.errors, "refused": self.refused,
                "seconds": round(self.seconds, 2), "peak_bytes": self.peak_bytes, "walls": self.walls,
                "predictions": self.guesses}  # fmt: skip


def grade(
    path: str | Path, *, limits: Limits = Limits(), jobs: int = 1, known: Sequence[Lesson] | None = None,
    say: Callable[[str], None] = lambda words: None, keep: Callable[[list[Grade]], None] = lambda rows: None,
) -> list[Grade]:  # fmt: skip
    """Grade a notebook, or every one below a folder, each in a fresh process. `known`: other lessons than the lab's.

    After each notebook `say` is given its row in words, and `keep` all rows that there are.
    Raises: NotFound where there is no notebook.
    """
    top = Path(path).resolve()
    notebooks = [top] if top.is_file() else _notebooks(top)
    if not notebooks:
        raise NotFound(f"there is no notebook in {path}: give a file or a folder of .ipynb files")
    root, known = (top.parent if top.is_file() else top), known if known is not None else lessons()
    processes, rows, lock = _processes(), dict[Path, Grade](), threading.Lock()

    def one(notebook: Path) -> Grade:
        row = _graded_or_failed(notebook, root, limits, processes, known)
        with lock:
            rows[notebook] = row
            say(in_words(row))
            keep([rows[other] for other in notebooks if other in rows])
        return row

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, notebooks))


def _notebooks(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*.ipynb") if path.is_file())
    return sorted(path for path in found if not set(path.relative_to(folder).parts[:-1]) & set(PASSED_OVER))


def _graded_or_failed(notebook: Path, root: Path, *how: Any) -> Grade:
    """Its row, whatever happens: the others of its class are graded all the same."""
    try:
        return _graded(notebook, root, *how)
    except Exception as error:
        words = f"the grader stopped with {type(error).__name__}: {error}"
        return Grade(notebook.relative_to(root).as_posix(), "failed", words=words[:300])


def _graded(notebook: Path, root: Path, limits: Limits, processes: int, known: Sequence[Lesson]) -> Grade:
    name = notebook.relative_to(root).as_posix()
    try:
        cells = cells_of(notebook)
    except (LabError, OSError, ValueError) as error:
        return Grade(name, "unreadable", words=str(error)[:300])
    lesson = recognise(notebook.stem, cells, known)
    if lesson is None:
        return Grade(name, "unknown", words="its cells are no lesson's: name its lesson with --lesson")
    with tempfile.TemporaryDirectory(prefix="lora_lab-grade-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch).resolve() / "work"
        _copy(notebook.parent, place)
        code, memory = [cell.source for cell in cells if cell.code], int(limits.memory_gib * GIB)
        job = Job(code, place, root, environment(place, limits.full), memory, limits.seconds, processes)
        job.environment["JPY_SESSION_NAME"] = notebook.name  # as Jupyter does, for the log of predictions
        session, log = Session(job, lesson), place / predictions.FILE
        for line in predictions.lines(log):  # the name that the numbers of its exercises were drawn by
            job.environment["LORA_LAB_STUDENT"] = line["student"]
        handed_in = log.stat().st_size if log.is_file() else 0
        row = _row(name, session.run())
        row.guesses = list(predictions.lines(log, handed_in))[:1000]
    return row


def _copy(folder: Path, place: Path) -> None:
    """The files beside a notebook that it may read, such as data of one's own; no other notebook, no stores of runs."""
    place.mkdir()
    left = BESIDE
    for path in sorted(folder.iterdir()):
        if path.suffix == ".ipynb" or path.name in PASSED_OVER or path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_file() and (size := path.stat().st_size) <= left:
            shutil.copy(path, place)
            left -= size


def _row(name: str, session: Session) -> Grade:
    status, words = session.status, _why(session)
    refused = (one for one in session.errors if one.get("type") == "MemoryError" or NO_MEMORY in str(one.get("words")))
    if status == "ran" and any(refused):
        status, words = "memory", "a cell wanted more memory than it may have; the others ran"
    checks = [_check(exercise, session) for exercise in session.lesson.exercises]
    took = [later - earlier for earlier, later in pairwise(session.began)]
    return Grade(name, status, session.lesson.name, words, checks, session.errors, session.refused,
                 session.seconds, session.peak_bytes, session.walls, cell_seconds=took)  # fmt: skip


def _check(exercise: Exercise, session: Session) -> dict[str, Any]:
    verdict = session.judge.verdicts.get(exercise)
    word = WORDS[verdict.passed] if verdict else ABSENT
    said = verdict.words if verdict else "the notebook did not come to call it"
    calls = session.judge.calls.get(exercise, 0)
    return {"check": exercise.call, "verdict": word, "words": said[:300], "calls": calls}


def _why(session: Session) -> str:
    at = "" if session.at_cell is None else f" in code cell {session.at_cell + 1}"
    return {
        "time": f"ended{at} after {session.job.seconds:g} s",
        "memory": f"ended{at}: it took more than {session.job.memory / GIB:g} GiB",
        "disk": f"ended{at}: it filled the disk",
        "programs": f"ended{at}: it started program after program",
        "left": f"its process ended by itself{at}",
        "garbled": f"ended{at}: it wrote into the judge's line",
    }.get(session.status, "")


def _processes() -> int:
    """Processes and threads that this user may have: those there are, and some more."""
    count = 512
    for process in psutil.process_iter():
        try:
            count += process.num_threads()
        except psutil.Error:
            continue
    return count


def in_words(row: Grade) -> str:
    """A row for a person."""
    counts = f"{row.count('right')} of {len(row.checks)} right" if row.checks else "not graded"
    more = [f"{row.count(word)} {word}" for word in ("not right", "not yet", ABSENT) if row.count(word)]
    notes = [*([row.words] if row.words else []), *row.refused[:1]]
    return printable("; ".join([f"{row.file}: {counts}", *more, f"{row.status}, {row.seconds:.1f} s", *notes]))


def as_csv(rows: Sequence[Grade]) -> str:
    """A line for each notebook: its counts, its fate, then a column for each check that any of the lessons has."""
    columns = list(dict.fromkeys(f"{row.lesson}: {check['check']}" for row in rows for check in row.checks))
    head = ["file", "lesson", "status", "right", "not_right", "not_yet", "absent", "of", "seconds", "peak_mib",
            "errors", "refused", "words"]  # fmt: skip
    return table.as_csv(head + columns, [[*_facts(row), *_verdicts(row, columns)] for row in rows])


def _facts(row: Grade) -> list[Any]:
    errors = [f"cell {e.get('cell', 0) + 1}: {e.get('type')}" for e in row.errors]
    counts = [row.count(word) for word in (*WORDS.values(), ABSENT)]
    return [row.file, row.lesson, row.status, *counts, len(row.checks), f"{row.seconds:.1f}",
            row.peak_bytes // 2**20, "; ".join(errors), "; ".join(row.refused), row.words]  # fmt: skip


def _verdicts(row: Grade, columns: Sequence[str]) -> list[str]:
    found = {f"{row.lesson}: {check['check']}": check["verdict"] for check in row.checks}
    return [found.get(column, "") for column in columns]
