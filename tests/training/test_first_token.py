"""The last layer asked for one token: the same answers and the same gradients as asked for all."""

from __future__ import annotations

import copy

import pytest
import torch

from lora_lab import LoRA
from lora_lab.training.models import answer_at_first_token
from tests.conftest import randomise, tiny


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("targets", ["q,v", "all-linear", "k,o"])
def test_answers_and_gradients_are_the_same(targets, attention):
    whole = tiny("roberta")
    whole.set_attn_implementation(attention)
    LoRA(4, targets=targets).attach(whole)
    randomise(whole)
    short = copy.deepcopy(whole)
    answer_at_first_token(short)
    ids = torch.randint(2, 96, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    logits = [model(input_ids=ids, attention_mask=mask).logits for model in (whole, short)]
    assert torch.allclose(*logits, atol=1e-5)
    for answer in logits:
        answer.square().sum().backward()
    for one, other in zip(whole.parameters(), short.parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_the_last_layer_really_works_for_one_token_only():
    model, shapes = tiny("roberta"), []
    answer_at_first_token(model)
    for layer in model.roberta.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[:2])))
    model(input_ids=torch.ones(2, 7, dtype=torch.long))
    assert shapes == [(2, 7), (2, 1)]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_whose_head_reads_every_token_is_left_alone(kind):
    model = tiny(kind)
    answer_at_first_token(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
