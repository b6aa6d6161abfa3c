"""A film of a step: added up, its changes are the trace, at every moment of every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lora_lab import FullFineTuning, LoRA, memory
from lora_lab.accounting.film import CATEGORIES, filmed, folded, moments, unfolded
from lora_lab.accounting.setup import Setup
from tests.accounting.test_memory import T5

GPT2 = {"model_type": "gpt2", "n_layer": 7, "n_embd": 64, "n_head": 2, "n_positions": 256, "vocab_size": 500}
LORA = LoRA(rank=4, targets=("q", "v"))
PHASES = ("forward", "backward")


def by_category(told):
    """Bytes by category at each moment of each phase, without moments that move bytes between parts of the model."""
    rows = [[(m.phase, *(m.bytes.get(c, 0) for c in CATEGORIES)) for m in told if m.phase == phase] for phase in PHASES]
    return [[row for i, row in enumerate(own) if not i or row != own[i - 1]] for own in rows]


@pytest.mark.parametrize(("method", "checkpointing"), [(FullFineTuning(), False), (LORA, True)])
def test_a_film_is_the_trace_at_every_moment(method, checkpointing):
    told = filmed(GPT2, method, Setup(batch=2, seq=64, checkpointing=checkpointing))
    assert json.loads(json.dumps(told)) == told
    setup = Setup(batch=5, seq=131, checkpointing=checkpointing)
    real = memory(GPT2, method, trace=True, batch=5, seq=131, checkpointing=checkpointing)
    own = moments(told, 4, setup)
    assert by_category(own) == by_category(real.timeline)
    assert max(sum(m.bytes.values()) for m in own) == real.peak


def test_what_cannot_be_interpolated_is_the_film_of_one_step():
    told = filmed(T5, LORA, setup := Setup(batch=2, seq=24))
    assert told["fixed"] == [2, 24]
    assert max(sum(m.bytes.values()) for m in moments(told, 4, setup)) == memory(T5, LORA, batch=2, seq=24).peak


def test_it_is_made_once(monkeypatch):
    first = filmed(GPT2, LORA, Setup(batch=2, seq=64, checkpointing=True))
    monkeypatch.setattr("lora_lab.accounting.film.fit", None)
    other = Setup(batch=1, seq=99, optimizer="sgd", checkpointing=True)
    assert filmed(GPT2, LoRA(rank=16, targets=("q", "v")), other) == first


def test_repeats_are_folded_and_come_back():
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer = rng.integers(0, 9, 12).tolist()
        numbers = [*rng.integers(0, 9, 5).tolist(), *layer * 30, *rng.integers(0, 9, 5).tolist(), *layer[::-1] * 9]
        told = folded(numbers)
        assert unfolded(told) == numbers
        assert len(json.dumps(told)) < len(json.dumps(numbers)) / 4
