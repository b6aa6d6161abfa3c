"""A lesson of four exercises that runs in a moment, and students who hand it in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_course.classroom.grading.folder import Grade, Limits, grade
from lora_course.classroom.grading.lessons import Lesson, lesson_of

TEXT = "# A small lesson\n\nAt which rank A and B outgrow W, and what an update shows."
SETUP = "from lora_course import checks\n\nthe_width_of_a_layer = 384"
OPEN = [
    "def break_even_rank(d_in, d_out):\n    ...\n\n\nchecks.check_break_even_rank(break_even_rank)",
    "checks.check_update_shows(...)",
    "qv_count = ...\nchecks.check_qv_count(qv_count)",
    'checks.check_diagnosis({"A": ..., "D": ...})',
]
SOLVED = [
    OPEN[0].replace("...", "return d_in * d_out / (d_in + d_out)"),
    OPEN[1].replace("...", '"b"'),
    OPEN[2].replace("...", "80 * 8 * (8192 + 8192 + 8192 + 1024)"),
    'checks.check_diagnosis({"A": "empty file", "D": "truncated file"})',
]
LIMITS = Limits(seconds=20, memory_gib=1)


def notebook(exercises: Sequence[str], before: Sequence[str] = (SETUP,), tags: Sequence[str] = ()) -> dict[str, Any]:
    """A notebook: a text, cells that are given, and exercises."""
    plain = {"outputs": [], "execution_count": None, "metadata": {}, "cell_type": "code"}
    cells = [{"cell_type": "markdown", "metadata": {}, "source": TEXT}]
    cells += [{**plain, "source": source} for source in before]
    cells += [{**plain, "source": source, "metadata": {"tags": list(tags)}} for source in exercises]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def hand_in(folder: Path, name: str, exercises: Sequence[str] = SOLVED, before: Sequence[str] = (SETUP,)) -> Path:
    """A student's file."""
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(exercises, before)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    """The lesson as it was handed out."""
    path = tmp_path_factory.mktemp("lesson") / "99_small.ipynb"
    path.write_text(json.dumps(notebook(OPEN, tags=["exercise"])), encoding="utf-8")
    return lesson_of(path)


@pytest.fixture
def graded(tmp_path: Path, lesson: Lesson) -> Callable[..., Grade]:
    """`graded(exercises, before=[...])`: what becomes of a student's notebook."""

    def one(exercises: Sequence[str] = SOLVED, before: Sequence[str] = (SETUP,), limits: Limits = LIMITS) -> Grade:
        path = hand_in(tmp_path / "class", "student", exercises, before)
        (row,) = grade(path, limits=limits, known=[lesson])
        return row

    return one
