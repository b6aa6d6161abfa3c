"""Merging: what it changes, what rounding takes, that it can be undone, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from torch import nn

from lora_lab import IA3, BitFit, HeadOnly, LoRA, detach, disabled, merge, merge_for_good, save_adapter, unmerge
from lora_lab.adapter_layer import innermost
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods import REGISTRY, method_from
from lora_lab.methods.attach import adapter_layers, is_adapted
from lora_lab.methods.merge import rounding_of
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.shared import LoRAXS, TinyLoRA, VeRA
from tests.conftest import BART, BERT, logits, randomise, snapshot, tiny

FP32 = 1e-6  # relative
METHODS = {
    "lora": LoRA(rank=4),
    "all-linear": LoRA(rank=4, targets="all-linear"),
    "pissa": LoRA(rank=4, init="pissa"),
    "lora-fa": LoRA(rank=4, freeze_a=True),
    "dora": LoRA(rank=4, targets="all-linear", dora=True),
    "ia3": IA3(),
    "bitfit": BitFit(),
    "head": HeadOnly(),
    "vera": VeRA(rank=8),
    "lora-xs": LoRAXS(rank=4),
    "tinylora": TinyLoRA(weight_tying=1),
}
KINDS = ("bert", "roberta", "gpt2", "phi3", "llama")
FITTING = [(m, k) for m in METHODS for k in KINDS if not (m in ("bitfit", "head") and k in ("phi3", "llama"))]
FITTING = [pair for pair in FITTING if pair != ("head", "gpt2")]
EMBEDDING = {"bert": "word_embeddings", "gpt2": "wte", "llama": "embed_tokens", "gemma2": "embed_tokens"}


def trained(kind: str, method, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny model with an adapter as training might leave it; factors and magnitudes stay near where they started."""
    model = tiny(kind).to(dtype)
    torch.manual_seed(1)
    method.attach(model)
    generator = torch.Generator().manual_seed(2)
    for name, p in model.named_parameters():
        if p.requires_grad:
            noise = 0.1 * torch.randn(p.shape, generator=generator)
            scale = name.endswith(("factor", "magnitude_vector"))
            p.data = p.data * (1 + noise) if scale else p.data * name.endswith(("lora_A", ".bias")) + noise
    return model


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every number of the base, by the name that it has there."""
    return {
        n.replace(".base_layer", ""): p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad
    }


def distance(ours: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest relative distance of a tensor."""
    assert ours.keys() == other.keys()
    return max(float((ours[n].float() - o.float()).norm() / (o.float().norm() + 1e-9)) for n, o in other.items())


# ---- round trips


@pytest.mark.parametrize(("method", "kind"), FITTING)
def test_merged_answers_the_same_and_unmerged_the_weights_are_back(method, kind):
    model = trained(kind, METHODS[method])
    before, adapted = weights(model), logits(model)
    report = merge(model)
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    assert report.rounding == 0
    assert report.lost == 0
    if report.rounded:
        assert distance(weights(model), before) > 1e-3  # it did move
        assert not any(layer.active for _, layer in adapter_layers(model) if layer.merged)
    assert merge(model).rounded == ()  # a second time there is nothing to do
    unmerge(model)
    assert distance(weights(model), before) <= FP32
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_what_unmerging_needs_goes_where_the_model_goes(method):
    model = trained("roberta", METHODS[method])
    held = set(model.state_dict())
    merge(model)
    assert set(model.state_dict()) == held  # and is no part of a checkpoint
    unmerge(model.to("meta"))  # stands for any other device: every machine has it
    assert not any(layer.merged for _, layer in adapter_layers(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("method", "kind"), FITTING)
def test_unmerging_gives_the_weights_back_to_the_bit(method, kind, dtype):
    model = trained(kind, METHODS[method], dtype)
    before, adapted = snapshot(model), logits(model)
    for _ in range(3):
        merge(model)
        with disabled(model):
            assert torch.equal(logits(model), logits(tiny(kind).to(dtype)))
        unmerge(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model), adapted)


