"""Tests that every registered method passes, on models with and without fused layers.

A new method is tested here automatically. Exceptions are in the tables below.
"""

import pytest
import torch
from torch import nn

from lora_lab import LoRA, detach, disabled, load_adapter, memory, params, save_adapter
from lora_lab.errors import BadValue
from lora_lab.methods import REGISTRY, method_from
from lora_lab.methods.base import Method
from lora_lab.methods.packed import share, stack_members
from lora_lab.methods.quant import quantize_model
from lora_lab.training.measure import measure
from tests.accounting.test_memory import config
from tests.conftest import logits, randomise, snapshot, tiny

KINDS = ("roberta", "gpt2", "llama")
SMALL = {  # options for models of width 32
    "bottleneck": {"size": 8},
    "prompt": {"tokens": 3},
    "ptuning": {"tokens": 3},
    "prefix": {"tokens": 3},
    "lora": {"rank": 2},
    "vera": {"rank": 8},
    "lora-xs": {"rank": 4},
    "tinylora": {"u": 8, "weight_tying": 0.5},
}
METHODS: dict[str, Method] = {name: method_from({"name": name, **SMALL.get(name, {})}) for name in REGISTRY}
METHODS["dora, freeze_a"] = LoRA(rank=2, dora=True, freeze_a=True)
METHODS["pissa, freeze_a"] = LoRA(rank=2, init="pissa", freeze_a=True, rslora=True)
TRAINS_BASE = {"full"}  # cannot be disabled or detached
CHANGES_OUTPUT = {"prompt", "ptuning", "prefix", "probe"}  # immediately, before any training
# Both are tested in test_refused.py.
DOES_NOT_FIT = {("head", "gpt2"), ("bitfit", "llama"), ("probe", "gpt2"), ("dora, freeze_a", "gpt2")}
NOT_QUANTIZED = {"bitfit", "dora, freeze_a", "pissa, freeze_a"}
ON_LLAMA = ("lora", "dora, freeze_a", "ia3", "full", "prefix", "bottleneck")  # no biases, other norms, fewer kv heads
CASES = [(n, k) for n in METHODS for k in KINDS if (n, k) not in DOES_NOT_FIT and (k != "llama" or n in ON_LLAMA)]
DTYPES = [(*case, "bf16") for case in CASES if case[0] not in TRAINS_BASE]
DTYPES += [(*case, "nf4") for case in CASES if case[0] not in TRAINS_BASE | NOT_QUANTIZED]
TRACED = [(name, "bert", False) for name in ("full", "probe", "bottleneck", "dora, freeze_a", "lora-xs")]
TRACED += [(name, "gpt2", False) for name in ("full", "lora", "ia3", "vera")]  # fused layers
TRACED += [("prefix", "gpt2", True), ("prefix", "bert", True), ("ptuning", "gpt2", True)]  # padded rows
PACKED = [(name, kind) for name, kind in dict(CASES).items() if METHODS[name].can_pack]


