"""Attaching LoRA to real architectures: what is touched, what is not, and what is refused."""

import copy
import warnings

import pytest
import torch
import transformers
from torch import nn

from lora_lab import (
    IA3,
    LoRA,
    Probe,
    PromptTuning,
    disabled,
    load_adapter,
    merge,
    save_adapter,
)
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.attach import sites_of
from lora_lab.methods.merge import at_strength
from tests.conftest import BART, BERT, logits, lora_layers, tiny
from tests.methods.conftest import refused, with_adapter

TINY = ("gpt2", "roberta", "phi3", "llama")


# ---- what is touched


@pytest.mark.parametrize(
    ("kind", "targets"), [("gpt2", "down"), ("phi3", "all-linear"), ("llama", "embed,q"), ("roberta", "v,o")]
)
def test_adapters_take_the_mode_of_the_model_and_the_report_names_where_they_are(kind, targets):
    for training in (False, True):
        model = tiny(kind).train(training)
        method = LoRA(rank=3, dropout=0.5, targets=targets, rank_pattern={"*.1.*": 2})
        placements = method.place(sites_of(model))
        report = method.attach(model)
        assert report.placements == placements
        assert all(p.site.module in str(report) for p in placements)
        sizes = [p.rank * (p.site.in_features + p.site.out_features) for p in placements]
        trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert report.adapter_parameters == sum(sizes) == trains - report.head_parameters
        assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize(
    ("kind", "size", "head"),
    [
        ("BertForQuestionAnswering", BERT, "qa_outputs"),
        ("BertForTokenClassification", BERT, "classifier"),
        ("BartForSequenceClassification", BART, "classification_head"),
    ],
)
def test_the_head_of_another_task_trains_too(kind, size, head):
    made = getattr(transformers, kind)
    model = made(made.config_class(**size)).eval()
    assert [name for name, _ in LoRA(rank=2).attach(model).heads] == [head]
    assert all(p.requires_grad for p in model.get_submodule(f"{head}.trained").parameters())


def test_a_head_that_would_stay_random_is_named():
    model = transformers.DebertaV2ForSequenceClassification(transformers.DebertaV2Config(**BERT, pooler_hidden_size=32))
    with pytest.warns(LabWarning, match="pooler of this DebertaV2ForSequenceClassification .* stays frozen"):
        LoRA(rank=2, targets=("query_proj",)).attach(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabWarning)
        for kind in (*TINY, "bert"):
            LoRA(rank=2).attach(tiny(kind))
            PromptTuning(tokens=2).attach(tiny(kind))


# ---- what the model answers


@pytest.mark.parametrize("method", [LoRA(rank=4), Probe()], ids=["lora", "probe"])
def test_a_model_cast_after_attaching_still_answers_about_the_same(method):
    model = with_adapter("roberta", method)
    before = logits(model)
    after = logits(model.to(torch.bfloat16))
    assert after.dtype == torch.float32
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.1)


def test_disabled_may_keep_the_trained_head_and_is_undone_after_an_error():
    model, plain = with_adapter("roberta", LoRA(rank=4)), tiny("roberta")
    plain.classifier = copy.deepcopy(model.classifier.trained)
    adapted = logits(model)
    with disabled(model, keep_head=True):
        torch.testing.assert_close(logits(model), logits(plain))
    with pytest.raises(KeyError), disabled(model):
        raise KeyError
    assert torch.equal(logits(model), adapted)


def test_at_a_strength_the_update_is_as_large_as_that():
    model, scaled = (with_adapter("roberta", LoRA(rank=4)) for _ in range(2))
    adapted = logits(model)
    for strength in (1.0, 0.5, 0.0):
        for layer, own in zip(lora_layers(scaled), lora_layers(model), strict=True):
            layer.lora_B.data = strength * own.lora_B.data
        with at_strength(model, strength):
            torch.testing.assert_close(logits(model), logits(scaled))
        assert torch.equal(logits(model), adapted)
    other = with_adapter("roberta", IA3())
    with at_strength(other, 0), at_strength(other, 1):
        pass
    with pytest.raises(BadValue, match=r"ia3 must be on \(1\) or off \(0\)"), at_strength(other, 0.5):
        pass


# ---- mistakes


# ---- models in torch's wrappers, of torch's own layers, a single layer, and what is no model


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), 1).eval()


X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


def test_torchs_encoder_layer_in_eval_does_not_pass_by_the_adapter():
    model = encoder()
    with torch.no_grad():
        base = model(X)
        adapted = with_adapter(model, LoRA(rank=2, targets="all-linear"))(X)
        torch.testing.assert_close(adapted, model.train()(X))  # where torch calls its layers one by one
        with disabled(model.eval()):
            torch.testing.assert_close(model(X), base)
        merge(model)
        torch.testing.assert_close(model(X), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_inside_a_wrapper_nothing_is_attached_and_the_model_itself_is_saved(wrap, tmp_path):
    model, fresh = tiny("roberta"), tiny("roberta")
    wrapped = wrap(model)
    with refused(model, r"pass the inner model, model\.(_orig_mod|module)"):
        LoRA(rank=2).attach(wrapped)
    with_adapter(model, LoRA(rank=2))
    load_adapter(fresh, save_adapter(wrapped, tmp_path))
    assert torch.equal(logits(fresh), logits(model))


def test_a_single_layer_and_what_is_no_model_are_refused(tmp_path):
    layer = nn.Linear(4, 4)
    with pytest.raises(BadValue, match=r"nn\.Sequential\(layer\)"):
        LoRA(rank=2, targets="all-linear").attach(layer)
    assert layer.weight.requires_grad
    LoRA(rank=2, targets="all-linear").attach(nn.Sequential(layer))
    for wrong in (lambda: LoRA().attach("minilm"), lambda: load_adapter("minilm", tmp_path)):
        with pytest.raises(BadValue, match=r"'minilm' is a str, not a model: .*load_model\(name\)"):
            wrong()
