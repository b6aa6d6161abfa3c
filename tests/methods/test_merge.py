"""Merging: what it changes, what rounding takes, that it can be undone, and what it refuses."""

import json

import pytest
import torch
import transformers
from torch import nn

from lora_lab import LoRA, disabled, merge, merge_for_good, unmerge
from lora_lab.adapter_layer import innermost
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, is_adapted
from lora_lab.methods.quant import quantize_model
from tests.conftest import BART, BERT, logits, snapshot, tiny
from tests.methods.conftest import refused, with_adapter
from tests.methods.test_every_method import FITTING, METHODS

WHY_NOT = {
    **dict.fromkeys(("prompt", "ptuning", "prefix"), "adds vectors in front of every row"),
    "bottleneck": "contains a nonlinearity",
    "probe": "reads the mean of all tokens",
}
MERGING = [(name, kind) for name, kind in FITTING if name not in (*WHY_NOT, "full")]
MERGING = [(name, kind) for name, kind in MERGING if kind != "llama" or name in ("ia3", "dora, freeze_a")]
DTYPES = {"roberta": torch.bfloat16, "gpt2": torch.float32, "llama": torch.float32}


def base(kind: str, dtype: torch.dtype) -> nn.Module:
    """A tiny model whose biases are not zero, as they start."""
    model, generator = tiny(kind), torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.normal_(std=0.1, generator=generator)
    return model.to(dtype)