@pytest.mark.parametrize("kind", EMBEDDING)
def test_an_embedding_comes_back_to_the_bit_where_it_is_tied(kind):
    model = trained(kind, LoRA(rank=4, targets=(EMBEDDING[kind], "q")))
    randomise(model)
    tied, before, adapted = kind != "bert", weights(model), logits(model)
    report = merge(model)
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    assert bool(report.untied) == tied
    unmerge(model)
    name = next(n for n in before if EMBEDDING[kind] in n)
    assert torch.equal(weights(model)[name], before[name])
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)


# ---- what rounding costs


def test_the_report_counts_what_bf16_rounds_away():
    model = trained("roberta", LoRA(rank=4), torch.bfloat16)
    exact = {n: layer.base_layer.weight.float() + layer.delta_weight().detach() for n, layer in _lora(model)}
    old = {n: layer.base_layer.weight.float() for n, layer in _lora(model)}
    report = merge(model)
    kept = {n: layer.base_layer.weight.float() for n, layer in _lora(model)}
    for rounding in report.rounded:
        n = rounding.module
        assert rounding.rounding == pytest.approx(float((exact[n] - kept[n]).norm()))
        assert rounding.update == pytest.approx(float((exact[n] - old[n]).norm()))
        assert rounding.lost == int((kept[n] == old[n]).sum())
        assert rounding.dtype == "bf16"
    assert 0.001 < report.rounding < 1
    assert "merge in fp32 to keep them" in str(report)
    assert json.loads(json.dumps(report.to_json()))["rounding"] == report.rounding


def test_an_update_below_half_a_step_of_bf16_is_lost_as_a_whole():
    rounding = rounding_of("layer", torch.ones(3, 4, dtype=torch.bfloat16), torch.full((3, 4), 1.003))
    assert rounding.lost == 12
    assert rounding.relative == pytest.approx(1)
    assert rounding_of("layer", torch.ones(3, 4), torch.full((3, 4), 1.003)).lost == 0


def test_in_fp32_nothing_is_lost_and_the_model_stays_fp32():
    model, rounded = (trained("llama", LoRA(rank=4), torch.bfloat16) for _ in range(2))
    reference = trained("llama", LoRA(rank=4), torch.bfloat16).float()
    report = merge(model, fp32=True)
    merge(rounded)
    assert report.rounding == 0
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-4, atol=1e-4)
    assert (logits(rounded).float() - logits(reference)).abs().max() > 1e-3
    assert report.added_bytes == sum(p.numel() * 2 for n, p in reference.named_parameters() if "lora" not in n)


def test_fp16_says_where_it_overflows_and_leaves_the_model_alone():
    model = trained("llama", LoRA(rank=4), torch.float16)
    _lora(model)[-1][1].lora_B.data.fill_(1e6)
    before = weights(model)
    with pytest.raises(BadValue, match=r"would not be finite, for torch\.float16 cannot hold it"):
        merge(model)
    assert distance(weights(model), before) == 0
    assert not any(layer.merged for _, layer in _lora(model))


def test_a_nan_in_the_adapter_is_refused_before_it_ruins_the_base():
    model = trained("bert", LoRA(rank=4))
    _lora(model)[0][1].lora_A.data[0, 0] = torch.nan
    before = weights(model)
    with pytest.raises(BadValue, match="the adapter holds NaN or infinity"):
        merge(model)
    assert distance(weights(model), before) == 0


@pytest.mark.parametrize("way", [merge, merge_for_good])
@pytest.mark.parametrize(
    ("kind", "targets"), [("bert", "q,v"), ("llama", "q,embed"), ("llama", "q,lm_head"), ("phi3", "q,v")]
)
def test_a_merge_in_fp32_that_fails_leaves_the_model_in_its_dtype(kind, targets, way):
    model = trained(kind, LoRA(rank=4, targets=targets), torch.bfloat16)
    before, dtypes = weights(model), {name: t.dtype for name, t in model.state_dict().items()}
    _lora(model)[-1][1].lora_B.data.fill_(torch.inf)
    with pytest.raises(BadValue, match="the adapter holds NaN or infinity"):
        way(model, fp32=True)
    assert {name: t.dtype for name, t in model.state_dict().items()} == dtypes
    assert distance(weights(model), before) == 0
    assert not any(layer.merged for _, layer in _lora(model))


