"""The rooms of both packages and the tests keep to their budgets, and what has none is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budgets import ROOT, report


def test_no_room_is_above_its_budget():
    assert report(ROOT)[1] == []


@pytest.mark.parametrize(
    ("rooms", "wrong"),
    [
        ('"lora_lab/methods/**/*.py" = 3\n"lora_lab/*.js" = 1', []),
        (
            '"lora_lab/methods/**/*.py" = 2\n"lora_lab/*.js" = 1',
            ["lora_lab/methods/**/*.py has 3 lines"],
        ),
        ('"lora_lab/methods/**/*.py" = 3', ["lora_lab/panel.js is in no room"]),
    ],
    ids=["within", "above", "in no room"],
)
def test_what_grows_is_named(tmp_path: Path, rooms: str, wrong: list[str]):
    (tmp_path / "lora_lab" / "methods" / "deep").mkdir(parents=True)
    (tmp_path / "lora_lab" / "methods" / "deep" / "one.py").write_text("a\nb\nc\n")
    (tmp_path / "lora_lab" / "panel.js").write_text("a\n")
    (tmp_path / "budgets.toml").write_text(rooms)
    found = report(tmp_path)[1]
    assert len(found) == len(wrong)
    assert all(one.startswith(start) for one, start in zip(found, wrong, strict=True))
