"""Attaching LoRA to real architectures: what is touched, what is not, and what is refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers
from torch import nn

from lora_lab import (
    IA3,
    BitFit,
    LoRA,
    Probe,
    PromptTuning,
    detach,
    disabled,
    load_adapter,
    merge,
    save_adapter,
    unmerge,
)
from lora_lab.errors import BadValue, LabError, LabWarning, NotFound
from lora_lab.methods.attach import report_of, sites_of
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


@pytest.mark.parametrize("method", [LoRA(targets="down"), IA3()], ids=lambda m: m.name)
def test_a_model_that_asks_its_layer_for_the_dtype_of_its_weight_runs(method):
    size = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=96, **size)).eval()
    ids = torch.arange(6).unsqueeze(0)
    with torch.no_grad():
        before = model(input_ids=ids, labels=ids).logits
        method.attach(model)
        assert torch.equal(model(input_ids=ids, labels=ids).logits, before)


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


@pytest.mark.parametrize(
    ("kind", "method", "sentence"),
    [
        ("roberta", LoRA(targets=("querry",)), "'querry' matches no layer of this model; nearest: query"),
        ("gpt2", LoRA(targets=("c_attn", "q")), r"overlap: .*c_attn is adapted as a whole and again as q"),
        ("phi3", LoRA(targets=("all-linear", "up")), r"overlap: .*gate_up_proj"),
        ("llama", LoRA(rank=20), r"rank 20 is above .*v_proj .* at most 16; .*rank_pattern=\{\"v\": 16\}"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_the_model_untouched(kind, method, sentence):
    model = tiny(kind)
    with refused(model, sentence, LabError):
        method.attach(model)


class Linear4bit(torch.nn.Linear):
    """As bitsandbytes calls its own."""


def test_linear_layers_of_another_library_are_named():
    model = tiny("llama")
    for module in model.model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear4bit
    with pytest.raises(BadValue, match=r"are Linear4bit.*load it unquantized.*dtype='nf4'"):
        LoRA(rank=2).attach(model)
    with pytest.raises(NotFound, match="matches no layer of this model; it has no linear layer and no embedding"):
        LoRA(rank=2, targets="all-linear").attach(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1)))


def test_without_an_adapter_there_is_nothing_to_do():
    model = tiny("llama")
    for call in (merge, unmerge, detach, report_of):
        with refused(model, "has no adapter; attach one first"):
            call(model)


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


def test_bitfit_names_the_bias_that_torch_reads_past_it():
    model = encoder()
    with refused(model, r"bias of layers.0.self_attn.out_proj: torch never calls its layer"):
        BitFit().attach(model)


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
