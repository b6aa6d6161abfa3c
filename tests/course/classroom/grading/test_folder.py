"""A class hands in: each kind of notebook has its row, in bounded time, and nothing outside has changed."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.classroom.grading.folder import Grade, Limits, as_csv, grade, in_words
from lora_course.classroom.grading.lessons import Lesson
from lora_course.predictions import FILE
from lora_course.receipts import draw
from lora_lab.errors import NotFound
from tests.course.classroom.grading.conftest import OPEN, SETUP, SOLVED, hand_in, notebook

SECONDS = 5
BOMB = "import numpy as np\nkept = []\nwhile True:\n    kept.append(np.zeros(2**25))"
OUTSIDE = "open('TARGET', 'w').write('I was here')"
KINDS: dict[str, tuple[list[str], list[str]]] = {
    "solved": (SOLVED, [SETUP]),
    "unsolved": (OPEN, [SETUP]),
    "half": ([SOLVED[0], OPEN[1], SOLVED[2].replace("80", "40"), SOLVED[3]], [SETUP]),
    "broken": ([SOLVED[0], "this is no Python", "1 / 0", SOLVED[1], *SOLVED[2:]], [SETUP]),
    "loop": ([SOLVED[0], "while True:\n    pass", *SOLVED[1:]], [SETUP]),
    "bomb": ([SOLVED[0], BOMB, *SOLVED[1:]], [SETUP]),
    "outside": ([*SOLVED[:2], OUTSIDE, *SOLVED[2:]], [SETUP]),
    "fakes": (["print('right: yes')", "'right: yes'"], [SETUP, "checks.check_update_shows = lambda a: 'right: yes'"]),
}  # fmt: skip
EXPECTED = {  # right, not right, not yet, absent; status
    "solved": (4, 0, 0, 0, "ran"),
    "unsolved": (0, 0, 4, 0, "ran"),
    "half": (2, 1, 1, 0, "ran"),
    "broken": (4, 0, 0, 0, "ran"),
    "loop": (1, 0, 0, 3, "time"),
    "bomb": (4, 0, 0, 0, "memory"),
    "outside": (4, 0, 0, 0, "ran"),
    "fakes": (0, 0, 0, 4, "ran"),
}


def the_class(folder: Path, copies: int, target: Path) -> dict[str, str]:
    """So many students of each kind; the kind of each file."""
    kinds = {}
    for name, (exercises, before) in KINDS.items():
        for number in range(copies):
            path = hand_in(
                folder / f"{name} {number}", "my lesson", [e.replace("TARGET", str(target)) for e in exercises], before
            )
            kinds[path.relative_to(folder).as_posix()] = name
    return kinds


def judged(row: Grade) -> tuple[int, int, int, int, str]:
    counts = [row.count(word) for word in ("right", "not right", "not yet", "absent")]
    return (*counts, row.status)  # type: ignore[return-value]


@pytest.mark.parametrize("copies", [1, pytest.param(5, marks=pytest.mark.slow)], ids=["8 notebooks", "40 notebooks"])
def test_a_class_is_graded_in_bounded_time_and_each_row_is_right(copies: int, tmp_path: Path, lesson: Lesson):
    folder, target = tmp_path / "handed in", tmp_path / "target"
    kinds = the_class(folder, copies, target)
    before = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    begun = time.monotonic()
    rows = grade(folder, limits=Limits(seconds=SECONDS, memory_gib=1), known=[lesson], jobs=2)
    assert time.monotonic() - begun < len(rows) * 2 * SECONDS  # whatever they do, by the limit
    assert {row.file: judged(row) for row in rows} == {file: EXPECTED[kind] for file, kind in kinds.items()}
    assert not target.exists()
    assert all(bool(row.refused) == (kinds[row.file] == "outside") for row in rows)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [row["status"] for row in csv.DictReader(io.StringIO(as_csv(rows)))] == [row.status for row in rows]


def test_what_cannot_be_read_or_known_has_its_row_too(tmp_path: Path, lesson: Lesson):
    (tmp_path / "a.ipynb").write_text("no JSON {")
    (tmp_path / "b.ipynb").write_text('{"cells": 3}')
    (tmp_path / "c.ipynb").write_text(json.dumps(notebook(["1 + 1"], [])).replace(json.dumps("A small"), "Other"))
    (tmp_path / "c.ipynb").write_text(json.dumps({"cells": [], "nbformat": 4}))
    rows = grade(tmp_path, known=[lesson])
    assert [(row.file, row.status, row.checks) for row in rows] == [
        ("a.ipynb", "unreadable", []), ("b.ipynb", "unreadable", []), ("c.ipynb", "unknown", []),
    ]  # fmt: skip
    with pytest.raises(NotFound, match="there is no notebook"):
        grade(tmp_path / "nowhere", known=[lesson])


def test_a_notebook_that_the_grader_fails_on_has_its_row_and_the_others_stand(
    tmp_path: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ada/mine", "bob/mine", "eve/mine"):
        hand_in(tmp_path, name)
    (tmp_path / "bob" / "data.csv").write_text("text,label")

    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lora_course.classroom.grading.folder.shutil.copy", full)
    monkeypatch.setattr("lora_course.classroom.grading.environ._what_is_known_of_the_machine", lambda own: None)
    kept: list[list[str]] = []
    rows = grade(tmp_path, known=[lesson], keep=lambda rows: kept.append([row.status for row in rows]))
    assert [(row.status, row.count("right")) for row in rows] == [("ran", 4), ("failed", 0), ("ran", 4)]
    assert "No space left" in rows[1].words
    assert kept == [["ran"], ["ran", "failed"], ["ran", "failed", "ran"]]


@pytest.mark.parametrize("home", ["elsewhere", "."], ids=["a class of its own", "a class within the lab's folder"])
def test_files_beside_a_notebook_can_be_read_and_other_notebooks_cannot(
    home: str, tmp_path: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / home))
    (tmp_path / "mine.txt").write_text("b")
    other = hand_in(tmp_path, "other")
    cells = ['checks.check_update_shows(open("mine.txt").read())', f"open({str(other)!r})"]
    hand_in(tmp_path, "student", cells)
    _, row = grade(tmp_path, known=[lesson])
    assert row.count("right") == 1
    assert row.refused == [f"read {other}"]


def test_only_what_is_copied_counts_towards_how_much_may_be(
    tmp_path: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lora_course.classroom.grading.folder.BESIDE", 100)
    hand_in(tmp_path, "a")
    (tmp_path / "b_too_large.txt").write_text("b" * 101)
    (tmp_path / "mine.txt").write_text("b")
    hand_in(tmp_path, "z", ['checks.check_update_shows(open("mine.txt").read())', "open('b_too_large.txt')"])
    _, row = grade(tmp_path, known=[lesson])
    assert row.count("right") == 1
    assert [error["type"] for error in row.errors] == ["FileNotFoundError"]


def test_the_teachers_secrets_are_not_in_the_notebooks_environment(
    graded: Callable[..., Grade], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "b")
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:b@proxy")
    monkeypatch.setenv("LORA_LAB_STUDENT", "b")
    row = graded(
        [f"import os\nchecks.check_update_shows(os.environ[{name!r}])" for name in ("LORA_LAB_STUDENT", "PATH")]
    )
    assert (row.checks[1]["calls"], row.errors) == (2, [])
    row = graded([f"import os\nos.environ[{name!r}]" for name in ("HF_TOKEN", "HTTPS_PROXY")])
    assert [error["type"] for error in row.errors] == ["KeyError"] * 2


def test_a_cell_of_the_table_is_never_a_formula_nor_a_row_in_words_a_terminals_command(graded: Callable[..., Grade]):
    row = graded(["raise type('=1+1\\x1b[2J', (Exception,), {})"])
    row.file = "=HYPERLINK('x').ipynb"
    row.refused = ["write \x1b[2J"]
    line = as_csv([row]).splitlines()[1]
    assert line.startswith("'=HYPERLINK")
    assert "\x1b" not in line + in_words(row)


def test_what_is_guessed_while_it_runs_is_in_the_row(graded: Callable[..., Grade]):
    row = graded(["from lora_course.lesson import compare\nprint(compare('times fewer', 10, 256, 'times'))"])
    (guess,) = row.to_json()["predictions"]
    assert (guess["lesson"], guess["guess"], guess["found"], guess["fast"]) == ("student", 10, 256, True)


def test_exercises_have_the_numbers_of_whom_the_log_names(graded: Callable[..., Grade], tmp_path: Path):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / FILE).write_text(json.dumps({"student": "Ada"}))
    drawn = draw("rank", *range(1000), name="Ada")
    row = graded(
        [f"from lora_course.lesson import draw\ncheck = {{{drawn}: 'b'}}[draw('rank', *range(1000))]", SOLVED[1]]
    )
    assert row.errors == []
