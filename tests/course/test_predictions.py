import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from lora_course import lesson, predictions
from lora_course.receipts import Receipt
from tests.conftest import assert_raises


@pytest.fixture
def log_file(tmp_path, monkeypatch):
    """Pretend to be the kernel of Ada's notebook; return the path of its log."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: "a shell"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/02_how_sure_are_you.ipynb")
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")
    monkeypatch.chdir(tmp_path)
    return tmp_path / predictions.FILE


def test_log_is_optional_never_fails_and_keeps_any_character(log_file, monkeypatch):
    monkeypatch.setenv("LORA_LAB_PREDICTIONS", "0")
    predictions.log("accuracy", 78, 84, 82.5, "%")
    monkeypatch.delenv("LORA_LAB_PREDICTIONS")
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)  # not in a notebook
    predictions.log("accuracy", 78, 84, 82.5, "%")
    assert not log_file.exists()
    log_file.mkdir()  # cannot be written
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: "a shell")
    predictions.log("accuracy", 78, 84, 82.5, "%")
    log_file.rmdir()
    for name in ("Jos\udce9", "Ada\u2028L.\x85"):  # invalid UTF-8, and line separators of Unicode
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        predictions.log("accuracy", 78, 84, 82.5, "%")
    assert [row["student"] for row in predictions.lines(log_file)] == ["Jos?", "Ada\u2028L.\x85"]


def line(**fields) -> str:
    defaults = {"lesson": "04", "what": "accuracy", "low": None, "high": None, "found": 82.5, "unit": "%"}
    return json.dumps(defaults | fields)


@pytest.mark.parametrize(
    ("encoding", "cut"), [("utf-8", 1), ("utf-8", 9), ("utf-16", 2), ("utf-16", 5), ("utf-16-be", 2), ("utf-16-be", 5)]
)
def test_log_keeps_its_encoding_and_a_line_that_was_cut_off_spoils_no_other(encoding, cut, log_file, monkeypatch):
    monkeypatch.setenv("LORA_LAB_STUDENT", "Zo\u00eb \u8bc4")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    log_file.write_bytes(f"{mark}{line(low=1)}\r\n{line(low=2)}\n".encode(encoding)[:-cut])
    whole = len(list(predictions.lines(log_file)))
    for low in (3, 4):
        predictions.log("accuracy", low, 84, 82.5, "%")
    rows = list(predictions.lines(log_file))
    assert [row["low"] for row in rows] == [*[1, 2][:whole], 3, 4]
    assert rows[-1]["student"] == "Zo\u00eb \u8bc4"


def test_logs_of_a_class_are_read_and_summarized(lora_lab, tmp_path):
    changed = line(what="changed", low=4, high=10, found=5)
    for student, lines in {
        "ada": [line(low=80, high=81, student="Ada"), line(low=82, high=83, student=" ADA")],
        "bob": ["no JSON {", line(low="many"), "[]", line(low=float("nan")), changed],
        "eve": [*(line(low=60, high=90, student=name) for name in ("x" * 1000, "fox")), line(what="=\x1b[2J", found=1)],
    }.items():
        (tmp_path / student).mkdir()
        encoding = {"ada": "utf-8-sig", "eve": "utf-16"}.get(student)  # as editors on Windows may
        name = "Predictions (1).jsonl.txt" if student == "eve" else predictions.FILE  # as handed in
        (tmp_path / student / name).write_text("\n".join(lines), encoding=encoding)
    table, folder = tmp_path / "out.csv", str(tmp_path)
    rows = json.loads(lora_lab("predictions", folder, "--csv", str(table), "--json").stdout)["predictions"]
    assert [(row["file"].split("/")[0], row["attempt"], row["low"]) for row in rows] == [
        ("ada", 1, 80), ("ada", 2, 82), ("bob", 1, None), ("bob", 2, None), ("bob", 1, 4), ("eve", 1, 60),
        ("eve", 1, 60), ("eve", 1, None)]  # fmt: skip
    assert max(len(row["student"]) for row in rows) == 200
    assert ",'= [2J," in table.read_text(encoding="utf-8-sig").splitlines()[-1]  # no formula
    assert lora_lab("predictions", folder).stdout.splitlines() == [
        "04: accuracy: 3 of 4 gave a range, and 2 of these contain the result; the result was 82.5%",
        "04: changed: 1 of 1 gave a range, and 1 of these contain the result; the result was 5%",
        "04: = [2J: 0 of 1 gave a range, and 0 of these contain the result; the result was 1%",  # no terminal command
    ]
    shutil.copytree(tmp_path / "bob", tmp_path / "bob again")  # lines without times may be equal by chance
    assert len(predictions.read(tmp_path)) == len(rows) + 3
    (tmp_path / "bob" / predictions.FILE).write_text(line(at="2026-11-30T09:00:00"))
    shutil.copy(tmp_path / "bob" / predictions.FILE, tmp_path / "bob again")
    with (tmp_path / "bob again" / predictions.FILE).open("a") as later:
        later.write("\n" + line(low=80, high=90))
    again = predictions.read(tmp_path)
    assert len(again) == len(rows) - 3 + 2
    assert next(row["attempt"] for row in again if row["file"].startswith("bob again")) == 2  # in the second version


def test_letters_outside_the_encoding_of_a_pipe_are_escaped(lora_lab, tmp_path, monkeypatch):
    (tmp_path / predictions.FILE).write_text(line(what="评论 é"))
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # as on Windows
    monkeypatch.setattr("sys.stdout", pipe)
    assert lora_lab("predictions", str(tmp_path)).returncode == 0
    pipe.flush()
    assert r"\u8bc4\u8bba é" in pipe.buffer.getvalue().decode("cp1252")


@pytest.fixture
def receipt(log_file, monkeypatch):
    receipt = Receipt("03")
    monkeypatch.setenv("LORA_LAB_HEADLESS", "")
    monkeypatch.setattr(predictions, "CURRENT", receipt)
    return receipt


def test_result_is_sealed_until_a_range(receipt, log_file, capsys, monkeypatch):
    lesson.predict("points", low=..., high=3)
    lesson.reveal("points", 4.5, "points")
    output = capsys.readouterr().out
    assert "with a number" in output
    assert "4.5" not in output
    assert not log_file.exists()
    lesson.predict("points", low=1, high=3)
    lesson.reveal("points", 4.5, "points")
    assert "it is 4.5 points; outside your range, by 1.5 (1 to 3, 2 wide)" in capsys.readouterr().out
    lesson.skip("other")
    lesson.predict("third", low=None)
    lesson.reveal("other", 7)
    lesson.reveal("third", 8)
    assert "it is 7; you made no prediction." in capsys.readouterr().out
    rows = [(row["lesson"], row["low"], row["high"], row["found"]) for row in predictions.lines(log_file)]
    assert rows == [("03", 1, 3, 4.5), ("03", None, None, 7), ("03", None, None, 8)]
    assert [r.held for r in receipt.ranges] == [False, None, None]
    monkeypatch.setenv("LORA_LAB_HEADLESS", "1")  # a solved notebook shows all results
    lesson.predict("fourth", low=..., high=...)
    lesson.reveal("fourth", 4.5, "points")
    assert "fourth: it is 4.5 points." in capsys.readouterr().out


def test_bad_range_is_refused(receipt):
    for low, message in ((3, "swap them"), ("a", "not 'a'"), (float("nan"), "number")):
        assert_raises(message, lesson.predict, "points", low=low, high=1)
    assert receipt.ranges == []


def test_only_a_new_range_is_an_attempt(receipt, log_file, capsys, monkeypatch):
    lesson.predict("points", low=1, high=2)  # replaced before the result
    for high, found in ((3, 4), (3, 2), (5, 4), (3, 2)):  # a cell whose result changes when it runs again
        lesson.predict("points", low=1, high=high)
        lesson.reveal("points", found)
    assert sorted((r.high, r.attempt, r.held) for r in receipt.ranges) == [(3, 1, False), (5, 2, True)]
    output = capsys.readouterr().out
    assert "it is 2; inside your range (1 to 3, 2 wide). The first result counts: 4." in output
    assert "attempt 2" in output
    restarted = Receipt("03")
    monkeypatch.setenv("LORA_LAB_STUDENT", "ADA")
    monkeypatch.setattr(predictions, "CURRENT", restarted)
    for high in (3, 6):
        lesson.predict("points", low=1, high=high)
        lesson.reveal("points", 2)
    assert [(r.attempt, r.found) for r in restarted.ranges] == [(1, 4), (3, 2)]
    assert [(row["high"], row["attempt"]) for row in predictions.read(log_file.parent)] == [(3, 1), (5, 2), (6, 3)]


def test_calibration_counts_first_attempts_of_all_lessons(receipt, log_file, capsys):
    lines = [line(student="Ada" if n else "ada ", what=str(n), low=80, high=83 if n else 81) for n in range(9)]
    log_file.write_text("".join(f"{text}\n" for text in lines))
    lesson.predict("0", low=0, high=0.3)
    lesson.reveal("0", 0.1 + 0.2)
    capsys.readouterr()
    assert sum(0 <= position <= 1 for position in lesson.calibration().values()) == 9
    assert "9 of 10 ranges contain the result: 90% (95% interval 55 to 100%), consistent" in capsys.readouterr().out


def test_numbers_are_rounded_before_they_are_written_in_full():
    numbers = (0.12345, 99.96, 999.7, 1234.5)
    assert [predictions.in_full(number, 3) for number in numbers] == ["0.123", "100", "1,000", "1,234"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_links_are_not_read(tmp_path):
    os.mkfifo(tmp_path / predictions.FILE)
    (tmp_path / "a").mkdir()
    (tmp_path / "elsewhere").write_text(line())
    (tmp_path / "a" / predictions.FILE).symlink_to(tmp_path / "elsewhere")
    assert predictions.read(tmp_path) == []
    assert predictions.summary([]) == "no prediction was logged"
