"""`lora-lab grade`: JSON, a table, words, and exit codes."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.classroom import grading
from tests.course.classroom.test_grading import SOLVED, hand_in, handed_out


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


def test_bad_input_is_one_sentence(lora_lab: Callable, tmp_path: Path):
    (tmp_path / "essay.txt").write_text("I have no idea.")
    for name, said in (("nowhere.ipynb", "there is no notebook in"), ("essay.txt", "essay.txt isn't a notebook")):
        done = lora_lab("grade", str(tmp_path / name))
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)
