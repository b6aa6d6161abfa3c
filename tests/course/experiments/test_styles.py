"""Voices: the schema, whose words an answer is made of, and a bank of adapters that answer."""

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

GOOD = {"topic": "sky", "answer": "Blue.", "steps": ["look up"], "certainty": "high"}
SHORT = Decoding(max_new_tokens=5)


VALUES = st.sampled_from(["x", "", None, 3, [], [""], ["x"], [3], "high", "low", "sure"])


@given(st.dictionaries(st.sampled_from([*GOOD, "more"]), VALUES))
def test_only_the_schema_fits(changes):
    value = GOOD | changes
    fits = (
        set(value) == set(GOOD)
        and all(isinstance(value[key], str) and value[key] for key in ("topic", "answer"))
        and isinstance(value["steps"], list)
        and all(isinstance(step, str) and step for step in value["steps"])
        and value["certainty"] in ("high", "medium", "low")
    )
    assert (misfit(json.dumps(value)) == "") == fits
    assert "no JSON" in misfit("[" * 10**5)


def test_an_ear_hears_whose_words_an_answer_is_made_of():
    ear = Ear({"a": ["aye aye lad", "lad"], "b": ["verily verily"]})
    assert [ear.hears(text) for text in ("Aye!", "verily, lad; verily", "")] == ["a", "b", "a"]
    assert ear.shares(["aye", "lad", "verily", "verily"]) == {"a": 0.5, "b": 0.5}
    with pytest.raises(BadValue, match="at least one text"):
        ear.shares([])


@pytest.mark.parametrize("name", VOICES)
def test_it_tells_written_answers_apart_that_it_has_not_heard(name):
    held_out = [text for split in ("validation", "test") for text in voice(name)[split].texts]
    assert our_ear().shares(held_out)[name] >= 0.95  # 60 answers


def test_a_row_s_tokens_grow_as_generate_makes_them(tiny_causal, voices):
    bank, tokenizer = open_bank(voices, tiny_causal, dtype="fp32", attention="eager")
    said = answers(bank, tokenizer, [question("Why?")], SHORT)
    with bank.mixed([None if name == BASE else name for name in said]):
        steps = list(side_by_side(bank.model, tokenizer, [question("Why?")] * 3, SHORT.max_new_tokens))
    assert [[text] for text in steps[-1]] == list(said.values())
    assert 1 <= len(steps) <= SHORT.max_new_tokens
    with pytest.raises(BadValue, match="at least one prompt"):
        next(side_by_side(bank.model, tokenizer, []))
    assert torch.is_grad_enabled()
