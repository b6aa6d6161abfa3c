"""Shortcuts of BERT-like models, the softmax in fp32 and a last layer for one token: same answers, same gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from lora_lab import LoRA
from lora_lab.training.models import SHORT_ROWS, answer_at_first_token, attend_in_fp32
from tests.conftest import logits, randomise, tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_fp32_is_that_of_transformers(dtype):
    theirs, ours = (tiny("roberta").to(dtype) for _ in range(2))
    for model in (theirs, ours):
        model.set_attn_implementation("eager")
    attend_in_fp32(ours)
    assert ours.config._attn_implementation == SHORT_ROWS
    close = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    assert_alike(theirs, ours, **close)


@pytest.mark.parametrize(("targets", "attention"), [("q,v", "sdpa"), ("all-linear", "eager"), ("k,o", "sdpa")])
def test_a_last_layer_for_one_token_is_as_one_for_all(targets, attention):
    whole = tiny("roberta")
    whole.set_attn_implementation(attention)
    LoRA(4, targets=targets).attach(whole)
    randomise(whole)
    short = copy.deepcopy(whole)
    answer_at_first_token(short)
    assert_alike(whole, short, atol=1e-5, rtol=1e-3)


def assert_alike(one, other, **close: float) -> None:
    """Answers to a padded batch and the gradients of all that trains."""
    answers = [logits(model) for model in (one, other)]
    torch.testing.assert_close(*answers, **close)
    for answer in answers:
        answer.square().sum().backward()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, **close)


def test_the_last_layer_really_works_for_one_token_only():
    model, shapes = tiny("roberta"), []
    answer_at_first_token(model)
    for layer in model.roberta.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[:2])))
    model(input_ids=torch.ones(2, 7, dtype=torch.long))
    assert shapes == [(2, 7), (2, 1)]


@pytest.mark.parametrize(("kind", "attention"), [("gpt2", "eager"), ("llama", "eager"), ("roberta", "sdpa")])
def test_other_models_and_other_attention_are_left_alone(kind, attention):
    model = tiny(kind)
    model.set_attn_implementation(attention)
    attend_in_fp32(model)
    assert model.config._attn_implementation == attention
    if kind != "roberta":  # whose head reads every token
        answer_at_first_token(model)
        assert not any(module._forward_pre_hooks for module in model.modules())
