"""`lora-lab class`: a pasted chat becomes words or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lora_course.receipts import Check, Range, Receipt


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
    assert [(one["student"], one["lesson"]) for one in found["receipts"]] == [
        ("Ada", "02"),
        ("Bob", "02"),
        ("Eve", "03"),
    ]
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


def test_a_file_without_receipts_and_one_that_is_not_there_are_named(lora_lab: Callable, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("hello")
    for name, why in (("empty.txt", "has no readable receipt"), ("nothing.txt", "nothing.txt")):
        done = lora_lab("class", str(tmp_path / name))
        assert (done.returncode, why in done.stderr, done.stdout) == (2, True, "")
