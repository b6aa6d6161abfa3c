"""The compare panel over the real `compare` on a tiny model; stops are in test_background.py and in test_compare.py."""

from pathlib import Path

import pytest

from lora_lab.experiments.compare import compare
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import verdict
from lora_lab.widgets.compare_panel import ComparePanel
from tests.conftest import PLAIN

TERMS = {"steps": 6, "rates": 2, "seeds": 1, "batch": 8, "growth": 0, **PLAIN}


def test_it_is_what_compare_gives_and_is_not_trained_twice(tiny_encoder: str, opinions: str, tmp_path: Path):
    panel = ComparePanel(tiny_encoder, opinions, ("head", "lora"), store=str(tmp_path), **TERMS).show()
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    whole = compare(tiny_encoder, opinions, "head,lora", tmp_path, **TERMS).to_json()
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert panel.result().to_json() == whole
    assert panel.live["state"] == "done"
    assert all(len(row["accuracy"]["each"]) == 1 and row["error"] is None for row in whole["methods"])
    entry, scores = panel.mine["against"]["LoRA r8 q,v"]["head"], scores_in(whole)
    assert "-" not in entry["outcomes"]  # its answers were kept
    found = verdict(scores["head"], scores["LoRA r8 q,v"], 0.015)
    assert entry["difference"] == pytest.approx(found.difference, abs=1e-6)
