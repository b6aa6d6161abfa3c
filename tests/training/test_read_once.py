"""Lanes of which only the heads train: the frozen body reads each text once, and runs come out as they do alone."""

from __future__ import annotations

import pytest
import torch

from lora_lab import BitFit, LoRA, PromptTuning, sweep
from lora_lab.methods import read_once
from lora_lab.methods.full import HeadOnly
from lora_lab.training.evaluate import logits_of
from lora_lab.training.pack import Pack
from lora_lab.training.train import Bench


def _rows_read(pack: Pack) -> list[int]:
    """Fills up, call by call, with the rows that the body's embeddings are asked for."""
    seen: list[int] = []
    table = pack.base.base_model.embeddings.word_embeddings.weight
    own = next(m for m in pack.model.modules() if getattr(m, "weight", None) is table)
    own.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    return seen


@pytest.fixture
def heads(recipe) -> Pack:
    return Pack([recipe(method=HeadOnly(), lr=1e-2, seed=seed, steps=12) for seed in (0, 1, 0)])


def test_a_text_is_read_once_however_often_it_comes(heads):
    seen = _rows_read(heads)
    heads.run()
    texts = {tuple(row.tokens) for rows in heads.rows.values() for row in rows}
    assert 0 < sum(seen) <= len(texts)


def test_each_lane_comes_out_as_it_does_alone(heads):
    together = heads.run()
    alone = [Bench(run.recipe).only() for run in together]
    for one, other in zip(together, alone, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], abs=1e-6)
        assert one.history["loss"] == pytest.approx(other.history["loss"], abs=1e-6)


def test_no_more_is_kept_than_there_is_room_for(heads, monkeypatch):
    batch = next(heads.batches())[1]
    want = logits_of(heads.model, batch)
    monkeypatch.setattr(read_once, "ROWS", 5)
    torch.testing.assert_close(logits_of(heads.model, batch), want)  # all are kept already
    other = next(heads.batches())[1]
    logits_of(heads.model, other)
    assert len(heads.model.base_model.kept) <= len(other.input_ids)


@pytest.mark.parametrize("method", [LoRA(2), BitFit(), PromptTuning(3)], ids=lambda m: m.name)
def test_what_acts_inside_the_body_has_it_read_anew(recipe, method):
    pack = Pack([recipe(method=method, seed=seed, max_length=64) for seed in (0, 1)])
    seen, batch = _rows_read(pack), next(pack.batches())[1]
    for _ in range(2):
        logits_of(pack.model, batch)
    assert len(seen) >= 2
    assert seen[0] == seen[-1]


def test_a_sweep_over_heads_keeps_files_that_answer_as_they_did(recipe, tmp_path):
    from lora_lab import evaluate_adapter

    one, two = sweep([recipe(method=HeadOnly(), lr=1e-2, seed=seed) for seed in (0, 1)], tmp_path).runs
    for run in (one, two):
        found = evaluate_adapter(run.adapter, run.recipe.task, dtype="fp32", attention="eager", device_name="cpu")
        assert found["loss"] == pytest.approx(run.metrics["loss"], abs=1e-5)
