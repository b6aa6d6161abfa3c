"""The probe's head on every kind of classifier: what it reads, what it leaves alone, and that it goes again."""

import pytest
import torch
import transformers
from torch import nn

from lora_lab import Probe, detach, disabled, params
from lora_lab.methods.attach import PooledHead, report_of
from lora_lab.methods.packed import share
from tests.conftest import logits, randomise, snapshot, tiny

KINDS = ("bert", "roberta", "gpt2")  # a head that reads one vector, a row's tokens, or every token


def classifier(kind: str) -> nn.Module:
    """A small random classifier into three classes."""
    if kind in ("bert", "roberta"):
        return tiny(kind)
    config = tiny(kind).config
    config.num_labels, config.pad_token_id = 3, 0
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def head_of(model: nn.Module) -> PooledHead:
    return next(module for module in model.modules() if isinstance(module, PooledHead))


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_from_the_mean_of_a_rows_own_tokens_until_it_goes_again(kind):
    model = classifier(kind).requires_grad_(False)
    before, answer = snapshot(model), logits(model)
    ids = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    hidden = model.base_model(input_ids=ids, attention_mask=mask)[0]
    means = torch.stack([hidden[0].mean(0), hidden[1, :6].mean(0)])
    report = Probe().attach(model)
    assert report_of(model) is report
    assert (report.adapter_parameters, report.head_parameters) == (0, 3 * 32 + 3)
    assert logits(model).abs().max() == 0  # all classes alike until it is solved
    randomise(model)
    head = head_of(model).trained
    assert torch.allclose(logits(model), means @ head.weight.T + head.bias, atol=1e-5)
    with disabled(model):
        assert torch.equal(logits(model), answer)
    detach(model)
    assert torch.equal(logits(model), answer)
    assert snapshot(model) == before
    assert not model.base_model._forward_hooks


def test_a_copy_listens_to_its_own_model():
    one = classifier("bert")
    Probe().attach(one)
    other = share(one)
    other.base_model.register_forward_hook(lambda module, given, out: (out[0] * 0, *out[1:]), prepend=True)
    head = head_of(other)
    logits(one)
    one_answer = logits(one)
    randomise(one)
    assert not torch.equal(logits(one), one_answer)
    ids = torch.ones(2, 5, dtype=torch.long)
    other.base_model(input_ids=ids)
    assert head.features().abs().max() == 0
    detach(other)
    assert head_of(one).hook.id in one.base_model._forward_hooks
    assert head_of(one).hook.id not in other.base_model._forward_hooks


def test_it_is_counted():
    counted = params("minilm", Probe(), num_labels=2)
    assert (counted.trainable, counted.head) == (0, 770)
    roberta = params("roberta-base", Probe(), num_labels=3)  # whose own head would be far larger
    assert 0 < roberta.adapter_bytes - 4 * 3 * 769 < 1000  # the header
