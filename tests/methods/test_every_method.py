"""What holds for every method that is registered, and for variants of LoRA, on models with and without fused layers.

A new method is tested here without further work; exceptions are in the tables below.
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
SMALL = {
    "bottleneck": {"size": 8},
    "prompt": {"tokens": 3},
    "ptuning": {"tokens": 3},
    "prefix": {"tokens": 3},
    "lora": {"rank": 2},
    "vera": {"rank": 8},
    "lora-xs": {"rank": 4},
    "tinylora": {"u": 8, "weight_tying": 0.5},
}  # for models of width 32
METHODS: dict[str, Method] = {name: method_from({"name": name, **SMALL.get(name, {})}) for name in REGISTRY}
METHODS["dora, freeze_a"] = LoRA(rank=2, dora=True, freeze_a=True)
METHODS["pissa, freeze_a"] = LoRA(rank=2, init="pissa", freeze_a=True, rslora=True)
TRAINS_BASE = {"full"}  # nothing is frozen, so nothing can be switched off or removed
CHANGES_AT_ONCE = {"prompt", "ptuning", "prefix", "probe"}  # vectors in front of every row; a head that starts at zero
DOES_NOT_FIT = {("head", "gpt2"), ("bitfit", "llama"), ("probe", "gpt2"), ("dora, freeze_a", "gpt2")}  # test_refused.py
NOT_IN_4_BITS = {"bitfit", "dora, freeze_a", "pissa, freeze_a"}  # test_refused.py
ON_LLAMA = ("lora", "dora, freeze_a", "ia3", "full", "prefix", "bottleneck")  # no biases, other norms, fewer kv heads
FITTING = [(n, kind) for n in METHODS for kind in KINDS if (n, kind) not in DOES_NOT_FIT]
FITTING = [(name, kind) for name, kind in FITTING if kind != "llama" or name in ON_LLAMA]
TRACED = [(name, "bert", False) for name in ("full", "probe", "bottleneck", "dora, freeze_a", "lora-xs")]
TRACED += [(name, "gpt2", False) for name in ("full", "lora", "ia3", "vera")]  # slices
TRACED += [("prefix", "gpt2", True), ("prefix", "bert", True), ("ptuning", "gpt2", True)]  # of padded rows
PACKING = [(name, kind) for name, kind in dict(FITTING).items() if METHODS[name].can_pack]


def attached(name: str, kind: str, base: nn.Module | None = None, seed: int = 0) -> nn.Module:
    model = base or tiny(kind)
    torch.manual_seed(seed)
    METHODS[name].attach(model)
    return model


def loss(answer: torch.Tensor) -> torch.Tensor:
    return answer.float().log_softmax(-1)[..., 1].square().mean()


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(logits(model)).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "kind"), FITTING)
def test_what_is_reported_trains_is_saved_and_loaded_and_the_base_stays_as_it_was(name, kind, tmp_path):
    model, plain, again = tiny(kind), tiny(kind), tiny(kind)
    answer, counted = logits(plain), params(plain, METHODS[name])
    report = METHODS[name].attach(model)
    if name in CHANGES_AT_ONCE:
        assert not torch.equal(logits(model), answer)
    else:
        torch.testing.assert_close(logits(model), answer, rtol=1e-6, atol=1e-6)
    trains = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trains.values()) == report.trainable
    assert report.adapter_parameters == counted.trainable
    assert report.head_parameters == (counted.head if name != "probe" else 3 * (32 + 1))
    frozen = sum(p.numel() for n, p in model.named_parameters() if n.endswith("lora_A") and n not in trains)
    assert report.total == counted.total + (0 if name in TRAINS_BASE else counted.trainable + frozen)
    assert f"{report.trainable:,} of {report.total:,} parameters train" in str(report)
    train(model)
    after = dict(model.named_parameters())
    assert any(not torch.equal(after[n], old) for n, old in trains.items())
    randomise(model)
    changed, random = logits(model), torch.get_rng_state()
    assert load_adapter(again, save_adapter(model, tmp_path)).method == METHODS[name]
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(logits(again), changed)
    if name != "ptuning":  # whose file holds the encoder's output, not the encoder
        assert snapshot(again) == snapshot(model)
    if name in TRAINS_BASE:
        for way in (detach, lambda model: disabled(model).__enter__()):
            with pytest.raises(BadValue, match="reload the base"):
                way(model)
        return
    with disabled(model):
        assert torch.equal(logits(model), answer)
    assert torch.equal(logits(model), changed)
    assert not torch.equal(changed, answer)
    with pytest.raises(BadValue, match="already has an adapter"):
        METHODS[name].attach(model)
    detach(model)
    assert snapshot(model) == snapshot(plain.requires_grad_(False))
    assert torch.equal(logits(model), answer)
    METHODS[name].attach(model)


@pytest.mark.parametrize(("name", "kind"), PACKING)
def test_packed_it_learns_in_20_steps_what_it_learns_alone_and_switched_off_it_is_the_base(name, kind):
    base, rows = tiny(kind).double(), torch.randint(1, 96, (6, 7), generator=torch.Generator().manual_seed(3))
    alone, members = ([attached(name, kind, share(base), seed).double() for seed in (1, 2)] for _ in range(2))
    packed, numbers, gradients = stack_members(base, members)
    numbers.grad = gradients
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in alone]
    together = torch.optim.AdamW([numbers], lr=1e-3)
    for _ in range(20):
        for model, optimizer, part in zip(alone, optimizers, rows.chunk(2), strict=True):
            optimizer.zero_grad()
            loss(model(input_ids=part, attention_mask=torch.ones_like(part)).logits).backward()
            optimizer.step()
        gradients.zero_()
        answers = packed(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
        sum(loss(answer) for answer in answers.chunk(2)).backward()
        together.step()
    for model, member in zip(alone, members, strict=True):
        trained = [[p for p in one.parameters() if p.requires_grad] for one in (model, member)]
        torch.testing.assert_close(trained[1], trained[0], rtol=1e-9, atol=1e-9)
        assert not torch.equal(logits(member), logits(attached(name, kind, seed=1)))
    plain = tiny(kind).double()(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
    with disabled(packed):
        answers = packed(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
    torch.testing.assert_close(answers, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [case for case in FITTING if case[0] not in TRAINS_BASE])
def test_on_a_base_in_bf16_and_on_one_in_4_bits_its_numbers_are_fp32_and_learn(name, kind):
    bases = [tiny(kind).to(torch.bfloat16), tiny(kind)]
    quantize_model(bases[1])
    for base in bases[: 1 if name in NOT_IN_4_BITS else 2]:
        plain = logits(base)
        METHODS[name].attach(base)
        if name not in CHANGES_AT_ONCE:
            torch.testing.assert_close(logits(base).float(), plain.float(), rtol=0.02, atol=0.02)
        trains = [p for p in base.parameters() if p.requires_grad]
        loss(logits(base)).backward()
        assert {p.dtype for p in trains} == {torch.float32}
        assert all(p.grad.isfinite().all() for p in trains)
        assert any(p.grad.any() for p in trains)


@pytest.mark.parametrize(("name", "kind", "padded"), TRACED)
def test_a_trace_equals_a_real_step_to_the_byte(name, kind, padded):
    size = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 16, "inner": 64, "vocabulary": 96}
    setup = {"batch": 2, "seq": 24, "device": "cpu", "dtype": "fp32" if kind == "bert" else "bf16", "padded": padded}
    real = measure(config(kind, size), METHODS[name], **setup)
    found = memory(config(kind, size), METHODS[name], trace=True, **setup)
    assert (found.peak, found.categories) == (real.peak, real.categories)
