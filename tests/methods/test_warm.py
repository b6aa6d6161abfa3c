"""Training that begins from an adapter: its numbers are there, the head is one's own, what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from lora_lab import (
    IA3,
    BitFit,
    Bottleneck,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    load_adapter,
    save_adapter,
)
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.warm import attach_from
from tests.conftest import logits, randomise, tiny


def roberta(labels: int) -> nn.Module:
    """One base, and a head of so many classes."""
    config = tiny("roberta").config
    config.num_labels = labels
    torch.manual_seed(5)
    model = transformers.RobertaForSequenceClassification(config).eval()
    model.roberta.load_state_dict(tiny("roberta").roberta.state_dict())
    return model


@pytest.fixture
def mnli(tmp_path):
    """The folder of an adapter with three classes."""
    model = roberta(3)
    LoRA(rank=4, alpha=8).attach(model)
    randomise(model)
    return save_adapter(model, tmp_path / "mnli"), model


@pytest.mark.parametrize("labels", [2, 1])
def test_the_numbers_are_the_adapters_and_the_head_is_the_models(mnli, labels):
    folder, first = mnli
    model = roberta(labels)
    own = {name: p.clone() for name, p in model.classifier.named_parameters()}
    attach_from(LoRA(rank=4, alpha=8, dropout=0.1), model, folder)
    theirs = {name: p for name, p in first.named_parameters() if "lora_" in name}
    ours = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    head = dict(model.classifier.trained.named_parameters())
    assert all(torch.equal(head[name], own[name]) for name in own)
    assert all(p.requires_grad for p in (*ours.values(), *head.values()))


def test_with_the_head_beside_it_the_model_answers_as_the_loaded_one(mnli):
    folder, _ = mnli
    warm, loaded = roberta(3), roberta(3)
    attach_from(LoRA(rank=4, alpha=8), warm, folder)
    load_adapter(loaded, folder)
    warm.classifier.trained.load_state_dict(loaded.classifier.trained.state_dict())
    assert torch.equal(logits(warm), logits(loaded))


def test_a_whole_model_is_begun_from_too(tmp_path):
    first, second = roberta(3), roberta(2)
    FullFineTuning().attach(first)
    randomise(first)
    save_adapter(first, tmp_path)
    head = second.classifier.out_proj.weight.clone()
    attach_from(FullFineTuning(), second, tmp_path)
    assert torch.equal(
        second.roberta.embeddings.word_embeddings.weight, first.roberta.embeddings.word_embeddings.weight
    )
    assert torch.equal(second.classifier.out_proj.weight, head)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (LoRA(rank=8, alpha=8), "has rank 4 and this run 8"),
        (LoRA(rank=4, alpha=16), "has alpha 8 and this run 16"),
        (LoRA(rank=4, alpha=8, targets="q"), "has targets"),
        (FullFineTuning(), "has name 'lora' and this run 'full'"),
    ],
)
def test_another_method_is_refused(mnli, method, sentence):
    with pytest.raises(BadValue, match=sentence):
        attach_from(method, roberta(2), mnli[0])


def test_another_base_is_refused(mnli):
    model = roberta(2)
    model.roberta.embeddings.word_embeddings.weight.data += 1
    with pytest.raises(BadValue, match="trained on another base model"):
        attach_from(LoRA(rank=4, alpha=8), model, mnli[0])
    with pytest.raises(NotFound):
        attach_from(LoRA(rank=4, alpha=8), roberta(2), "/nowhere")


@pytest.mark.parametrize("labels", [3, 2])
@pytest.mark.parametrize(
    "method",
    [PromptTuning(tokens=3), PTuning(tokens=3), PrefixTuning(tokens=3), IA3(), BitFit(), Bottleneck(size=4)],
    ids=lambda method: method.name,
)
def test_every_method_leaves_the_head_behind(method, labels, tmp_path):
    first, second = roberta(3), roberta(labels)
    method.attach(first)
    randomise(first)
    save_adapter(first, tmp_path)
    own = {name: p.clone() for name, p in second.classifier.named_parameters()}
    attach_from(method, second, tmp_path)
    head = dict(second.classifier.trained.named_parameters())
    assert all(torch.equal(head[name], own[name]) for name in own)
    first.classifier.trained = second.classifier.trained  # with one head, the two models answer alike
    torch.testing.assert_close(logits(second), logits(first))
