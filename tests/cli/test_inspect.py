"""`lora-lab inspect`: one JSON object with the contract's fields, words for people, and exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lora_course.experiments.broken import patient
from lora_lab.cli.adapters import inspect
from lora_lab.errors import NotFound
from lora_lab.training.assets import shipped

SOUND = str(shipped("data/results/minilm-rt-r8"))
FIELDS = {"format", "rank", "alpha", "scaling", "targets", "parameters", "norms", "does_something", "problems"}


def told(*arguments: str) -> str:
    return CliRunner().invoke(inspect, arguments, catch_exceptions=False).stdout


def test_json_has_the_fields_of_the_contract():
    found = json.loads(told(SOUND, "--base", "minilm", "--json"))
    assert found.keys() >= FIELDS
    assert (found["rank"], found["alpha"], found["scaling"], found["targets"]) == (8, 16, 2.0, ["query", "value"])
    assert (found["parameters"], found["head"]) == (6 * 2 * 8 * 768, 770)
    assert found["does_something"] is True
    assert found["problems"] == []
    assert len(found["norms"]) == 12
    assert all(0.05 < norm["ratio"] < 0.5 for norm in found["norms"])


def test_without_a_base_it_does_not_claim_an_effect():
    found = json.loads(told(SOUND, "--json"))
    assert found["does_something"] is None
    assert {norm["ratio"] for norm in found["norms"]} == {None}


def test_in_words():
    words = told(SOUND, "--base", "minilm")
    assert "no problem found" in words
    assert "73,728 + 770 in the head" in words
    assert "bert.encoder.layer.5.attention.self.value" in words
    assert "ratio" in words


@pytest.mark.parametrize(("letter", "words"), [("A", "problem: empty file"), ("D", "problem: truncated file")])
def test_a_file_that_cannot_be_read_is_an_answer_not_an_error(letter, words, tmp_path):
    assert words in told(str(patient(letter, tmp_path)), "--base", "minilm")
    found = json.loads(told(str(tmp_path / letter), "--json"))
    assert found["format"] is None
    assert [problem["name"] for problem in found["problems"]] == [words.removeprefix("problem: ")]
    assert found["problems"][0]["remedy"]


def test_no_folder_is_an_error():
    with pytest.raises(NotFound, match="there is no folder nowhere"):
        told("nowhere")
