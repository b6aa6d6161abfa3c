"""What was predicted is kept beside the notebook, can be declined, and is gathered from a class."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_course import lesson, predictions
from lora_course.receipts import Receipt
from lora_lab.errors import BadValue


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in the kernel of a notebook: the log that it would write."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: "a shell"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/02_how_sure_are_you.ipynb")
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")
    monkeypatch.chdir(tmp_path)
    return tmp_path / predictions.FILE


def test_nothing_is_kept_where_it_was_declined_outside_a_notebook_or_on_a_full_disk(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LORA_LAB_PREDICTIONS", "0")
    predictions.log("accuracy", 78, 84, 82.5, "%")
    monkeypatch.delenv("LORA_LAB_PREDICTIONS")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    predictions.log("accuracy", 78, 84, 82.5, "%")
    assert not notebook.exists()
    notebook.mkdir()  # cannot be written
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: "a shell"))
    predictions.log("accuracy", 78, 84, 82.5, "%")


def test_any_name_is_kept_in_a_line_of_its_own(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    """One that is no UTF-8, as far as it can be; and one with what Unicode calls the end of a line."""
    for name in ("Jos\udce9", "Ada\u2028L.\x85"):
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        predictions.log("accuracy", 78, 84, 82.5, "%")
    assert [row["student"] for row in predictions.lines(notebook)] == ["Jos?", "Ada\u2028L.\x85"]


def line(**given) -> str:
    return json.dumps(
        {"lesson": "04", "what": "accuracy", "low": None, "high": None, "found": 82.5, "unit": "%", **given}
    )


def test_a_class_is_gathered_and_first_attempts_are_told_from_later_ones(tmp_path: Path):
    for student, texts in {
        "ada": [line(low=80, high=81), line(low=82, high=83)],
        "bob": [
            "no JSON {",
            line(low="many"),
            "[]",
            line(low=float("nan")),
            line(what="changed", low=4, high=10, found=5),
        ],
        "eve": [line(low=60, high=90, student="x" * 1000), line(what="\x1b[2J", found=1)],
    }.items():
        (tmp_path / student).mkdir()
        (tmp_path / student / predictions.FILE).write_text("\n".join(texts))
    rows = predictions.read(tmp_path)
    assert [(row["file"].split("/")[0], row["attempt"], row["low"]) for row in rows] == [
        ("ada", 1, 80), ("ada", 2, 82), ("bob", 1, None), ("bob", 2, None), ("bob", 1, 4), ("eve", 1, 60),
        ("eve", 1, None),
    ]  # fmt: skip
    assert max(len(row["student"]) for row in rows) == 200
    assert predictions.summary(rows).splitlines() == [
        "04: accuracy: 2 of 3 gave a range, and 1 of these contain the result; it was 82.5%",
        "04: changed: 1 of 1 gave a range, and 1 of these contain the result; it was 5%",
        "04:  [2J: 0 of 1 gave a range, and 0 of these contain the result; it was 1%",  # no terminal command
    ]


@pytest.fixture
def started(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    """Lesson 03, begun in a fresh kernel: what its receipt will hold."""
    fresh = Receipt("03")
    monkeypatch.setenv("LORA_LAB_HEADLESS", "")
    monkeypatch.setattr(predictions, "CURRENT", fresh)
    return fresh


def test_a_result_stays_sealed_until_a_range_is_given_or_the_question_is_skipped(
    started: Receipt, notebook: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    lesson.predict("points", low=..., high=3)
    lesson.reveal("points", 4.5, "points")
    said = capsys.readouterr().out
    assert "with a number" in said
    assert "4.5" not in said
    assert not notebook.exists()
    lesson.predict("points", low=1, high=3)
    lesson.reveal("points", 4.5, "points")
    assert "it is 4.5 points; outside your range, by 1.5 (1 to 3, 2 wide)" in capsys.readouterr().out
    lesson.skip("other")
    lesson.predict("third", low=None)
    lesson.reveal("other", 7)
    lesson.reveal("third", 8)
    assert "it is 7; you made no prediction." in capsys.readouterr().out
    rows = [(row["lesson"], row["low"], row["high"], row["found"]) for row in predictions.lines(notebook)]
    assert rows == [("03", 1, 3, 4.5), ("03", None, None, 7), ("03", None, None, 8)]
    assert [one.held for one in started.ranges] == [False, None, None]
    monkeypatch.setenv("LORA_LAB_HEADLESS", "1")  # a solved notebook shows what was found
    lesson.predict("fourth", low=..., high=...)
    lesson.reveal("fourth", 4.5, "points")
    assert "fourth: it is 4.5 points." in capsys.readouterr().out


def test_a_range_that_is_none_is_refused(started: Receipt):
    for low, high, why in ((3, 1, "swap them"), ("a", 1, "not 'a'"), (float("nan"), 1, "number")):
        with pytest.raises(BadValue, match=why):
            lesson.predict("points", low=low, high=high)
    assert started.ranges == []


def test_another_range_after_the_result_is_a_second_attempt_and_the_same_one_is_not(
    started: Receipt, notebook: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    for high in (2, 3):
        lesson.predict("points", low=1, high=high)  # thought better of before the result
    for high in (3, 3, 5, 3):
        lesson.predict("points", low=1, high=high)
        lesson.reveal("points", 4)
    assert sorted((one.high, one.attempt, one.held) for one in started.ranges) == [(3, 1, False), (5, 2, True)]
    assert "attempt 2" in capsys.readouterr().out
    monkeypatch.setattr(predictions, "CURRENT", again := Receipt("03"))  # in another kernel, on another day
    for high in (3, 6):
        lesson.predict("points", low=1, high=high)
        lesson.reveal("points", 4)
    assert [one.attempt for one in again.ranges] == [1, 3]
    assert [(row["high"], row["attempt"]) for row in predictions.read(notebook.parent)] == [(3, 1), (5, 2), (6, 3)]


def test_calibration_counts_the_first_attempts_of_every_lesson_in_the_folder(started: Receipt, notebook: Path, capsys):
    notebook.write_text(
        "".join(line(student="Ada", what=str(n), low=80, high=83 if n else 81) + "\n" for n in range(9))
    )
    lesson.predict("0", low=0, high=100)
    lesson.reveal("0", 50)
    capsys.readouterr()
    assert sum(0 <= place <= 1 for place in lesson.calibration().values()) == 9
    assert "9 of 10 ranges contain the result: 90% (95% interval 55 to 100%), consistent" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_or_a_link_is_no_log(tmp_path: Path):
    os.mkfifo(tmp_path / predictions.FILE)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / predictions.FILE).symlink_to("/etc/passwd")
    assert predictions.read(tmp_path) == []
    assert predictions.summary([]) == "no prediction was logged"