def trained(kind: str, method, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny model with an adapter as training might leave it; factors and magnitudes stay near where they started."""
    model = base(kind, dtype)
    torch.manual_seed(1)
    method.attach(model)
    generator = torch.Generator().manual_seed(2)
    for name, p in model.named_parameters():
        if p.requires_grad:
            noise = 0.1 * torch.randn(p.shape, generator=generator)
            scale = name.endswith(("factor", "magnitude_vector"))
            p.data = p.data * (1 + noise) if scale else p.data * name.endswith(("lora_A", ".bias")) + noise
    return model


def lora(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    return [(name, layer) for name, layer in adapter_layers(model) if isinstance(layer, LoRALinear)]


def close(ours: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def modules(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


# ---- there and back


@pytest.mark.parametrize(("method", "kind"), MERGING)
def test_merged_it_answers_the_same_and_unmerged_every_weight_is_back_to_the_bit(method, kind):
    dtype = DTYPES[kind]
    model = trained(kind, METHODS[method], dtype)
    before, adapted, keys = snapshot(model), logits(model), set(model.state_dict())
    for _ in range(2):
        report = merge(model)
        if dtype == torch.float32:
            close(logits(model), adapted)
            assert report.rounding == report.lost == 0
        if report.rounded:
            assert snapshot(model) != before
            assert not any(layer.active for _, layer in adapter_layers(model) if layer.merged)
        assert set(model.state_dict()) == keys  # the originals are no part of a checkpoint
        assert merge(model).rounded == ()  # a second time there is nothing to do
        with disabled(model):
            assert torch.equal(logits(model), logits(base(kind, dtype)))
        unmerge(model)
        assert snapshot(model) == before
        assert torch.equal(logits(model), adapted)
    merge(model)
    unmerge(model.to("meta"))  # stands for any other device: every machine has it
    assert not any(layer.merged for _, layer in adapter_layers(model))


@pytest.mark.parametrize(("method", "kind"), [case for case in MERGING if case[1] != "roberta" or case[0] == "head"])
def test_for_good_a_plain_model_is_left(method, kind):
    model, twice = trained(kind, METHODS[method]), trained(kind, METHODS[method])
    adapted = logits(model)
    merge_for_good(model)
    assert not is_adapted(model)
    assert modules(model) == modules(tiny(kind))
    close(logits(model), adapted)
    merge(twice)
    merge_for_good(twice)
    assert snapshot(twice) == snapshot(model)
    with pytest.raises(BadValue, match="has no adapter"):
        unmerge(model)


# ---- what rounding costs


def test_the_report_counts_what_bf16_rounds_away():
    model = trained("roberta", LoRA(rank=4), torch.bfloat16)
    exact = {n: layer.base_layer.weight.float() + layer.delta_weight().detach() for n, layer in lora(model)}
    old = {n: layer.base_layer.weight.float() for n, layer in lora(model)}
    report = merge(model)
    kept = {n: layer.base_layer.weight.float() for n, layer in lora(model)}
    for rounding in report.rounded:
        n = rounding.module
        assert rounding.rounding == pytest.approx(float((exact[n] - kept[n]).norm()))
        assert rounding.update == pytest.approx(float((exact[n] - old[n]).norm()))
        assert rounding.lost == int((kept[n] == old[n]).sum())
        assert rounding.dtype == "bf16"
    assert 0.001 < report.rounding < 1
    assert "merge in fp32 to keep them" in str(report)
    assert json.loads(json.dumps(report.to_json()))["rounding"] == report.rounding


# ---- tied and quantized weights


@pytest.mark.parametrize(
    ("kind", "targets", "fp32"), [("llama", "lm_head", False), ("gpt2", "wte,q", True), ("gemma2", "embed", False)]
)
def test_tied_embeddings_are_untied_first_and_tied_again(kind, targets, fp32):
    model = with_adapter(kind, LoRA(rank=4, targets=targets))
    before, adapted = snapshot(model), logits(model)
    report = merge(model, fp32=fp32)
    (untied,) = report.untied
    assert model.config.tie_word_embeddings is False
    assert report.added_bytes == 96 * 32 * 4
    assert f"untied: {untied}" in str(report)
    close(logits(model), adapted)
    with disabled(model):
        assert torch.equal(logits(model), logits(tiny(kind)))
    unmerge(model)
    assert snapshot(model) == before
    assert model.config.tie_word_embeddings
    assert innermost(model.get_output_embeddings()).weight is innermost(model.get_input_embeddings()).weight


@pytest.mark.parametrize(
    ("name", "size", "targets"),
    [("BartForConditionalGeneration", BART, "lm_head"), ("BertForMaskedLM", BERT, "embed")],
)
def test_of_layers_that_share_a_weight_or_a_bias_a_checkpoint_brings_each_its_own(name, size, targets, tmp_path):
    torch.manual_seed(0)
    made = getattr(transformers, name)
    model = made(made.config_class(**size)).eval()
    with_adapter(model, LoRA(rank=4, targets=targets))
    for parameter in model.parameters():  # biases start at zero, as a checkpoint without them would have it
        parameter.data += 0.01
    adapted = logits(model)
    merge_for_good(model)
    model.save_pretrained(tmp_path)
    close(logits(made.from_pretrained(tmp_path).eval()), adapted)


def quantized(kind: str, method) -> nn.Module:
    model = tiny(kind)
    quantize_model(model, "nf4")
    return with_adapter(model, method)


@pytest.mark.parametrize(("kind", "targets", "layers"), [("roberta", "q,v", 4), ("phi3", "q,k", 2), ("gpt2", "q,v", 2)])
def test_a_quantized_layer_is_merged_into_a_plain_one_and_comes_back_to_the_bit(kind, targets, layers):
    model = quantized(kind, LoRA(rank=4, targets=targets))
    before, adapted = snapshot(model), logits(model)
    report = merge(model)
    assert len(report.dequantised) == layers  # a fused layer once
    plain = sum(4 * innermost(model.get_submodule(name)).weight.numel() for name in report.dequantised)
    assert 0.8 * plain < report.added_bytes < plain  # 4 bits and their scales are gone, 32 are there
    assert f"dequantized: {layers} layers" in str(report)
    close(logits(model), adapted)
    with disabled(model):
        pass
    close(logits(model), adapted)
    unmerge(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model), adapted)


@pytest.mark.parametrize(("kind", "layers", "merged"), [("llama", 14, False), ("gpt2", 8, True)])
def test_for_good_nothing_is_quantized_any_more(kind, layers, merged):
    model = quantized(kind, LoRA(rank=4, targets="all-linear" if merged else "v"))
    adapted = logits(model)
    if merged:
        assert len(merge(model).dequantised) == layers
    report = merge_for_good(model)
    assert modules(model) == modules(tiny(kind))
    assert len(report.dequantised) == (0 if merged else layers)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    close(logits(model), adapted)


# ---- what is refused


def overflowing(model: nn.Module) -> None:
    lora(model)[-1][1].lora_B.data.fill_(1e6)


def nan(model: nn.Module) -> None:
    lora(model)[-1][1].lora_A.data[0, 0] = torch.nan


def integers(model: nn.Module) -> None:
    innermost(lora(model)[-1][1]).weight = nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize(
    ("kind", "targets", "dtype", "spoil", "fp32", "why"),
    [
        ("llama", "q,v", torch.float16, overflowing, False, r"not be finite, because torch\.float16 cannot hold it"),
        ("bert", "q,v", torch.float32, nan, False, "the adapter holds NaN or infinity"),
        ("phi3", "q,v", torch.bfloat16, nan, True, "the adapter holds NaN or infinity"),
        ("bert", "q,v", torch.float32, integers, True, r"cannot merge into a weight of torch\.int8"),
    ],
)
def test_what_would_ruin_the_base_is_refused_and_leaves_it_alone(kind, targets, dtype, spoil, fp32, why):
    model = trained(kind, LoRA(rank=4, targets=targets), dtype)
    spoil(model)
    for way in (merge, merge_for_good):
        with refused(model, why):
            way(model, fp32=fp32)
    assert not any(layer.merged for _, layer in lora(model))


@pytest.mark.parametrize("name", ["prompt", "bottleneck", "probe"])
def test_what_no_weight_could_hold_is_refused_in_one_sentence(name):
    model = tiny("bert")
    METHODS[name].attach(model)
    for way in (merge, merge_for_good):
        with refused(model, f"{name} cannot be merged: it {WHY_NOT[name]}"):
            way(model)
