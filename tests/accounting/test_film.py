"""A film of a step: added up, its changes are the trace, at every moment of every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lora_lab import FullFineTuning, LoRA, PromptTuning, memory
from lora_lab.accounting.film import CATEGORIES, filmed, folded, moments, unfolded
from lora_lab.accounting.fit import STEP
from lora_lab.accounting.setup import OPTIMIZERS, Setup

GPT2 = {"model_type": "gpt2", "n_layer": 7, "n_embd": 64, "n_head": 2, "n_positions": 256, "vocab_size": 500}
LORA = LoRA(rank=4, targets=("q", "v"))
PHASES = ("forward", "backward")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def by_category(told):
    return [[(m.phase, *(m.bytes.get(c, 0) for c in CATEGORIES)) for m in told if m.phase == phase] for phase in PHASES]


def thinned(rows):
    """Without moments that only move bytes from one part of the model to another."""
    return [row for i, row in enumerate(rows) if not i or row != rows[i - 1]]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", [FullFineTuning(), LORA, PromptTuning(tokens=5)], ids=lambda m: m.name)
def test_a_film_is_the_trace_at_every_moment(method, checkpointing):
    told = filmed(GPT2, method, Setup(batch=2, seq=64, checkpointing=checkpointing))
    assert json.loads(json.dumps(told)) == told
    for batch, seq in ((2, 96), (5, 131)):
        setup = Setup(batch=batch, seq=seq, checkpointing=checkpointing)
        real = memory(GPT2, method, trace=True, batch=batch, seq=seq, checkpointing=checkpointing)
        for own, traced in zip(by_category(moments(told, 4, setup)), by_category(real.timeline), strict=True):
            assert own == thinned(traced)
        assert max(sum(m.bytes.values()) for m in moments(told, 4, setup)) == real.peak


def test_rank_and_optimizer_are_in_it():
    told = filmed(GPT2, LORA, Setup(batch=2, seq=64))
    for rank, optimizer in zip((1, 7, 2, 16, 3), OPTIMIZERS, strict=True):
        own = moments(told, rank, Setup(batch=3, seq=80, optimizer=optimizer))
        real = memory(GPT2, LoRA(rank=rank, targets=("q", "v")), batch=3, seq=80, optimizer=optimizer, trace=True)
        top = max(own, key=lambda moment: sum(moment.bytes.values()))
        assert {name: size for name, size in top.bytes.items() if size} == real.categories
        assert sum(own[-1].bytes.values()) == real.phases[STEP]


def test_what_cannot_be_interpolated_is_the_film_of_one_step():
    t5 = {"model_type": "t5", "num_layers": 2, "d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "vocab_size": 99}
    setup = Setup(batch=2, seq=24)
    told = filmed(t5, LORA, setup)
    assert told["fixed"] == [2, 24]
    assert max(sum(m.bytes.values()) for m in moments(told, 4, setup)) == memory(t5, LORA, batch=2, seq=24).peak


def test_it_is_made_once(monkeypatch):
    first = filmed(GPT2, LORA, Setup(batch=2, seq=64))
    monkeypatch.setattr("lora_lab.accounting.film.made", None)
    assert filmed(GPT2, LoRA(rank=16, targets=("q", "v")), Setup(batch=1, seq=99, optimizer="sgd")) == first


def test_repeats_are_folded_and_come_back():
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer = rng.integers(0, 9, 12).tolist()
        numbers = [*rng.integers(0, 9, 5).tolist(), *layer * 30, *rng.integers(0, 9, 5).tolist(), *layer[::-1] * 9]
        told = folded(numbers)
        assert unfolded(told) == numbers
        assert len(json.dumps(told)) < len(json.dumps(numbers)) / 4


def test_layers_are_counted_up_in_forward_and_down_in_backward():
    told = filmed(GPT2, LORA, Setup(batch=2, seq=64))
    layer, seen = 0, {phase: [] for phase in PHASES}
    for change in unfolded(told["moments"]):
        part, further, *_ = told["changes"][change]
        layer += further
        phase, path = told["parts"][part]
        if "*" in path and layer not in seen[phase][-1:]:
            seen[phase].append(layer)
    assert seen == {"forward": [0, 1, 2, 3, 4, 5, 6], "backward": [6, 5, 4, 3, 2, 1, 0]}
