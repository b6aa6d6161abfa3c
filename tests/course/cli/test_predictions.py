"""`lora-lab predictions`: JSON and a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.predictions import FILE


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
