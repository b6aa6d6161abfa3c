"""What was guessed is kept beside the notebook, can be declined, and is gathered from a class."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_course import lesson, predictions


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in the kernel of a notebook: the log that it would write."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: "a shell"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/04_train_an_adapter.ipynb")
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")
    monkeypatch.chdir(tmp_path)
    return tmp_path / predictions.FILE


def test_a_guess_is_kept_beside_its_notebook(notebook: Path):
    words = lesson.compare("accuracy", 80, 82.5, "%")
    assert "you said 80%" in words
    lesson.compare("accuracy", None, 82.5, "%")
    first, second = map(json.loads, notebook.read_text().splitlines())
    assert (first["lesson"], first["student"], first["what"]) == ("04_train_an_adapter", "Ada", "accuracy")
    assert (first["guess"], first["found"], first["unit"], first["fast"]) == (80, 82.5, "%", lesson.FAST)
    assert second["guess"] is None


def test_nothing_is_kept_outside_a_notebook_or_where_it_was_declined(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_PREDICTIONS", "0")
    lesson.compare("accuracy", 80, 82.5, "%")
    monkeypatch.delenv("LORA_LAB_PREDICTIONS")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    lesson.compare("accuracy", 80, 82.5, "%")
    assert not notebook.exists()


def test_a_log_that_cannot_be_written_does_not_stop_a_lesson(notebook: Path):
    notebook.mkdir()
    assert "you said 80%" in lesson.compare("accuracy", 80, 82.5, "%")


def test_a_name_that_is_no_utf_8_is_kept_as_far_as_it_can_be(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_STUDENT", "Jos\udce9")
    lesson.compare("accuracy", 80, 82.5, "%")
    assert [row["student"] for row in predictions.lines(notebook)] == ["Jos?"]


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada\u2028L.\x85")
    lesson.compare("accuracy", 80, 82.5, "%")
    assert [row["student"] for row in predictions.lines(notebook)] == ["Ada\u2028L.\x85"]


def line(**given) -> str:
    return json.dumps({"lesson": "04", "what": "accuracy", "guess": None, "found": 82.5, "unit": "%", **given})


def test_a_class_is_gathered_and_first_attempts_are_told_from_later_ones(tmp_path: Path):
    for student, texts in {
        "ada": [line(guess=80), line(guess=82.5)],
        "bob": [
            "no JSON {",
            line(guess="many"),
            "[]",
            line(guess=float("nan")),
            line(what="changed", guess=10, found=5),
        ],
        "eve": [line(guess=60, student="x" * 1000), line(what="\x1b[2J", found=1)],
    }.items():
        (tmp_path / student).mkdir()
        (tmp_path / student / predictions.FILE).write_text("\n".join(texts))
    rows = predictions.read(tmp_path)
    assert [(row["file"].split("/")[0], row["attempt"], row["guess"]) for row in rows] == [
        ("ada", 1, 80), ("ada", 2, 82.5), ("bob", 1, None), ("bob", 2, None), ("bob", 1, 10), ("eve", 1, 60),
        ("eve", 1, None),
    ]  # fmt: skip
    assert max(len(row["student"]) for row in rows) == 200
    assert predictions.summary(rows).splitlines() == [
        "04: accuracy: 2 of 3 guessed, 60 to 80, half below 70; it was 82.5 %",
        "04: changed: 1 of 1 guessed, 10 to 10, half below 10; it was 5 %",
        "04:  [2J: 0 of 1 guessed, -; it was 1 %",  # no command to the terminal of who reads it
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_or_a_link_is_no_log(tmp_path: Path):
    os.mkfifo(tmp_path / predictions.FILE)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / predictions.FILE).symlink_to("/etc/passwd")
    assert predictions.read(tmp_path) == []
    assert predictions.summary([]) == "no prediction was logged"
