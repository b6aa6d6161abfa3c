"""Minutes become steps: methods are timed once, the arithmetic is right, and a repeat keeps the steps."""

from functools import partial
from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from lora_lab import BadValue, LoRA, Recipe
from lora_lab.experiments import budget
from lora_lab.experiments.budget import steps_within
from lora_lab.experiments.compare import Terms
from tests.conftest import PLAIN

METHODS = [LoRA(rank=2), LoRA(targets="c_attn")]  # the second fits no BERT


@pytest.fixture
def terms(tiny_encoder, opinions) -> Terms:
    return Terms(tiny_encoder, opinions, batch=4, rates=2, growth=1, seeds=3, fields=PLAIN)


def test_methods_are_timed_for_real_and_the_steps_are_kept(terms, tmp_path):
    said: list[str] = []
    steps = steps_within(60, terms, METHODS, tmp_path, said.append)
    assert steps > 100
    assert "in a pack of 2" in said[0]
    assert "not timed" in said[1]
    assert f"{steps} steps each" in said[2]
    assert steps_within(60, terms, METHODS, tmp_path, said.append) == steps
    assert len(said) == 4  # nothing was timed again


def test_runs_that_cannot_train_side_by_side_have_their_steps_to_themselves(tiny_encoder, opinions, monkeypatch):
    """As DeBERTa's, whose sweep trains one after the other."""
    members = [Recipe(tiny_encoder, opinions, LoRA(rank=2), lr=rate, batch=4, **PLAIN) for rate in (1e-3, 2e-3)]
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=partial(next, count())))  # a step, a second
    assert budget.pack_timed(members).step == 1 / 2
    monkeypatch.setattr("lora_lab.training.pack.stack_members", Mock(side_effect=BadValue("cannot stand in a pack")))
    assert budget.pack_timed(members).step == 1
