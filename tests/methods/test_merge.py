import json
from copy import copy
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from lora_lab import LoRA, detach, disabled, merge, merge_for_good, unmerge
from lora_lab.adapter_layer import innermost
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, is_adapted
from lora_lab.methods.quant import quantize_model
from tests.conftest import BART, BERT, assert_raises, logits, lora_layers, make_model, snapshot, tiny, with_adapter
from tests.methods.test_every_method import CASES, METHODS

UNMERGEABLE = {
    **dict.fromkeys(("prompt", "ptuning", "prefix"), "adds vectors in front of every row"),
    "bottleneck": "contains a nonlinearity",
    "probe": "reads the mean of all tokens",
}
MERGEABLE = [(name, kind) for name, kind in CASES if kind == "gpt2" and name not in (*UNMERGEABLE, "full")]
MERGEABLE += [("ia3", "llama"), ("dora, freeze_a", "llama"), ("lora", "roberta"), ("head", "roberta")]
FOR_GOOD = [("head", "roberta"), ("lora", "gpt2"), ("embedding", "gpt2"), ("bitfit", "gpt2")]


def make_base(kind: str, dtype: torch.dtype = torch.float32):
    """Make a tiny model with random biases; by default, they are zero."""
    model, generator = tiny(kind), torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.normal_(std=0.1, generator=generator)
    return model.to(dtype)


def assert_same_outputs(model, expected: torch.Tensor) -> None:
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


def module_types(model) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


@pytest.mark.parametrize(("name", "kind"), MERGEABLE)
def test_merge_keeps_outputs_and_unmerge_is_exact(name, kind):
    dtype = torch.bfloat16 if kind == "roberta" else torch.float32
    model = with_adapter(make_base(kind, dtype), METHODS[name])
    before, adapted, keys = snapshot(model), logits(model), set(model.state_dict())
    frozen = [(layer, layer.frozen_weight().clone()) for layer in lora_layers(model)]
    for _ in range(2):
        report = merge(model)
        if dtype == torch.float32:
            assert_same_outputs(model, adapted)
            assert report.rounding == report.lost == 0
        if report.rounded:
            assert snapshot(model) != before
            assert not any(layer.active for _, layer in adapter_layers(model) if layer.merged)
        assert set(model.state_dict()) == keys  # originals are not part of a checkpoint
        assert merge(model).rounded == ()  # nothing is merged twice
        assert all(torch.equal(layer.frozen_weight(), weight) for layer, weight in frozen)
        with disabled(model):
            assert torch.equal(logits(model), logits(make_base(kind, dtype)))
            assert all(torch.equal(layer.frozen_weight(), weight) for layer, weight in frozen)
            for change in (merge, unmerge, detach):
                assert_raises("disabled", change, model)
        unmerge(model)
        assert snapshot(model) == before
        assert torch.equal(logits(model), adapted)
    merge(model)
    unmerge(model.to("meta"))  # a stand-in for any other device
    assert not any(layer.merged for _, layer in adapter_layers(model))


def size(model) -> int:
    """Return the bytes of a model's parameters and buffers that a checkpoint holds."""
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


@pytest.mark.parametrize(("name", "kind"), FOR_GOOD)
def test_merge_for_good_leaves_a_plain_model(name, kind):
    model, merged_before = (with_adapter(make_base(kind), METHODS[name]) for _ in range(2))
    adapted = logits(model)
    with torch.autocast("cpu", torch.bfloat16):  # still computes in fp32
        report = merge_for_good(model)
    assert report.added_bytes == size(model) - size(make_base(kind))
    assert not is_adapted(model)
    assert module_types(model) == module_types(tiny(kind))
    assert_same_outputs(model, adapted)
    merge(merged_before)
    merge_for_good(merged_before)
    assert snapshot(merged_before) == snapshot(model)


def test_unmerged_layers_follow_the_mode_of_the_model():
    model = with_adapter("bert", LoRA(rank=2)).train()
    merge(model)
    unmerge(model.eval())
    assert not any(module.training for module in model.modules())


def test_report_counts_bf16_rounding():
    model = with_adapter(make_base("roberta", torch.bfloat16), LoRA(rank=4))
    layers = [layer for layer in lora_layers(model) if isinstance(layer, LoRALinear)]
    old = [layer.base_layer.weight.float() for layer in layers]
    exact = [weight + layer.delta_weight().detach() for weight, layer in zip(old, layers, strict=True)]
    report = merge(model)
    for rounding, layer, before, expected in zip(report.rounded, layers, old, exact, strict=True):
        after = layer.base_layer.weight.float()
        assert rounding.rounding == pytest.approx(float((expected - after).norm()))
        assert rounding.update == pytest.approx(float((expected - before).norm()))
        assert rounding.lost == int((after == before).sum())
        assert rounding.dtype == "bf16"
    assert 0.001 < report.rounding < 1
    assert "merge in fp32 to keep their updates" in str(report)
    assert json.loads(json.dumps(report.to_json()))["rounding"] == report.rounding
    unmerge(model)
    report = merge(model, fp32=True)
    assert (report.rounding, {tensor.dtype for tensor in report.rounded}) == (0, {"fp32"})
    assert all(torch.equal(layer.base_layer.weight, w) for layer, w in zip(layers, exact, strict=True))
    unmerge(model)
    assert all(torch.equal(layer.base_layer.weight, w) for layer, w in zip(layers, old, strict=True))  # now in fp32


