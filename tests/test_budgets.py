"""The rooms of both packages and the tests keep to their budgets, and what has none is noticed."""

from pathlib import Path

from tests.budgets import ROOT, report


def test_no_room_is_above_its_budget():
    assert report(ROOT)[1] == []


def test_what_grows_and_what_is_in_no_room_is_named(tmp_path: Path):
    (tmp_path / "lora_lab" / "methods" / "deep").mkdir(parents=True)
    (tmp_path / "lora_lab" / "methods" / "deep" / "one.py").write_text("a\nb\nc\n")
    (tmp_path / "lora_lab" / "panel.js").write_text("a\n")
    (tmp_path / "budgets.toml").write_text('"lora_lab/methods/**/*.py" = 2')
    above, without = report(tmp_path)[1]
    assert above.startswith("lora_lab/methods/**/*.py has 3 lines")
    assert without.startswith("lora_lab/panel.js is in no room")
