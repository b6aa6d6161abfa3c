"""Shortcuts of BERT-like models, the softmax in fp32 and a last layer for one token: same answers, same gradients."""

import copy

import pytest
import torch

from lora_lab import LoRA, PrefixTuning, Probe, PromptTuning
from lora_lab.training.models import SHORT_ROWS, take_shortcuts
from tests.conftest import logits, randomise, tiny


@pytest.mark.parametrize(
    ("method", "attention", "dtype"),
    [
        (Probe(), "eager", torch.float32),
        (PrefixTuning(tokens=5), "eager", torch.float32),
        (PrefixTuning(tokens=5), "sdpa", torch.float32),
        (PromptTuning(tokens=5), "sdpa", torch.float32),
        (LoRA(4), "eager", torch.bfloat16),
        (LoRA(4), "sdpa", torch.float32),
        (LoRA(4, targets="all-linear"), "eager", torch.float32),
        (LoRA(4, targets="k,o"), "sdpa", torch.float32),
    ],
)
def test_a_model_with_shortcuts_answers_and_learns_as_one_without(method, attention, dtype):
    whole = tiny("roberta").to(dtype)
    whole.set_attn_implementation(attention)
    method.attach(whole)
    randomise(whole)
    short, lengths = copy.deepcopy(whole), []
    take_shortcuts(short, method)
    for layer in short.roberta.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    assert short.config._attn_implementation == (SHORT_ROWS if attention == "eager" else attention)
    close = {"atol": 1e-5, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    answers = [logits(model) for model in (whole, short)]
    torch.testing.assert_close(*answers, **close)
    assert lengths[-1] == (9 if isinstance(method, Probe) else 1)
    for answer in answers:
        answer.square().sum().backward()
    for a, b in zip(whole.parameters(), short.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, **close)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_other_models_are_left_alone(kind):
    model = tiny(kind)
    model.set_attn_implementation("eager")
    take_shortcuts(model, LoRA())
    assert model.config._attn_implementation == "eager"
    assert not any(module._forward_pre_hooks for module in model.modules())
