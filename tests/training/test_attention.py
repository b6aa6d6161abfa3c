"""Attention for short rows: transformers' own answers and gradients, on models it takes, and others left alone."""

from __future__ import annotations

import pytest
import torch

from lora_lab.training.models import SHORT_ROWS, attend_in_fp32
from tests.conftest import logits, tiny


def _answers(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a padded batch, and the gradient of the first query weight."""
    answer = logits(model)
    answer.square().sum().backward()
    weight = next(p for name, p in model.named_parameters() if name.endswith("query.weight"))
    return answer.detach(), weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_and_gradients_are_those_of_transformers(dtype):
    theirs, ours = (tiny("roberta").to(dtype) for _ in range(2))
    for model in (theirs, ours):
        model.set_attn_implementation("eager")
    attend_in_fp32(ours)
    assert ours.config._attn_implementation == SHORT_ROWS
    close = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    for a, b in zip(_answers(ours), _answers(theirs), strict=True):
        torch.testing.assert_close(a, b, **close)


@pytest.mark.parametrize(("kind", "attention"), [("gpt2", "eager"), ("roberta", "sdpa")])
def test_other_models_and_other_attention_are_left_alone(kind, attention):
    model = tiny(kind)
    model.set_attn_implementation(attention)
    attend_in_fp32(model)
    assert model.config._attn_implementation == attention
