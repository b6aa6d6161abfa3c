"""Tests of attaching: heads, wrappers, strength, and objects that are not models."""

import copy
import warnings

import pytest
import torch
import transformers
from torch import nn

from lora_lab import IA3, LoRA, Probe, PromptTuning, disabled, load_adapter, merge, save_adapter
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.merge import at_strength
from tests.conftest import BERT, logits, lora_layers, tiny
from tests.methods.conftest import raises_unchanged, with_adapter


def test_warning_about_a_head_that_stays_random():
    model = transformers.DebertaV2ForSequenceClassification(transformers.DebertaV2Config(**BERT, pooler_hidden_size=32))
    with pytest.warns(LabWarning, match="pooler of this DebertaV2ForSequenceClassification .* stays frozen"):
        LoRA(rank=2, targets=("query_proj",)).attach(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabWarning)
        for kind in ("gpt2", "roberta", "phi3", "llama", "bert"):
            LoRA(rank=2).attach(tiny(kind))
            PromptTuning(tokens=2).attach(tiny(kind))


@pytest.mark.parametrize("method", [LoRA(rank=4), Probe()], ids=["lora", "probe"])
def test_model_can_be_cast_after_attaching(method):
    model = with_adapter("roberta", method)
    before = logits(model)
    after = logits(model.to(torch.bfloat16))
    assert after.dtype == torch.float32
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.1)


def test_disabled_can_keep_the_head_and_ends_after_an_error():
    model, plain = with_adapter("roberta", LoRA(rank=4)), tiny("roberta")
    plain.classifier = copy.deepcopy(model.classifier.trained)
    adapted = logits(model)
    with disabled(model, keep_head=True):
        torch.testing.assert_close(logits(model), logits(plain))
    with pytest.raises(KeyError), disabled(model):
        raise KeyError
    assert torch.equal(logits(model), adapted)


def test_at_strength_scales_the_update():
    model, scaled = (with_adapter("roberta", LoRA(rank=4)) for _ in range(2))
    adapted = logits(model)
    for strength in (1.0, 0.5, 0.0):
        for layer, original in zip(lora_layers(scaled), lora_layers(model), strict=True):
            layer.lora_B.data = strength * original.lora_B.data
        with at_strength(model, strength):
            torch.testing.assert_close(logits(model), logits(scaled))
        assert torch.equal(logits(model), adapted)
    model = with_adapter("roberta", IA3())
    with at_strength(model, 0), at_strength(model, 1):
        pass
    with pytest.raises(BadValue, match=r"use 0 \(off\) or 1 \(on\) for this ia3"), at_strength(model, 0.5):
        pass


@torch.no_grad()
def test_torch_encoder_layer_uses_its_adapters_in_eval_mode():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    model, x = nn.TransformerEncoder(layer, 1).eval(), torch.randn(2, 5, 16)
    base = model(x)
    adapted = with_adapter(model, LoRA(rank=2, targets="all-linear"))(x)
    torch.testing.assert_close(adapted, model.train()(x))  # in training mode, torch calls each layer
    with disabled(model.eval()):
        torch.testing.assert_close(model(x), base)
    merge(model)
    torch.testing.assert_close(model(x), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_wrapped_model_is_refused_by_attach_and_saved_by_save_adapter(wrap, tmp_path):
    model, loaded = tiny("roberta"), tiny("roberta")
    wrapped = wrap(model)
    with raises_unchanged(model, r"pass the inner model, model\.(_orig_mod|module)"):
        LoRA(rank=2).attach(wrapped)
    with_adapter(model, LoRA(rank=2))
    load_adapter(loaded, save_adapter(wrapped, tmp_path))
    assert torch.equal(logits(loaded), logits(model))


def test_single_layer_is_refused():
    layer = nn.Linear(4, 4)
    with raises_unchanged(layer, r"nn\.Sequential\(layer\)"):
        LoRA(rank=2, targets="all-linear").attach(layer)
    LoRA(rank=2, targets="all-linear").attach(nn.Sequential(layer))


@pytest.mark.parametrize("function", [LoRA().attach, lambda model: load_adapter(model, "folder")])
def test_model_given_as_a_string_is_refused(function):
    with pytest.raises(BadValue, match=r"'minilm' is a str, not a model: .*load_model\(name\)"):
        function("minilm")
