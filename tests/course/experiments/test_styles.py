"""Voices told apart: the schema, the marks, the table; and the base is back when nobody speaks."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.style_reference import FACTS, chosen, facts, holds_one
from lora_course.experiments.styles import (
    BASE,
    Ear,
    answers,
    file_sizes,
    misfit,
    off_is_base,
    open_bank,
    our_ear,
    own_is_lowest,
    perplexities,
    speaking,
    told_apart,
)
from lora_lab import LoRA, load_model, load_task, save_adapter
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.chat import question
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.pairs import VOICES, voice
from lora_lab.training.runs import Store
from tests.conftest import randomise

GOOD = {"topic": "sky", "answer": "Blue.", "steps": ["look up"], "certainty": "high"}
SHORT = Decoding(max_new_tokens=5)


# ---- one answer


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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ahoy", "no JSON"),
        ("[]", "just the keys"),
        ('{"topic": "x"', "no JSON"),
        ("[" * 10**5, "no JSON"),
        ("", "no JSON"),
    ],
)
def test_what_does_not_fit_says_why(text, why):
    assert why in misfit(text)


def test_an_ear_hears_whose_words_an_answer_is_made_of():
    ear = Ear({"a": ["aye aye lad", "lad"], "b": ["verily verily"]})
    assert [ear.hears(text) for text in ("Aye!", "verily, lad; verily", "")] == ["a", "b", "a"]
    assert ear.shares(["aye", "lad", "verily", "verily"]) == {"a": 0.5, "b": 0.5}
    with pytest.raises(BadValue, match="no text"):
        ear.shares([])


@pytest.mark.parametrize("name", VOICES)
def test_it_tells_written_answers_apart_that_it_has_not_heard(name):
    held_out = [pair.response for split in ("validation", "test") for pair in voice(name)[split]]
    assert our_ear().shares(held_out)[name] >= 0.95  # 60 answers


def test_own_is_lowest_looks_at_columns_and_at_the_base():
    table = {"base": {"a": 9.0, "b": 5.0}, "a": {"a": 3.0, "b": 6.0}, "b": {"a": 4.0, "b": 2.0}}
    assert own_is_lowest(table)
    assert not own_is_lowest(table | {"base": {"a": 2.0, "b": 5.0}})
    assert not own_is_lowest({"base": {"a": 2.0}})


# ---- adapters


@pytest.fixture
def spoken(tiny_causal, tmp_path):
    """Two random adapters of the tiny causal model by the names of voices, in a bank."""
    folders = {}
    for seed, name in enumerate(("captain", "preacher")):
        model = load_model(tiny_causal)
        LoRA(rank=2).attach(model)
        randomise(model, seed)
        folders[name] = save_adapter(model, tmp_path / name)
    bank, tokenizer = open_bank(folders, tiny_causal, dtype="fp32", attention="eager")
    return bank, tokenizer, folders


def test_every_adapter_is_scored_and_heard_as_if_alone(spoken, tiny_causal):
    from lora_lab import load_adapter
    from lora_lab.training.batches import encode
    from lora_lab.training.evaluate import evaluate

    bank, tokenizer, folders = spoken
    tasks = [load_task(name, max_length=400) for name in ("captain", "preacher")]
    table = perplexities(bank, tokenizer, tasks, rows=3)
    said = answers(bank, tokenizer, [question("Why?")], SHORT)
    assert list(table) == list(said) == [BASE, "captain", "preacher"]
    for name in table:
        alone = load_model(tiny_causal)
        if name != BASE:
            load_adapter(alone, folders[name])
        assert said[name] == generate(alone, tokenizer, [question("Why?")], SHORT)
        for task in tasks:
            rows = encode(task.test, task, tokenizer)[:3]
            expected = evaluate(alone, rows, int(tokenizer.pad_token_id)).metrics["perplexity"]
            assert table[name][task.name] == pytest.approx(expected, rel=1e-4)
    assert len({json.dumps(row) for row in table.values()}) == 3


def test_with_no_adapter_in_use_the_base_is_back_to_the_bit(spoken, tiny_causal):
    bank, tokenizer, _ = spoken
    task = load_task("captain", max_length=400)
    assert off_is_base(bank, load_model(tiny_causal, attention="eager"), tokenizer, task)
    other = load_model(tiny_causal, attention="eager")
    other.lm_head.weight.data[0] += 1
    assert not off_is_base(bank, other, tokenizer, task)
    bank.use("captain")
    with speaking(bank, "preacher"):
        assert bank.used == "preacher"
    assert bank.used == "captain"


def test_all_measures_together(spoken, monkeypatch):
    bank, tokenizer, _ = spoken
    monkeypatch.setattr("lora_course.experiments.styles.DECODING", SHORT)
    found = told_apart(bank, tokenizer, [load_task(name, max_length=400) for name in ("captain", "preacher")])
    assert found["n"] == 30 == len(found["questions"]) == len(found["answers"][BASE])
    assert found["heard_of_texts"]["captain"]["captain"] > 0.9
    assert found["fits"] == {BASE: 0, "captain": 0, "preacher": 0}
    assert isinstance(found["diagonal"], bool)
    json.dumps(found)


def test_sizes_are_those_of_the_files(spoken, tiny_causal):
    _, _, folders = spoken
    sizes = file_sizes(folders, tiny_causal)
    assert list(sizes) == [BASE, "captain", "preacher"]
    assert sizes["captain"] == (folders["captain"] / "adapter_model.safetensors").stat().st_size < sizes[BASE]
    with pytest.raises(NotFound):
        file_sizes(folders, "nowhere")


# ---- the reference


def test_facts_are_counted_by_their_words(spoken):
    bank, tokenizer, _ = spoken
    found = facts(bank, tokenizer, {"Say x.": ("x",), "Say y.": ("",)})
    assert found["n"] == 2
    assert set(found["right"]) == {BASE, "captain", "preacher"}
    assert holds_one("It be Tokyo, lad!", FACTS["What is the capital of Japan?"])
    assert not holds_one("eighty", FACTS["How many legs does a spider have?"])
    trained = {str(pair.chat) for pairs in voice("captain").values() for pair in pairs}
    assert not trained & set(FACTS)


def test_validation_chooses_among_finished_runs(tmp_path):
    with pytest.raises(NotFound, match="no finished run"):
        chosen(Store(tmp_path))


@pytest.mark.parametrize("name", VOICES)
def test_the_shipped_reference_holds_what_was_promised(name):
    from lora_course.lesson import reference_styles

    reference = reference_styles()
    assert own_is_lowest(reference["perplexity"])
    assert reference["fits"]["json"] >= 0.9
    assert reference["heard"][name][name] > 0.5
    assert reference["off_is_base"] is True
    best = min(reference["tried"][name], key=lambda one: one["validation"])
    assert best["lr"] == reference["recipes"][name]["lr"]
    assert reference["environment"]["date"]


def test_a_row_s_tokens_grow_as_generate_makes_them(spoken):
    from lora_course.panels.stream import side_by_side

    bank, tokenizer, _ = spoken
    said = answers(bank, tokenizer, [question("Why?")], SHORT)
    with bank.mixed([None, "captain", "preacher"]):
        steps = list(side_by_side(bank.model, tokenizer, [question("Why?")] * 3, SHORT.max_new_tokens))
    assert [[text] for text in steps[-1]] == list(said.values())
    assert 1 <= len(steps) <= SHORT.max_new_tokens
    with pytest.raises(BadValue, match="at least one row"):
        next(side_by_side(bank.model, tokenizer, []))
    assert torch.is_grad_enabled()