# ---- tied and quantised weights


@pytest.mark.parametrize(("kind", "targets"), [("llama", "embed"), ("llama", "lm_head"), ("gpt2", "wte")])
def test_tied_embeddings_are_untied_first_and_tied_again(kind, targets):
    model = trained(kind, LoRA(rank=4, targets=targets))
    randomise(model)
    before, adapted = snapshot(model), logits(model)
    report = merge(model)
    (untied,) = report.untied
    assert model.config.tie_word_embeddings is False
    assert report.added_bytes == 96 * 32 * 4
    assert f"untied: {untied}" in str(report)
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    with disabled(model):
        assert torch.equal(logits(model), logits(tiny(kind)))
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    unmerge(model)
    assert snapshot(model) == before
    assert model.config.tie_word_embeddings
    assert innermost(model.get_output_embeddings()).weight is innermost(model.get_input_embeddings()).weight


def test_untied_in_fp32_they_are_tied_again_in_fp32():
    model = trained("llama", LoRA(rank=4, targets=("embed", "lm_head")), torch.bfloat16)
    merge(model, fp32=True)
    unmerge(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert innermost(model.lm_head).weight is innermost(model.model.embed_tokens).weight


def assert_a_checkpoint_answers_as_it_did(model, folder):
    randomise(model)
    adapted = logits(model)
    merge_for_good(model)
    model.save_pretrained(folder)
    torch.testing.assert_close(logits(type(model).from_pretrained(folder).eval()), adapted, rtol=1e-4, atol=1e-4)


def test_of_four_layers_that_share_a_weight_a_checkpoint_brings_each_its_own(tmp_path):
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)).eval()
    LoRA(rank=4, targets="lm_head").attach(model)
    assert_a_checkpoint_answers_as_it_did(model, tmp_path)


def test_a_bias_that_was_tied_with_the_embeddings_is_in_the_checkpoint_too(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**BERT)).eval()
    model.cls.predictions.bias.data.normal_()  # zeros at the start, which a checkpoint without it would have as well
    LoRA(rank=4, targets="embed").attach(model)
    assert_a_checkpoint_answers_as_it_did(model, tmp_path)


def test_a_quantised_model_of_plain_torch_is_merged_for_good():
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 8, bias=False))
    quantize_model(model)
    LoRA(rank=2, targets="all-linear").attach(model)
    randomise(model)
    x = torch.randn(2, 64)
    adapted = model(x)
    assert len(merge_for_good(model).dequantised) == 2
    torch.testing.assert_close(model(x), adapted, rtol=1e-4, atol=1e-4)
    assert [type(m) for m in model] == [nn.Linear, nn.ReLU, nn.Linear]


def quantised(kind: str, method) -> nn.Module:
    model = tiny(kind)
    quantize_model(model, "nf4")
    method.attach(model)
    randomise(model)
    return model


@pytest.mark.parametrize("method", [LoRA(rank=4), LoRA(rank=4, targets="q,k")], ids=["q,v", "q,k"])
@pytest.mark.parametrize("kind", ["roberta", "phi3"])
def test_a_quantised_base_is_merged_into_a_plain_layer_and_comes_back_to_the_bit(kind, method):
    model = quantised(kind, method)
    before, adapted = snapshot(model), logits(model)
    report = merge(model)
    assert len(report.dequantised) == (4 if kind == "roberta" else 2)  # a fused layer once
    assert all(type(innermost(model.get_submodule(path))) is nn.Linear for path in report.dequantised)
    plain = sum(4 * innermost(model.get_submodule(name)).weight.numel() for name in report.dequantised)
    assert 0.8 * plain < report.added_bytes < plain  # 4 bits and their scales are gone, 32 are there
    assert f"dequantized: {len(report.dequantised)} layers" in str(report)
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    with disabled(model):
        pass
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    unmerge(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model), adapted)


def test_a_weight_of_integers_is_not_merged_into():
    model = trained("bert", LoRA(rank=4))
    layer = innermost(_lora(model)[-1][1])
    layer.weight = nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(BadValue, match=r"cannot merge into a weight of torch\.int8"):
        merge(model)
    assert not any(layer.merged for _, layer in _lora(model))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [("llama", 14), ("gpt2", 8)])
