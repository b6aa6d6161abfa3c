"""Tests of time budgets: methods are timed, the number of steps is cached, and the arithmetic is right."""

from functools import partial
from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock

from lora_lab import BadValue, LoRA
from lora_lab.experiments import budget
from lora_lab.experiments.compare import Terms
from tests.conftest import PLAIN


def test_methods_are_timed_and_steps_are_cached(tiny_encoder, opinions, tmp_path):
    terms = Terms(tiny_encoder, opinions, batch=4, rates=2, growth=1, seeds=3, fields=PLAIN)
    methods = [LoRA(rank=2), LoRA(targets="c_attn")]  # BERT has no c_attn
    messages: list[str] = []
    steps = budget.steps_within(60, terms, methods, tmp_path, messages.append)
    assert steps > 100
    assert "in a pack of 2" in messages[0]
    assert "not timed" in messages[1]
    assert f"{steps} steps each" in messages[2]
    assert budget.steps_within(60, terms, methods, tmp_path, messages.append) == steps
    assert len(messages) == 4  # nothing was timed again


def test_unpackable_runs_do_not_share_a_step(recipe, monkeypatch):
    """DeBERTa, for example, trains one run after the other."""
    pack = [recipe(method=LoRA(rank=2), lr=rate) for rate in (1e-3, 2e-3)]
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=partial(next, count())))  # a second per step
    assert budget.pack_timed(pack).step == 1 / 2
    monkeypatch.setattr("lora_lab.training.pack.stack_members", Mock(side_effect=BadValue("cannot be packed")))
    assert budget.pack_timed(pack).step == 1
