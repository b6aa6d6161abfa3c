"""A notebook is known by what stands in it; a lesson's checks are those of the lesson."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_course.classroom.grading.lessons import Cell, Lesson, cells_of, lesson_of, lessons, recognise
from lora_lab.training.assets import shipped
from tests.course.classroom.grading.conftest import OPEN

KNOWN = lessons()


@pytest.mark.parametrize("lesson", KNOWN, ids=lambda lesson: lesson.name)
def test_a_lesson_is_known_by_its_cells_alone_and_solved_too(lesson: Lesson):
    for folder in ("", "solutions/"):
        cells = cells_of(shipped(f"notebooks/{folder}{lesson.name}.ipynb"))
        assert recognise("untitled", cells, KNOWN) is lesson
        half = [cell for number, cell in enumerate(cells) if number % 2]
        assert recognise("untitled", half, KNOWN) is lesson


@pytest.mark.parametrize("lesson", KNOWN, ids=lambda lesson: lesson.name)
def test_every_exercise_of_a_lesson_is_solved_by_a_call_of_its_solution(lesson: Lesson):
    """The solution asks the same checks about the same things: else no student could be graded right."""
    solved = lesson_of(shipped(f"notebooks/solutions/{lesson.name}.ipynb"))
    assert lesson.exercises
    for exercise in lesson.exercises:
        fitting = [o for o in solved.exercises if exercise.is_asked_by(o.check, o.given.args, o.given.kwargs)]
        assert len(fitting) == 1, exercise


def test_what_is_no_lesson_is_not_taken_for_one():
    cells = [Cell("import numpy as np\nprint(np.linspace(0, 1, 100).sum())", True), Cell("# My notes on LoRA", False)]
    assert recognise("notes", cells, KNOWN) is None
    assert recognise("my old_13_inside_delta_w (1)", cells, KNOWN).name == "old_13_inside_delta_w"


def test_an_exercise_fixes_what_the_lesson_wrote_and_leaves_the_answer_open(lesson: Lesson):
    rank, shows, count, diagnosis = lesson.exercises
    assert [one.call for one in lesson.exercises] == [cell.splitlines()[-1].replace('"', "'") for cell in OPEN]
    assert [one.open for one in lesson.exercises] == [False, True, False, True]
    assert diagnosis.is_asked_by("check_diagnosis", ({"A": 1, "D": 2},), {})
    assert diagnosis.is_asked_by("check_diagnosis", (), {"diagnosis": {"A": 1, "D": 2}})
    assert not diagnosis.is_asked_by("check_diagnosis", ({"A": 1},), {})
    assert not diagnosis.is_asked_by("check_diagnosis", (3,), {})
    assert not diagnosis.is_asked_by("check_diagnosis", (), {"wrong": 3})
    assert shows.is_asked_by("check_update_shows", ("b",), {})
    assert not shows.is_asked_by("check_break_even_rank", ("b",), {})
    assert count.is_asked_by("check_qv_count", (None,), {})
    assert rank.is_asked_by("check_break_even_rank", (print,), {})


def test_magic_and_what_is_no_python_do_not_hide_the_checks_of_other_lines(tmp_path: Path):
    cells = [Cell("%matplotlib inline\n!ls\nchecks.check_update_shows(...)", True), Cell("a b c check_x(", True)]
    (lesson,) = [one for one in KNOWN if one.name == "old_01_why_low_rank"]
    assert lesson.likeness(frozenset(), {"check_update_shows"}) == 1 / 4
    assert recognise("x", cells, [lesson]) is lesson