def test_for_good_nothing_is_quantised_any_more(kind, layers, merged):
    model = quantised(kind, LoRA(rank=4, targets="all-linear" if merged else "v"))
    adapted = logits(model)
    if merged:
        assert len(merge(model).dequantised) == layers
    report = merge_for_good(model)
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in tiny(kind).named_modules()]
    assert len(report.dequantised) == (0 if merged else layers)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)


# ---- for good


@pytest.mark.parametrize(("method", "kind"), FITTING)
def test_for_good_a_plain_model_is_left(method, kind):
    model = trained(kind, METHODS[method])
    adapted = logits(model)
    merge_for_good(model)
    assert not is_adapted(model)
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in tiny(kind).named_modules()]
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadValue, match="carries no adapter"):
        unmerge(model)


def test_for_good_the_head_is_rounded_too_and_the_report_says_so():
    model = trained("roberta", LoRA(rank=4), torch.bfloat16)
    report = merge_for_good(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {"classifier.out_proj.weight", "classifier.dense.bias"} <= {r.module for r in report.heads}
    assert all(0 < r.relative < 2**-8 for r in report.heads)


def test_after_full_fine_tuning_the_model_is_plain_already():
    model = tiny("bert")
    method_from({"name": "full"}).attach(model)
    randomise(model)
    adapted = logits(model)
    assert str(merge_for_good(model)) == "nothing was merged into a weight"
    assert not is_adapted(model)
    assert torch.equal(logits(model), adapted)


def test_merged_and_then_for_good_is_the_same():
    once, twice = (trained("gpt2", LoRA(rank=4, targets=("wte", "q"))) for _ in range(2))
    merge_for_good(once)
    merge(twice)
    merge_for_good(twice)
    assert snapshot(twice) == snapshot(once)
    assert twice.config.tie_word_embeddings is False


# ---- what is refused


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"name": "prompt", "tokens": 3}, "prompt cannot be merged: it stands ahead of every row"),
        ({"name": "ptuning", "tokens": 3}, "ptuning cannot be merged: it stands ahead of every row"),
        ({"name": "prefix", "tokens": 3}, "prefix cannot be merged: it stands ahead of every row"),
        ({"name": "bottleneck", "size": 8}, "bottleneck cannot be merged: it has a nonlinearity in its middle"),
        ({"name": "probe"}, "probe cannot be merged: it reads the mean of all tokens"),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("way", [merge, merge_for_good])
def test_what_no_weight_could_hold_is_refused_in_one_sentence(method, why, way):
    model = tiny("bert")
    method_from(method).attach(model)
    before = snapshot(model)
    with pytest.raises(BadValue, match=why) as caught:
        way(model)
    assert "\n" not in str(caught.value)
    assert snapshot(model) == before


def test_every_method_is_either_merged_or_refused_here():
    tried = {method.name for method in METHODS.values()}
    assert tried | {"prompt", "ptuning", "prefix", "bottleneck", "probe", "full"} == set(REGISTRY)


@pytest.mark.parametrize(("method", "number"), [(IA3(), "factor"), (METHODS["dora"], "lora_magnitude_vector")])
def test_a_factor_of_zero_can_be_unmerged_too(method, number):
    model = trained("bert", method)
    next(p for n, p in model.named_parameters() if n.endswith(number)).data[0] = 0
    before, adapted = snapshot(model), logits(model)
    merge(model)
    torch.testing.assert_close(logits(model), adapted, rtol=1e-4, atol=1e-4)
    unmerge(model)
    assert snapshot(model) == before


@pytest.mark.parametrize("method", ["lora", "ia3", "bitfit"])
def test_merged_it_is_not_saved_and_can_be_detached(method, tmp_path):
    model = trained("bert", METHODS[method])
    merge(model)
    with pytest.raises(BadValue, match="unmerge"):
        save_adapter(model, tmp_path)
    detach(model)
    assert distance(weights(model), weights(tiny("bert").requires_grad_(False))) == 0


def _lora(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    return [(name, layer) for name, layer in adapter_layers(model) if isinstance(layer, LoRALinear)]
