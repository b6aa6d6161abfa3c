"""Tests of voices: the JSON schema, telling voices apart, and a bank of adapters that answers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.styles import BASE, Ear, answers, misfit, open_bank, our_ear
from lora_course.panels.voices_panel import side_by_side
from lora_lab.errors import BadValue
from lora_lab.training.chat import question
from lora_lab.training.generate import Decoding
from lora_lab.training.tasks import VOICES, voice

VALID = {"topic": "sky", "answer": "Blue.", "steps": ["look up"], "certainty": "high"}
VALUES = st.sampled_from(["x", "", None, 3, [], [""], ["x"], [3], "high", "low", "sure"])


@given(st.dictionaries(st.sampled_from([*VALID, "more"]), VALUES))
def test_misfit_accepts_only_the_schema(changes):
    value = VALID | changes
    valid = (
        set(value) == set(VALID)
        and all(isinstance(value[key], str) and value[key] for key in ("topic", "answer"))
        and isinstance(value["steps"], list)
        and all(isinstance(step, str) and step for step in value["steps"])
        and value["certainty"] in ("high", "medium", "low")
    )
    assert (misfit(json.dumps(value)) == "") == valid
    assert "not JSON" in misfit("[" * 10**5)  # nested too deeply for the parser


def test_ear_hears_the_most_likely_voice():
    ear = Ear({"a": ["aye aye lad", "lad"], "b": ["verily verily"]})
    assert [ear.hears(text) for text in ("Aye!", "verily, lad; verily", "")] == ["a", "b", "a"]
    assert ear.shares(["aye", "lad", "verily", "verily"]) == {"a": 0.5, "b": 0.5}
    with pytest.raises(BadValue, match="at least one text"):
        ear.shares([])


@pytest.mark.parametrize("name", VOICES)
def test_our_ear_recognizes_held_out_answers(name):
    held_out = [text for split in ("validation", "test") for text in voice(name)[split].texts]
    assert our_ear().shares(held_out)[name] >= 0.95  # 60 answers


def test_side_by_side_matches_generate(tiny_causal, voices):
    bank, tokenizer = open_bank(voices, tiny_causal, dtype="fp32", attention="eager")
    expected = answers(bank, tokenizer, [question("Why?")], Decoding(max_new_tokens=5))
    with bank.mixed([None if name == BASE else name for name in expected]):
        steps = list(side_by_side(bank.model, tokenizer, [question("Why?")] * 3, 5))
    assert [[text] for text in steps[-1]] == list(expected.values())
    assert 1 <= len(steps) <= 5
    with pytest.raises(BadValue, match="at least one prompt"):
        next(side_by_side(bank.model, tokenizer, []))
    assert torch.is_grad_enabled()
