import ast
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lora_course.classroom import grading
from lora_course.predictions import FILE
from lora_course.receipts import Check, Range, Receipt
from tests.course.classroom.test_grading import SOLVED, hand_in, handed_out


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))


def test_class_summarizes_receipts(lora_lab: Callable, tmp_path: Path):
    checks = {"rows": Check(True, 1), "bars": Check(False, 4)}
    ada = Receipt("02", "Ada", checks, [Range("points", 1, 3, 1, 2)], {"accuracy": 0.8})
    checks = {"rows": Check(True, 2), "bars": Check(True, 3)}
    bob = Receipt("02", "Bob", checks, [Range("points", 5, 6, 1, 2)], {"accuracy": 0.9})
    eve = Receipt("03", "Eve", {"bracket": Check(False, 0)})
    lines = ["[10:41] Ada: here", ada.line(), bob.line(), eve.line(), eve.line().replace("03", "00")[:-12]]
    chat = tmp_path / "chat.txt"
    chat.write_text("\n".join(lines), encoding="utf-8")
    done = lora_lab("class", str(chat), "--json")
    result = json.loads(done.stdout)
    assert [receipt["student"] + receipt["lesson"] for receipt in result["receipts"]] == ["Ada02", "Bob02", "Eve03"]
    assert [(row["check"], row["missed"], row["of"], row["tries"]) for row in result["checks"]] == [
        ("bracket", 1, 1, 0), ("bars", 1, 2, 3.5), ("rows", 0, 2, 1.5),
    ]  # fmt: skip
    assert [(row["what"], row["held"], row["of"]) for row in result["predictions"]] == [("points", 1, 2)]
    (note,) = result["results"]
    assert (note["name"], note["values"]) == ("accuracy", [0.8, 0.9])
    assert (round(note["mean"], 9), round(note["std"], 4)) == (0.85, 0.0707)
    assert (result["calibration"]["hits"], result["calibration"]["of"]) == (1, 2)
    assert result["damaged"] == ["line 5 (LL1 00 Eve) is damaged: ask for it again"]
    assert result["damaged"][0] in done.stderr
    assert "1 of 2 ranges contain" in lora_lab("class", str(chat)).stdout
    three = [Receipt("02", "Otter 2", checks), Receipt("02", "", checks), Receipt("03", "otter  2", checks)]
    chat.write_text("\n".join(receipt.line() for receipt in three), encoding="utf-16")  # as Notepad's "Unicode"
    rows = re.findall(r"^(.*\S) +2/2 +(\S+)$", lora_lab("class", str(chat)).stdout, re.M)
    assert rows == [("(no name, 2)", "-"), ("Otter 2", "2/2")]
    chat.write_bytes(chat.read_bytes() + f"\n{Receipt('02', 'Ada', checks).line()}".encode())  # files joined
    assert "Ada" in lora_lab("class", str(chat)).stdout


def test_grade_writes_json_and_a_table(lora_lab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def grade(notebook: Path, row: grading.Row, limits: grading.Limits, known: list[grading.Lesson]) -> None:
        checks = [{"check": ast.unparse(call), "verdict": "not yet", "words": ""} for call in known[0].calls]
        checks[0]["verdict"] = "right"
        row |= {"lesson": known[0].name, "status": "ran", "checks": checks}

    monkeypatch.setattr(grading, "_grade", grade)  # needs no kernel
    hand_in(tmp_path / "class", "ada/first", SOLVED)
    lesson, table = str(handed_out(tmp_path)), tmp_path / "class.csv"
    done = lora_lab("grade", str(tmp_path / "class"), "--lesson", lesson, "--csv", str(table), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["notebooks"]
    keys = "file lesson status right not_right not_yet absent of words checks errors refused seconds peak_bytes walls"
    assert row.keys() >= {*keys.split(), "predictions"}
    assert (row["file"], row["right"], row["not_yet"], row["of"]) == ("ada/first.ipynb", 1, 3, 4)
    (line,) = rows_of(table)
    assert (line["right"], line["99_small: checks.check_rank_of_file(...)"]) == ("1", "not yet")
    assert "ada/first.ipynb: 1 of 4 right; 3 not yet; ran" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_interrupted_grade_ends_the_running_notebook_and_prints_the_others(tmp_path: Path):
    (tmp_path / "ada.ipynb").write_text("no JSON {")
    hand_in(tmp_path, "bob", ["import time\ntime.sleep(600)"])
    options = ["--lesson", handed_out(tmp_path / "solutions"), "--csv", tmp_path / "class.csv", "--json"]
    command, pipe = [sys.executable, "-m", "lora_course", "grade", tmp_path, *options], subprocess.PIPE
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        assert process.stderr.readline().startswith("ada.ipynb: not graded")
        process.send_signal(signal.SIGINT)  # while bob's notebook runs
        output, _ = process.communicate(timeout=30)
        assert [row["file"] for row in json.loads(output)["notebooks"]] == ["ada.ipynb"]
    assert process.returncode == 130
    assert [line["file"] for line in rows_of(tmp_path / "class.csv")] == ["ada.ipynb"]


def log(folder: Path, what: str) -> None:
    row = {"lesson": "04", "what": what, "low": 80, "high": 90, "found": 82.5, "unit": "%"}
    (folder / FILE).write_text(json.dumps(row))


def test_predictions_become_json_a_table_and_words(lora_lab: Callable, tmp_path: Path):
    log(tmp_path, "=cmd")
    done = lora_lab("predictions", str(tmp_path), "--csv", str(tmp_path / "out.csv"), "--json")
    assert json.loads(done.stdout)["predictions"][0]["low"] == 80
    (row,) = rows_of(tmp_path / "out.csv")
    assert (row["what"], row["low"], row["attempt"]) == ("'=cmd", "80.0", "1")
    assert "1 of 1 gave a range" in lora_lab("predictions", str(tmp_path)).stdout


def test_letters_outside_the_encoding_of_a_pipe_are_escaped(lora_lab, tmp_path, monkeypatch):
    log(tmp_path, "评论 é")
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # as on Windows
    monkeypatch.setattr("sys.stdout", pipe)
    assert lora_lab("predictions", str(tmp_path)).returncode == 0
    pipe.flush()
    assert r"\u8bc4\u8bba é" in pipe.buffer.getvalue().decode("cp1252")
