"""VeRA, TinyLoRA and LoRA-XS share frozen numbers; LoRA-XS is its formula. The others: test_peft_parity."""

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lora_lab import LoRAXS, TinyLoRA, VeRA, detach, load_adapter, merge, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.methods.attach import Frozen, adapter_layers
from lora_lab.methods.io import WEIGHTS
from lora_lab.methods.packed import share
from tests.conftest import logits, snapshot, tiny
from tests.methods.conftest import with_adapter
from tests.methods.test_peft_parity import CLOSE, load_peft

NAMES = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
SMALL = {"vera": VeRA(rank=8), "lora-xs": LoRAXS(rank=4), "tinylora": TinyLoRA(u=5, weight_tying=0.5)}

every_method = pytest.mark.parametrize("method", SMALL.values(), ids=SMALL)


def ours(kind: str, method, targets=None) -> nn.Module:
    return with_adapter(kind, replace(method, targets=targets or NAMES[kind]))


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


# ---- how many, and what cannot be