def loss_of(output: torch.Tensor) -> torch.Tensor:
    return output.float().log_softmax(-1)[..., 1].square().mean()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_attach_train_save_load_disable_detach(name, kind, tmp_path):
    method, model, plain, loaded = METHODS[name], tiny(kind), tiny(kind), tiny(kind)
    base, counted = logits(plain), params(plain, method)
    report = method.attach(model)
    if name in CHANGES_OUTPUT:
        assert not torch.equal(logits(model), base)
    else:
        torch.testing.assert_close(logits(model), base, rtol=1e-6, atol=1e-6)
    assert not any(module.training for module in model.modules())
    # The report counts what trains.
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == report.trainable
    assert report.adapter_parameters == counted.trainable
    assert report.head_parameters == (counted.head if name != "probe" else 3 * (32 + 1))
    frozen = sum(p.numel() for n, p in model.named_parameters() if n.endswith("lora_A") and n not in trainable)
    assert report.total == counted.total + (0 if name in TRAINS_BASE else counted.trainable + frozen)
    assert f"{report.trainable:,} of {report.total:,} parameters train" in str(report)
    assert all(placement.site.name in str(report) for placement in report.placements)
    # A gradient step changes it.
    before = {n: p.detach().clone() for n, p in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(logits(model)).backward()
        optimizer.step()
    assert any(not torch.equal(p, before[n]) for n, p in trainable.items())
    # A loaded file gives the same model, without random numbers.
    randomise(model)
    adapted, random_state = logits(model), torch.get_rng_state()
    assert load_adapter(loaded, save_adapter(model, tmp_path)).method == method
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(logits(loaded), adapted)
    if name != "ptuning":  # its file holds the output of its network, not the network
        assert snapshot(loaded) == snapshot(model)
    if name in TRAINS_BASE:
        for function in (detach, lambda model: disabled(model).__enter__()):
            with pytest.raises(BadValue, match="reload the base"):
                function(model)
        return
    # The base comes back when the adapter is disabled or detached.
    with disabled(model):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), adapted)
    assert not torch.equal(adapted, base)
    with pytest.raises(BadValue, match="already has an adapter"):
        method.attach(model)
    detach(model)
    assert snapshot(model) == snapshot(plain.requires_grad_(False))
    assert torch.equal(logits(model), base)
    method.attach(model.train())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("name", "kind"), PACKED)
def test_pack_trains_as_alone_and_can_be_disabled(name, kind):
    def attached(seed: int) -> nn.Module:
        model = share(base)
        torch.manual_seed(seed)
        METHODS[name].attach(model)
        return model.double()

    def outputs(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    base, ids = tiny(kind).double(), torch.randint(1, 96, (6, 7), generator=torch.Generator().manual_seed(3))
    plain = outputs(base, ids)
    alone, members = ([attached(seed) for seed in (1, 2)] for _ in range(2))
    packed, numbers, gradients = stack_members(base, members)
    numbers.grad = gradients
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in alone]
    pack_optimizer = torch.optim.AdamW([numbers], lr=1e-3)
    for _ in range(20):
        for model, optimizer, rows in zip(alone, optimizers, ids.chunk(2), strict=True):
            optimizer.zero_grad()
            loss_of(outputs(model, rows)).backward()
            optimizer.step()
        gradients.zero_()
        sum(loss_of(output) for output in outputs(packed, ids).chunk(2)).backward()
        pack_optimizer.step()
    for seed, model, member in zip((1, 2), alone, members, strict=True):
        expected, actual = ([p for p in m.parameters() if p.requires_grad] for m in (model, member))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        assert not torch.equal(logits(member), logits(attached(seed)))  # it has learned
    with disabled(packed):
        torch.testing.assert_close(outputs(packed, ids), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "kind", "dtype"), DTYPES)
def test_adapter_of_a_bf16_or_quantized_base_is_fp32(name, kind, dtype):
    model = tiny(kind)
    quantize_model(model) if dtype == "nf4" else model.bfloat16()
    base = logits(model)
    METHODS[name].attach(model)
    if name not in CHANGES_OUTPUT:
        torch.testing.assert_close(logits(model).float(), base.float(), rtol=0.02, atol=0.02)
    trainable = [p for p in model.parameters() if p.requires_grad]
    loss_of(logits(model)).backward()
    assert {p.dtype for p in trainable} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in trainable)
    assert any(p.grad.any() for p in trainable)


@pytest.mark.parametrize(("name", "kind", "padded"), TRACED)
def test_traced_memory_equals_a_measured_step(name, kind, padded):
    size = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 16, "inner": 64, "vocabulary": 96}
    setup = {"batch": 2, "seq": 24, "device": "cpu", "dtype": "fp32" if kind == "bert" else "bf16", "padded": padded}
    measured = measure(config(kind, size), METHODS[name], **setup)
    traced = memory(config(kind, size), METHODS[name], trace=True, **setup)
    assert (traced.peak, traced.categories) == (measured.peak, measured.categories)
