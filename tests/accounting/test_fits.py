"""What fits: searches land exactly on the edge, and models that cannot be tried are passed over."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import FullFineTuning, LoRA, PromptTuning
from lora_lab.accounting.gpus import card, usable
from lora_lab.accounting.memory import check_length, estimate, largest, largest_model, longest, most, quick
from lora_lab.accounting.models import architecture_of, config_of, zoo_names
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue


@given(edge=st.integers(0, 10**6), limit=st.none() | st.integers(0, 10**6))
def test_most_lands_on_the_edge(edge, limit):
    expected = min(edge, edge if limit is None else limit)
    assert most(lambda n: n <= edge, limit) == (expected or None)


@pytest.mark.parametrize("name", ["minilm", "gpt2", "llama-3-8b"])
@pytest.mark.parametrize("method", [LoRA(), FullFineTuning(), PromptTuning()], ids=lambda m: m.name)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_more_row_or_token_would_not_fit(name, method, checkpointing):
    setup, room = Setup(seq=128, checkpointing=checkpointing), 100 * GIB
    last = longest(config_of(name))
    for field, limit in (("batch", None), ("seq", last - 20 if last else None)):
        step = partial(estimate, name, method)
        found = largest(field, setup, step, room, limit)
        assert step(replace(setup, **{field: found})).peak <= room
        assert found == limit or step(replace(setup, **{field: found + 1})).peak > room


def test_nothing_fits_where_a_single_row_does_not():
    for field in ("batch", "seq"):
        assert largest(field, Setup(), partial(estimate, "llama-3-8b", FullFineTuning()), 24 * GIB) is None


@pytest.mark.parametrize(
    ("name", "tokens"), [("gpt2", 1024), ("bert-base", 512), ("roberta-base", 512), ("llama-3-8b", None)]
)
def test_learned_positions_end_and_rotary_ones_do_not(name, tokens):
    config = config_of(name)
    assert longest(config) == tokens
    if tokens:
        check_length(config, LoRA(), Setup(seq=tokens))
        check_length(config, PromptTuning(20), Setup(seq=tokens - 20))
        with pytest.raises(BadValue, match="beside a prompt of 20"):
            check_length(config, PromptTuning(20), Setup(seq=tokens - 19))


def test_the_largest_model_that_lora_trains_on_24_gb():
    room = usable(card("4090"))
    name = largest_model(LoRA(), Setup(seq=512), room, zoo_names())
    assert architecture_of(name).total > 6e9
    assert quick(name, LoRA(), Setup(seq=512)).peak <= room


def test_models_that_cannot_read_rows_so_long_or_lack_the_targets_are_passed_over():
    names = ["bert-base", "deepseek-v3"]
    assert largest_model(LoRA(), Setup(seq=600), 10**15, names) is None
    assert largest_model(LoRA(), Setup(seq=600), 10**15, [*names, "minilm", "smollm2"]) == "smollm2"


def test_quantising_and_checkpointing_let_a_larger_model_in_and_full_a_smaller_one():
    room, setup = 48 * GIB, Setup(seq=512)
    sizes = [
        architecture_of(largest_model(method, conditions, room, zoo_names())).total
        for method, conditions in (
            (FullFineTuning(), setup),
            (LoRA(), setup),
            (LoRA(targets="all-linear"), replace(setup, quantised="nf4", checkpointing=True)),
        )
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2]
    assert largest_model(LoRA(), setup, 2**20, zoo_names()) is None
