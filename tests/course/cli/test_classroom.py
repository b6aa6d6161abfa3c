"""`lora-lab class`, `grade` and `predictions`: JSON, tables, words, and exit codes."""

import ast
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.classroom import grading
from lora_course.predictions import FILE
from lora_course.receipts import Check, Range, Receipt
from tests.course.classroom.test_grading import SOLVED, hand_in, handed_out

# ---- class


def chat(folder: Path) -> str:
    ada = Receipt(
        "02", "Ada", {"rows": Check(True, 1), "bars": Check(False, 4)}, [Range("points", 1, 3, 1, 2)], {"accuracy": 0.8}
    )
    bob = Receipt(
        "02", "Bob", {"rows": Check(True, 2), "bars": Check(True, 3)}, [Range("points", 5, 6, 1, 2)], {"accuracy": 0.9}
    )
    eve = Receipt("03", "Eve", {"bracket": Check(False, 0)})
    lines = ["[10:41] Ada: here", ada.line(), bob.line(), eve.line(), eve.line().replace("03", "00")[:-12]]
    path = folder / "chat.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_receipts_become_one_json_object(lora_lab: Callable, tmp_path: Path):
    done = lora_lab("class", chat(tmp_path), "--json")
    found = json.loads(done.stdout)
    assert [one["student"] + one["lesson"] for one in found["receipts"]] == ["Ada02", "Bob02", "Eve03"]
    assert [(one["check"], one["missed"], one["of"], one["tries"]) for one in found["checks"]] == [
        ("bracket", 1, 1, 0), ("bars", 1, 2, 3.5), ("rows", 0, 2, 1.5),
    ]  # fmt: skip
    assert [(one["what"], one["held"], one["of"]) for one in found["predictions"]] == [("points", 1, 2)]
    (result,) = found["results"]
    assert (result["name"], result["values"]) == ("accuracy", [0.8, 0.9])
    assert (round(result["mean"], 9), round(result["std"], 4)) == (0.85, 0.0707)
    assert (found["calibration"]["hits"], found["calibration"]["of"]) == (1, 2)
    assert found["damaged"] == ["line 5 (LL1 00 Eve) is damaged: ask for it again"]
    assert found["damaged"][0] in done.stderr
    assert "1 of 2 ranges contain" in lora_lab("class", chat(tmp_path)).stdout


# ---- grade


def one_right(notebook: Path, row: grading.Row, limits: grading.Limits, known: list[grading.Lesson]) -> None:
    """Grade without a kernel: the first check is right, and the others aren't answered yet."""
    checks = [{"check": ast.unparse(call), "verdict": "not yet", "words": ""} for call in known[0].calls]
    checks[0]["verdict"] = "right"
    row |= {"lesson": known[0].name, "status": "ran", "checks": checks}


def test_a_folder_becomes_one_json_object_and_a_table(
    lora_lab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grading, "_grade", one_right)
    hand_in(tmp_path / "class", "ada/first", SOLVED)
    lesson, table = str(handed_out(tmp_path)), tmp_path / "class.csv"
    done = lora_lab("grade", str(tmp_path / "class"), "--lesson", lesson, "--csv", str(table), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["notebooks"]
    keys = "file lesson status right not_right not_yet absent of words checks errors refused seconds peak_bytes walls"
    assert row.keys() >= {*keys.split(), "predictions"}
    assert (row["file"], row["right"], row["not_yet"], row["of"]) == ("ada/first.ipynb", 1, 3, 4)
    (line,) = csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines())
    assert (line["right"], line["99_small: checks.check_rank_of_file(...)"]) == ("1", "not yet")
    assert "ada/first.ipynb: 1 of 4 right; 3 not yet; ran" in done.stderr


def test_what_was_graded_before_it_was_stopped_is_in_the_table(
    lora_lab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ada", "bob"):
        hand_in(tmp_path, f"{name}/first", SOLVED)
    words, table = grading.in_words, tmp_path / "class.csv"

    def stopped_at_bob(row: grading.Row) -> str:
        if row["file"].startswith("bob"):
            raise KeyboardInterrupt
        return words(row)

    monkeypatch.setattr(grading, "_grade", lambda *_: None)
    monkeypatch.setattr(grading, "in_words", stopped_at_bob)
    assert lora_lab("grade", str(tmp_path), "--csv", str(table)).returncode == 130
    assert [line["file"] for line in csv.DictReader(table.read_text("utf-8-sig").splitlines())] == ["ada/first.ipynb"]


# ---- predictions


def test_ranges_become_one_json_object_a_table_and_words(lora_lab: Callable, tmp_path: Path):
    row = {"lesson": "04", "what": "=cmd", "low": 80, "high": 90, "found": 82.5, "unit": "%"}
    (tmp_path / FILE).write_text(json.dumps(row))
    done = lora_lab("predictions", str(tmp_path), "--csv", str(tmp_path / "out.csv"), "--json")
    assert json.loads(done.stdout)["predictions"][0]["low"] == 80
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines())
    assert (row["what"], row["low"], row["attempt"]) == ("'=cmd", "80.0", "1")
    assert "1 of 1 gave a range" in lora_lab("predictions", str(tmp_path)).stdout


def test_letters_that_a_windows_pipe_cannot_write_do_not_lose_the_table(
    lora_lab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    row = {"lesson": "04", "what": "评论 é", "low": 80, "high": 90, "found": 82.5, "unit": "%"}
    (tmp_path / FILE).write_text(json.dumps(row))
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", pipe)
    assert lora_lab("predictions", str(tmp_path)).returncode == 0
    pipe.flush()
    assert r"\u8bc4\u8bba é" in pipe.buffer.getvalue().decode("cp1252")
