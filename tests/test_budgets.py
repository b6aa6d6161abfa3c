"""Tests of the budgets for lines of code."""

from pathlib import Path

from tests.budgets import ROOT, report


def test_no_room_exceeds_its_budget():
    assert report(ROOT)[1] == []


def test_exceeded_budget_and_unlisted_file_are_reported(tmp_path: Path):
    (tmp_path / "lora_lab" / "methods" / "deep").mkdir(parents=True)
    (tmp_path / "lora_lab" / "methods" / "deep" / "one.py").write_text("a\nb\nc\n")
    (tmp_path / "lora_lab" / "panel.js").write_text("a\n")
    (tmp_path / "budgets.toml").write_text('"lora_lab/methods/**/*.py" = 2')
    exceeded, unlisted = report(tmp_path)[1]
    assert exceeded.startswith("lora_lab/methods/**/*.py has 3 lines")
    assert unlisted.startswith("lora_lab/panel.js is in no room")
