"""`lora-lab grade`: JSON, a table, words, and exit codes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.classroom.grading import folder
from tests.course.classroom.grading.conftest import OPEN, SOLVED, hand_in, notebook


@pytest.fixture
def handed_out(tmp_path: Path) -> str:
    path = tmp_path / "handed out.ipynb"
    path.write_text(json.dumps(notebook(OPEN, tags=["exercise"])))
    return str(path)


def test_a_folder_becomes_one_json_object_and_a_table(lora_lab: Callable, handed_out: str, tmp_path: Path):
    hand_in(tmp_path / "class", "ada/first")
    hand_in(tmp_path / "class", "bob/first", [SOLVED[0], *OPEN[1:]])
    table = tmp_path / "class.csv"
    done = lora_lab("grade", str(tmp_path / "class"), "--lesson", handed_out, "--csv", str(table), "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["notebooks"]
    assert [(row["file"], row["right"], row["not_yet"], row["of"]) for row in rows] == [
        ("ada/first.ipynb", 4, 0, 4), ("bob/first.ipynb", 1, 3, 4),
    ]  # fmt: skip
    lines = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    assert [line["right"] for line in lines] == ["4", "1"]
    assert lines[1]["handed out: checks.check_update_shows(...)"] == "not yet"
    assert "ada/first.ipynb: 4 of 4 right; ran" in done.stderr


def test_what_was_graded_before_it_was_stopped_is_in_the_table(
    lora_lab: Callable, handed_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ada", "bob"):
        hand_in(tmp_path / "class", f"{name}/first")
    in_words, table = folder.in_words, tmp_path / "class.csv"

    def stopped_at_bob(row: folder.Grade) -> str:
        if row.file.startswith("bob"):
            raise KeyboardInterrupt
        return in_words(row)

    monkeypatch.setattr(folder, "in_words", stopped_at_bob)
    assert lora_lab("grade", str(tmp_path / "class"), "--lesson", handed_out, "--csv", str(table)).returncode == 130
    assert [line["file"] for line in csv.DictReader(table.read_text("utf-8-sig").splitlines())] == ["ada/first.ipynb"]


def test_a_table_that_cannot_be_written_does_not_cost_the_grades(lora_lab: Callable, handed_out: str, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    words = ("--lesson", handed_out, "--csv", str(tmp_path / "taken"), "--json")
    done = lora_lab("grade", str(hand_in(tmp_path, "mine")), *words)
    assert json.loads(done.stdout)["notebooks"][0]["right"] == 4
    assert (done.returncode, "cannot write" in done.stderr) == (2, True)


def test_one_notebook_in_words(lora_lab: Callable, handed_out: str, tmp_path: Path):
    done = lora_lab("grade", str(hand_in(tmp_path, "mine")), "--lesson", handed_out)
    assert done.stdout == "1 notebook: 4 of 4 checks right\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.ipynb",), "there is no notebook in nowhere.ipynb"),
        ((".", "--lesson", "nowhere.ipynb"), "nowhere.ipynb"),
        ((".", "--memory", "0"), "--memory"),
    ],
)
def test_bad_input_is_one_sentence(
    words: tuple[str, ...], said: str, lora_lab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = lora_lab("grade", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
