import json

import pytest

from lora_lab import BadValue, ComparePanel, compare, verdict
from lora_lab.experiments.margins import scores_in
from lora_lab.methods import REGISTRY
from tests.conftest import PLAIN, said


def test_shipped_comparison_is_described_at_any_margin_and_resampled():
    panel = ComparePanel()
    assert panel.pair == ("LoRA r8 q,v", "full")
    assert panel.margin == 0.015
    for words in ("q,v is worse than full", "full fine-tuning 82.3%", "at that rate were scored on the test rows"):
        assert words in panel.describe()
    panel.margin = 0.03
    assert "worse than, but within the margin of, full" in panel.describe()
    panel.method, panel.rival = "LoRA r8 all-linear", "LoRA r8 q,v"
    assert "At a margin of 3 points, LoRA r8 all-linear is equivalent to LoRA r8 q,v" in panel.describe()
    assert len(json.dumps(panel.state())) < 60_000
    other = ComparePanel(task="kjv")
    assert (other.stored, other.pair, other.dance) == ({}, ("", ""), {})
    assert "Nothing has been compared yet" in other.describe()
    said(panel, "dance", rows=100, traits={"method": "LoRA r8 all-linear", "rival": "full"})
    first = panel.dance
    assert (first["method"], first["rival"], first["rows"]) == ("LoRA r8 all-linear", "full", 100)
    assert len(first["studies"]) == len(first["outcomes"]) == 100
    assert first["truth"] == pytest.approx(panel.stored["against"]["full"]["LoRA r8 all-linear"]["difference"])
    panel.resample(100, count=5)
    assert panel.dance["studies"] != first["studies"][:5]


def test_every_registered_method_is_offered():
    panel = ComparePanel(methods=("lora", "lora:rank=1"))
    assert {choice.split(":")[0] for choice in panel.choices} == set(REGISTRY)
    assert "lora:rank=1" in panel.choices
    assert panel.methods == ["lora", "lora:rank=1"]


@pytest.mark.parametrize(("methods", "message"), [(["lorra"], "lorra"), ([], "at least one")])
def test_invalid_methods_are_reported(methods, message, tmp_path):
    panel = ComparePanel(methods=methods, store=tmp_path / "own")
    with pytest.raises(BadValue, match=message):
        panel.show()
    assert message in panel.live["error"]
    panel.live = {}
    said(panel, "run")
    assert message in panel.live["error"]
    assert not (tmp_path / "own").exists()


def test_panel_gives_the_result_of_compare_and_reuses_its_runs(tiny_encoder, opinions, tmp_path):
    terms = {"steps": 6, "rates": 2, "seeds": 1, "batch": 8, "growth": 0, **PLAIN}
    panel = ComparePanel(tiny_encoder, opinions, ("head", "lora"), store=str(tmp_path), **terms).show()
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    expected = compare(tiny_encoder, opinions, "head,lora", tmp_path, **terms).to_json()
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert panel.work.found == expected
    assert panel.live["state"] == "done"
    assert all(len(row["accuracy"]["each"]) == 1 and row["error"] is None for row in expected["methods"])
    entry, scores = panel.mine["against"]["LoRA r8 q,v"]["head"], scores_in(expected)
    assert "-" not in entry["outcomes"]  # its answers were kept
    difference = verdict(scores["head"], scores["LoRA r8 q,v"], 0.015).difference
    assert entry["difference"] == pytest.approx(difference, abs=1e-6)