@pytest.mark.parametrize(
    ("kind", "targets", "fp32"), [("llama", "lm_head", False), ("gpt2", "wte,q", True), ("gemma2", "embed", False)]
)
def test_merge_unties_embeddings_and_unmerge_ties_them(kind, targets, fp32):
    model = with_adapter(kind, LoRA(rank=4, targets=targets))
    before, adapted = snapshot(model), logits(model)
    report = merge(model, fp32=fp32)
    (untied,) = report.untied
    assert model.config.tie_word_embeddings is False
    assert report.added_bytes == 96 * 32 * 4
    assert f"untied: {untied}" in str(report)
    assert_same_outputs(model, adapted)
    with disabled(model):
        assert torch.equal(logits(model), logits(tiny(kind)))
    unmerge(model)
    assert snapshot(model) == before
    assert model.config.tie_word_embeddings
    assert innermost(model.get_output_embeddings()).weight is innermost(model.get_input_embeddings()).weight


def test_checkpoint_of_untied_weights_loads(tmp_path):
    for name, size, targets in (
        ("BartForConditionalGeneration", BART, "lm_head"),
        ("BertForMaskedLM", BERT, "embed"),
        ("MobileBertForMaskedLM", {**BERT, "embedding_size": 32}, "embed"),  # has a weight with no rows
    ):
        model = with_adapter(make_model(name, size), LoRA(rank=4, targets=targets))
        for parameter in model.parameters():  # biases start at zero, as if the checkpoint lacked them
            parameter.data += 0.01
        adapted = logits(model)
        merge_for_good(model)
        model.save_pretrained(tmp_path / name)
        assert_same_outputs(type(model).from_pretrained(tmp_path / name).eval(), adapted)


@pytest.mark.parametrize(("kind", "targets", "layers"), [("roberta", "q,v", 4), ("phi3", "q,k", 2), ("gpt2", "q,v", 2)])
def test_merge_dequantizes_unmerge_is_exact_and_merge_for_good_leaves_nothing_quantized(kind, targets, layers):
    model = tiny(kind)
    quantized = quantize_model(model, "nf4")
    with_adapter(model, LoRA(rank=4, targets=targets))
    before, adapted = snapshot(model), logits(model)
    report = merge(model)
    assert len(report.dequantized) == layers  # a fused layer counts once
    plain = sum(4 * innermost(model.get_submodule(path)).weight.numel() for path in report.dequantized)
    assert 0.8 * plain < report.added_bytes < plain  # fp32 replaces 4 bits and their scales
    assert f"dequantized: {layers} layers" in str(report)
    assert_same_outputs(model, adapted)
    with disabled(model):
        pass
    assert_same_outputs(model, adapted)
    unmerge(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model), adapted)
    if kind == "gpt2":  # merged before
        quantized -= len(merge(model).dequantized)
    assert len(merge_for_good(model).dequantized) == quantized
    assert module_types(model) == module_types(tiny(kind))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_same_outputs(model, adapted)


def test_merge_changes_layers_under_accelerates_hooks():
    model = tiny("gpt2")
    for module in model.modules():
        add_hook_to_module(module, ModelHook())
    adapted = logits(with_adapter(model, LoRA(rank=4)))
    merge(model)
    assert_same_outputs(model, adapted)
    unmerge(model)
    assert torch.equal(logits(model), adapted)
    merge_for_good(model)
    assert_same_outputs(model, adapted)


def test_layer_whose_copy_would_keep_the_old_weight_is_not_merged():
    model = with_adapter("llama", LoRA(rank=4))
    layer = lora_layers(model)[-1].base_layer
    forward = layer.forward
    layer.forward = lambda x: forward(x)
    assert_raises("v_proj has a forward function of its own", merge, model, unchanged=model)
    layer.to("meta")  # as accelerate leaves an offloaded layer
    assert_raises(r"the weight of .*1\.self_attn\.v_proj is offloaded", merge, model)
    assert not any(layer.merged for layer in lora_layers(model))


@pytest.mark.parametrize(
    ("function", "kind", "dtype", "damage", "match"),
    [
        (merge, "llama", torch.float16, ("lora_B", 1e6), r"not be finite, because torch\.float16 cannot hold it"),
        (merge_for_good, "bert", torch.float32, ("lora_A", torch.nan), "the adapter holds NaN or infinity"),
        (partial(merge, fp32=True), "phi3", torch.bfloat16, ("lora_A", torch.nan), "the adapter holds NaN or infinity"),
    ],
)
def test_merge_that_would_damage_the_base_is_refused(function, kind, dtype, damage, match):
    model = with_adapter(make_base(kind, dtype), LoRA(rank=4))
    lora_layers(model)[-1].get_parameter(damage[0]).data[0].fill_(damage[1])
    assert_raises(match, function, model, unchanged=model)
    assert not any(layer.merged for layer in lora_layers(model))


def test_merge_that_runs_out_of_memory_leaves_nothing_merged(monkeypatch):
    model = with_adapter("gpt2", LoRA(rank=2, targets=("up", "embed")))
    monkeypatch.setattr("copy.copy", Mock(side_effect=[copy(layer.base_layer) for layer in lora_layers(model)][:1]))
    before = snapshot(model)
    with pytest.raises(StopIteration):
        merge(model)
    assert snapshot(model) == before
    assert not any(layer.merged for layer in lora_layers(model))


def test_merge_that_would_rescale_logits_is_refused():
    size = {"d_model": 32, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "num_experts": 2, "vocab_size": 96}
    model = make_model("SwitchTransformersForConditionalGeneration", size)
    assert_raises("untied", merge, with_adapter(model, LoRA(rank=2, targets="embed")), unchanged=model)


@pytest.mark.parametrize(("name", "function"), [("prompt", merge), ("bottleneck", merge_for_good), ("probe", merge)])
def test_unmergeable_method_is_refused(name, function):
    model = tiny("bert")
    METHODS[name].attach(model)
    assert_raises(f"{name} cannot be merged: it {UNMERGEABLE[name]}", function, model, unchanged=model)
