"""The compare panel without a browser: what it sends, a pair at a margin, studies of it, and a comparison made here."""

import json
from pathlib import Path

import pytest

from lora_lab import ComparePanel
from lora_lab.errors import BadValue
from lora_lab.experiments.compare import compare
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import verdict
from lora_lab.methods import REGISTRY
from tests.conftest import PLAIN
from tests.widgets.conftest import said

TERMS = {"steps": 6, "rates": 2, "seeds": 1, "batch": 8, "growth": 0, **PLAIN}


def test_what_ships_is_shown_where_nothing_else_is_asked_for():
    panel = ComparePanel()
    assert panel.pair == ("LoRA r8 q,v", "full")
    assert panel.margin == 0.015
    words = panel.describe()
    told = ("LoRA r8 q,v is worse than full", "full fine-tuning 82.3%", "at that rate were scored on the test rows")
    assert [one for one in told if one not in words] == []
    panel.margin = 0.03
    assert "worse than, but within the margin of, full" in panel.describe()
    panel.method = "LoRA r8 all-linear"
    panel.rival = "LoRA r8 q,v"
    assert "At a margin of 3 points, LoRA r8 all-linear is equivalent to LoRA r8 q,v" in panel.describe()
    assert len(json.dumps(panel.state())) < 60_000
    other = ComparePanel(task="kjv")
    assert (other.stored, other.pair) == ({}, ("", ""))
    assert "Nothing has been compared yet" in other.describe()


def test_studies_are_drawn_of_the_pair_and_others_each_time():
    panel = ComparePanel()
    said(panel, "dance", rows=100, traits={"method": "LoRA r8 all-linear", "rival": "full"})
    first = panel.dance
    assert (first["method"], first["rival"], first["rows"]) == ("LoRA r8 all-linear", "full", 100)
    assert len(first["studies"]) == len(first["outcomes"]) == 100
    assert first["truth"] == pytest.approx(panel.stored["against"]["full"]["LoRA r8 all-linear"]["difference"])
    panel.resample(100)
    assert panel.dance["studies"] != first["studies"]
    assert ComparePanel().dance == {}


def test_every_method_that_can_be_trained_is_offered():
    panel = ComparePanel(methods=("lora", "lora:rank=1"))
    assert {one.split(":")[0] for one in panel.choices} == set(REGISTRY)
    assert "lora:rank=1" in panel.choices
    assert panel.methods == ["lora", "lora:rank=1"]


@pytest.mark.parametrize(("given", "words"), [("lorra", "lorra"), ("", "at least one")])
def test_what_cannot_be_is_one_sentence(given: str, words: str, tmp_path: Path):
    panel = ComparePanel(methods=[one for one in given.split(",") if one], store=tmp_path / "own")
    with pytest.raises(BadValue, match=words):
        panel.show()
    assert words in panel.live["error"]
    said(panel, "run")
    assert words in panel.live["error"]
    assert not (tmp_path / "own").exists()


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
