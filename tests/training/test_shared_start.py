"""Lanes that read the same rows: the first layer's frozen products are made once, and the answers stay the same."""

from __future__ import annotations

import pytest
import torch

from lora_lab import LoRA, PrefixTuning, PromptTuning, PTuning
from lora_lab.training.evaluate import logits_of
from lora_lab.training.pack import Pack


def _batch(pack: Pack):
    return next(pack.batches())[1]


def _rows_seen(pack: Pack, batch) -> list[int]:
    """Rows that the first layer's frozen key weight multiplied."""
    seen: list[int] = []
    weight = pack.base.base_model.encoder.layer[0].attention.self.key.weight
    own = next(m for m in pack.model.modules() if getattr(m, "weight", None) is weight)
    hook = own.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:-1].numel()))
    logits_of(pack.model, batch)
    hook.remove()
    return seen


@pytest.mark.parametrize(("seeds", "different"), [((0, 0, 0), 1), ((0, 1, 0), 2), ((0, 1, 2), 3)])
def test_the_same_rows_are_multiplied_once(recipe, seeds, different):
    pack = Pack([recipe(lr=1e-3 * (n + 1), seed=seed) for n, seed in enumerate(seeds)])
    batch = _batch(pack)
    assert _rows_seen(pack, batch) == [different * batch.input_ids.numel() // 3]


@torch.no_grad()
@pytest.mark.parametrize("method", [LoRA(2), PromptTuning(3), PTuning(3), PrefixTuning(3)], ids=lambda m: m.name)
def test_each_lane_answers_as_it_does_alone(recipe, method):
    alike = {"method": method, "max_length": 64}
    pack = Pack([recipe(lr=1e-3 * (n + 1), seed=seed, **alike) for n, seed in enumerate((0, 1, 0))])
    for lane in pack.lanes:
        for parameter in lane.trained:
            parameter.normal_(std=0.1)
    batch = _batch(pack)
    together = logits_of(pack.model.eval(), batch).chunk(3)
    for lane, answer, ids, mask in zip(
        pack.lanes, together, batch.input_ids.chunk(3), batch.attention_mask.chunk(3), strict=True
    ):
        alone = lane.model.eval()(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(answer, alone, atol=1e-5, rtol=1e-5)
