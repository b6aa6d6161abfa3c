"""Tests of films: the stored changes add up to the trace at every moment."""

import json

import numpy as np
import pytest

from lora_lab import FullFineTuning, LoRA, memory
from lora_lab.accounting.film import CATEGORIES, filmed, folded, moments, unfolded
from lora_lab.accounting.setup import Setup
from tests.accounting.test_memory import T5

GPT2 = {"model_type": "gpt2", "n_layer": 6, "n_embd": 64, "n_head": 2, "n_positions": 256, "vocab_size": 500}
LORA = LoRA(rank=4, targets=("q", "v"))


def bytes_by_category(timeline):
    """List the bytes at each moment of each phase, without moments that only move bytes between modules."""
    phases = []
    for phase in ("forward", "backward"):
        rows = [[m.bytes.get(category, 0) for category in CATEGORIES] for m in timeline if m.phase == phase]
        phases.append([row for i, row in enumerate(rows) if not i or row != rows[i - 1]])
    return phases


@pytest.mark.parametrize(("method", "checkpointing"), [(LORA, False), (FullFineTuning(), True)])
def test_film_equals_the_trace_at_every_moment(method, checkpointing):
    film = filmed(GPT2, method, Setup(batch=2, seq=64, checkpointing=checkpointing))
    assert json.loads(json.dumps(film)) == film
    timeline = moments(film, 4, Setup(batch=5, seq=131, checkpointing=checkpointing))
    trace = memory(GPT2, method, trace=True, batch=5, seq=131, checkpointing=checkpointing)
    assert bytes_by_category(timeline) == bytes_by_category(trace.timeline)
    assert max(sum(m.bytes.values()) for m in timeline) == trace.peak


def test_film_of_a_model_without_a_fit_holds_one_step():
    setup = Setup(batch=2, seq=24)
    film = filmed(T5, LORA, setup)
    assert film["fixed"] == [2, 24]
    assert max(sum(m.bytes.values()) for m in moments(film, 4, setup)) == memory(T5, LORA, batch=2, seq=24).peak


def test_film_is_cached(monkeypatch):
    film = filmed(GPT2, LORA, Setup(batch=2, seq=64))
    monkeypatch.setattr("lora_lab.accounting.film.fit", None)
    assert filmed(GPT2, LoRA(rank=16, targets=("q", "v")), Setup(batch=1, seq=99, optimizer="sgd")) == film


def test_folding_is_reversible_and_shortens_repeats():
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer = rng.integers(0, 9, 12).tolist()
        numbers = [*rng.integers(0, 9, 5).tolist(), *layer * 30, *rng.integers(0, 9, 5).tolist(), *layer[::-1] * 9]
        folds = folded(numbers)
        assert unfolded(folds) == numbers
        assert len(json.dumps(folds)) < len(json.dumps(numbers)) / 4
