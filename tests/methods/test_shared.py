"""VeRA and TinyLoRA as PEFT has them; LoRA-XS held to its formula, and read by PEFT as the LoRA that it equals."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import warnings
import weakref
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lora_lab import LoRAXS, TinyLoRA, VeRA, detach, load_adapter, merge, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import LabError
from lora_lab.methods.attach import Frozen, adapter_layers
from lora_lab.methods.io import CONFIG, WEIGHTS
from lora_lab.methods.packed import share
from lora_lab.methods.quant import quantize_model
from tests.conftest import logits, randomise, snapshot, tiny
from tests.methods.conftest import with_adapter
from tests.methods.test_peft_parity import CLOSE, gradients, load_peft, save_peft

NAMES = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
# PEFT's options, and the method of ours that means the same
OPTIONS = {
    "vera": (peft.VeraConfig(r=6), VeRA(rank=6)),
    "vera, seed": (
        peft.VeraConfig(r=3, projection_prng_key=7, d_initial=0.5, save_projection=False),
        VeRA(rank=3, projection_seed=7, d_initial=0.5, save_projection=False),
    ),
    "tinylora": (peft.TinyLoraConfig(u=5), TinyLoRA(u=5)),
    "tinylora, tied": (peft.TinyLoraConfig(r=3, u=4, weight_tying=0.6), TinyLoRA(rank=3, u=4, weight_tying=0.6)),
    "tinylora, one for all": (
        peft.TinyLoraConfig(u=13, weight_tying=1.0, projection_seed=3, save_projection=False),
        TinyLoRA(u=13, weight_tying=1, projection_seed=3, save_projection=False),
    ),
    "tinylora, a rank above the layers'": (peft.TinyLoraConfig(r=40, u=2), TinyLoRA(rank=40, u=2)),
}
SMALL = {"vera": VeRA(rank=8), "lora-xs": LoRAXS(rank=4), "tinylora": TinyLoRA(u=5, weight_tying=0.5)}

every_method = pytest.mark.parametrize("method", SMALL.values(), ids=SMALL)


def peft_model(kind: str, option: str) -> peft.PeftModel:
    config = copy.deepcopy(OPTIONS[option][0])
    config.target_modules, config.task_type = NAMES[kind], "SEQ_CLS" if kind == "bert" else "CAUSAL_LM"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out, and that projections are left out
        return peft.get_peft_model(tiny(kind), config).eval()


def ours(kind: str, method, targets=None) -> nn.Module:
    return with_adapter(kind, replace(method, targets=targets or NAMES[kind]))


def in_order(model: nn.Module) -> list[torch.Tensor]:
    """The gradients by name; those of v in the order of the groups, for layers name them otherwise in PEFT."""
    found = gradients(model)
    vectors = [g for name, g in found.items() if name.endswith(".v") or ".tinylora_v." in name]
    return vectors + [
        found[name] for name in sorted(found) if name.endswith(("lambda_b", "lambda_d", ".weight", ".bias"))
    ]


def assert_the_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(logits(one), logits(other), **CLOSE)
    mine, theirs = in_order(one), in_order(other)
    assert mine
    for gradient, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(gradient / wanted.abs().max(), wanted / wanted.abs().max(), **CLOSE)


# ---- as PEFT has them


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *zip(itertools.cycle(NAMES), OPTIONS, strict=False),
        ("gpt2", "vera"),
        ("gpt2", "tinylora"),
        ("llama", "vera, seed"),
    ],
)
def test_pefts_file_answers_learns_and_is_written_the_same_here_and_peft_reads_ours(kind, option, tmp_path):
    theirs, model = peft_model(kind, option), tiny(kind)
    randomise(theirs)
    report = load_adapter(model, save_peft(theirs, tmp_path / "theirs"))
    assert vars(report.method) == {**vars(OPTIONS[option][1]), "targets": tuple(NAMES[kind])}
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert_the_same(model, theirs)
    assert not torch.allclose(logits(model), logits(tiny(kind)), atol=1e-3)  # it does something
    assert_the_same(model, load_peft(tiny(kind), save_adapter(model, tmp_path / "ours"), is_trainable=True))
    mine, other = (load_file(tmp_path / who / WEIGHTS) for who in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    written, read = (json.loads((tmp_path / who / CONFIG).read_text()) for who in ("ours", "theirs"))
    assert {key: read[key] for key in written} == written | {
        key: read[key] for key in ("base_model_name_or_path", "modules_to_save")
    }


# ---- fused layers


@pytest.mark.parametrize(
    ("kind", "method"), [*(("gpt2", method) for method in SMALL.values()), ("phi3", SMALL["vera"])]
)
def test_q_and_v_of_a_fused_layer_have_one_adapter_which_leaves_k_alone(kind, method, tmp_path):
    model, width, x = tiny(kind), {"gpt2": (32, 64), "phi3": (32, 48)}[kind], torch.randn(2, 5, 32)
    fused = ("c_attn", "qkv_proj")
    before = [m(x) for name, m in model.named_modules() if name.endswith(fused)]
    with_adapter(model, method)
    theirs = load_peft(tiny(kind), save_adapter(model, tmp_path))
    torch.testing.assert_close(logits(theirs), logits(model), **CLOSE)
    for found in (model, theirs):
        after = [m(x) for name, m in found.named_modules() if name.endswith(fused)]
        for y, old in zip(after, before, strict=True):
            assert torch.equal(y[..., slice(*width)], old[..., slice(*width)])
            assert not torch.allclose(y[..., : width[0]], old[..., : width[0]], atol=1e-4)
            assert not torch.allclose(y[..., width[1] :], old[..., width[1] :], atol=1e-4)


# ---- LoRA-XS


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_lora_xs_is_its_formula_and_only_the_square_gets_a_gradient(kind):
    for path, layer in adapter_layers(ours(kind, LoRAXS(rank=4, alpha=6))):
        if layer.head:
            continue
        weight, bias = out_by_in(layer).detach(), layer.bias
        a, b = layer.frozen.A, layer.frozen.B
        u, s, v = torch.linalg.svd(weight)
        torch.testing.assert_close(b @ a, u[:, :4] * s[:4] @ v[:4], **CLOSE, msg=path)  # the best of rank 4
        torch.testing.assert_close(b.t() @ b, torch.eye(4), **CLOSE)
        torch.testing.assert_close(a.norm(dim=1), s[:4], **CLOSE)
        x, r = torch.randn(3, 5, weight.shape[1]), layer.lora_R.detach().clone().requires_grad_()
        wanted = F.linear(x, weight, bias) + 1.5 * x @ a.t() @ r.t() @ b.t()
        torch.testing.assert_close(layer(x), wanted, **CLOSE)
        (gradient,) = torch.autograd.grad(layer(x).sin().sum(), layer.lora_R)
        torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sin().sum(), r)[0], **CLOSE)


def test_peft_and_we_read_lora_xs_as_the_lora_that_it_equals(tmp_path):
    model, again = ours("bert", LoRAXS(rank=4, alpha=6)), tiny("bert")
    save_adapter(model, tmp_path)
    theirs = load_peft(tiny("bert"), tmp_path)
    torch.testing.assert_close(logits(theirs), logits(model), **CLOSE)
    assert theirs.peft_config["default"].peft_type == "LORA"
    tensors = load_file(tmp_path / WEIGHTS)  # without our header, and what only we read
    save_file({key: t for key, t in tensors.items() if ".loraxs_" not in key}, tmp_path / WEIGHTS)
    assert load_adapter(again, tmp_path).method.name == "lora"
    torch.testing.assert_close(logits(again), logits(model), **CLOSE)


# ---- what is frozen


def frozen(model: nn.Module) -> list[Frozen]:
    return [module for module in model.modules() if isinstance(module, Frozen)]


def test_one_pair_stands_in_memory_wherever_the_model_goes_and_once_in_the_file(tmp_path):
    model = ours("llama", VeRA(rank=8), ("q", "v", "up"))
    for one in (model, copy.deepcopy(model), share(model), copy.deepcopy(model).to(torch.float64).float()):
        layers = [layer for _, layer in adapter_layers(one) if not layer.head]
        assert len({id(layer.frozen.A) for layer in layers}) == len({id(layer.frozen.B) for layer in layers}) == 1
        assert len(layers) >= 4
    assert not [key for key in model.state_dict() if "frozen" in key]
    keys = load_file(save_adapter(model, tmp_path) / WEIGHTS).keys()
    assert len([key for key in keys if key.endswith(("vera_A", "vera_B"))]) == 2


@every_method
def test_detached_nothing_of_it_is_left(method):
    model = tiny("llama").requires_grad_(False)
    before = snapshot(model)
    method.attach(model)
    held = [weakref.ref(tensor) for one in frozen(model) for tensor in one.buffers()]
    merge(model)
    detach(model)
    gc.collect()
    assert held
    assert not [tensor for tensor in held if tensor() is not None]
    assert snapshot(model) == before


@every_method
def test_on_a_quantized_base_and_one_in_bf16_it_starts_and_learns(method):
    coded = tiny("llama")
    quantize_model(coded)
    for base in (coded, tiny("llama").to(torch.bfloat16)):
        plain = logits(base)
        method.attach(base)
        assert torch.equal(logits(base), plain)
        assert any(g.any() for g in gradients(base).values())
        assert all(t.dtype == torch.float32 for one in frozen(base) for t in one.buffers())
        assert all(p.dtype == torch.float32 for p in base.parameters() if p.requires_grad)
    d = [p for name, p in base.named_parameters() if name.endswith("lambda_d")]
    assert all(torch.equal(one, torch.full((8,), 0.1)) for one in d)


# ---- how many, and what cannot be


BASE = tiny("bert")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VeRA(d_initial=0), "d_initial must be a number other than 0"),
        (lambda: VeRA(save_projection=1), "save_projection must be True or False"),
        (lambda: TinyLoRA(weight_tying=1.5), "weight_tying must be from 0 to 1"),
        (lambda: LoRAXS(alpha=0), "alpha must be a number greater than 0"),
        (lambda: LoRAXS(rank=64).attach(BASE), "rank 64 is too high for a layer of 32 x 32: use at most 32"),
        (lambda: VeRA(rank=10**8).attach(BASE), "3,200,000,000 frozen random numbers are more than"),
        (lambda: TinyLoRA(rank=32, u=300_000).attach(BASE), "307,200,000 frozen random numbers are more than"),
        (lambda: VeRA.from_peft({"bias": "all"}, BASE), "bias='all', which lora_lab does not support"),
        (lambda: VeRA(targets=("embed",)).attach(BASE), "an embedding: leave it out"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, words):
    before = snapshot(BASE)
    with pytest.raises(LabError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert snapshot(BASE) == before
