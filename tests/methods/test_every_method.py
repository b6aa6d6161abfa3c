import copy
import re
import runpy
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from lora_lab import IA3, LoRA, Probe, PromptTuning, detach, disabled, load_adapter, merge, params, save_adapter
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods import REGISTRY, Method, method_from
from lora_lab.methods.bank import AdapterBank
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.merge import at_strength
from lora_lab.methods.packed import share, stack_members
from lora_lab.methods.quant import quantize_model
from tests.budgets import ROOT
from tests.conftest import assert_raises, logits, lora_layers, make_model, randomise, snapshot, tiny, with_adapter

KINDS = ("roberta", "gpt2", "llama")
# A new method is tested here automatically; exceptions are in these tables.
SMALL = {  # options for models of width 32
    "bottleneck": {"size": 8}, "prompt": {"tokens": 3}, "ptuning": {"tokens": 3}, "prefix": {"tokens": 3},
    "lora": {"rank": 2}, "vera": {"rank": 8}, "lora-xs": {"rank": 4}, "tinylora": {"u": 8, "weight_tying": 0.5},
}  # fmt: skip
METHODS = {name: method_from({"name": name, **SMALL.get(name, {})}) for name in REGISTRY}
METHODS["dora, freeze_a"] = LoRA(rank=2, dora=True, freeze_a=True)
METHODS["pissa, freeze_a"] = LoRA(rank=2, init="pissa", freeze_a=True, rslora=True)
METHODS["embedding"] = LoRA(rank=2, targets=("embed", "v"))
TRAINS_BASE = {"full"}  # cannot be disabled or detached
CHANGES_OUTPUT = {"prompt", "ptuning", "prefix", "probe"}  # immediately, before any training
# The next two sets are tested in test_refused.py.
DOES_NOT_FIT = {("head", "gpt2"), ("bitfit", "llama"), ("probe", "gpt2"), ("dora, freeze_a", "gpt2")}
NOT_QUANTIZED = {"bitfit", "dora, freeze_a", "pissa, freeze_a"}
# Llama has no biases, other norms and fewer kv heads.
ON_LLAMA = ("embedding", "lora", "dora, freeze_a", "ia3", "full", "prefix", "bottleneck")
CASES = [(n, k) for n in METHODS for k in KINDS if (n, k) not in DOES_NOT_FIT and (k != "llama" or n in ON_LLAMA)]
ONCE = [*dict(CASES).items(), ("lora", "phi3")]  # a model for each method, and another for LoRA, with fused layers
DTYPES = [(*case, "bf16") for case in ONCE if case[0] not in TRAINS_BASE]
DTYPES += [(*case, "nf4") for case in ONCE if case[0] not in TRAINS_BASE | NOT_QUANTIZED]
PACKED = [("lora", "bert"), *(case for case in ONCE if METHODS[case[0]].can_pack)]
# Members of a pack may differ in rank, alpha and layers.
MIXED = {"lora": LoRA(rank=3, alpha=5, targets=("k", "v", "o"), rslora=True)}


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
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == report.trainable
    assert all(p.is_contiguous() for p in trainable.values())  # as safetensors and L-BFGS require
    assert report.adapter_parameters == counted.trainable
    assert report.head_parameters == (counted.head if name != "probe" else 3 * (32 + 1))
    frozen = sum(p.numel() for n, p in model.named_parameters() if n.endswith("lora_A") and n not in trainable)
    assert report.total == counted.total + (0 if name in TRAINS_BASE else counted.trainable + frozen)
    assert f"{report.trainable:,} of {report.total:,} parameters are trained" in str(report)
    assert all(placement.site.name in str(report) for placement in report.placements)
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
    again = load_adapter(loaded, save_adapter(model, tmp_path))
    assert again.method == method
    assert again.trainable == sum(p.numel() for p in loaded.parameters() if p.requires_grad)
    assert again.total == report.total - (report.adapter_parameters - 3 * 32) * (name == "ptuning")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(logits(loaded), adapted)
    inspected = inspect_adapter(tmp_path, tiny(kind))
    assert (inspected.problems, inspected.does_something) == ([], True)
    if name != "ptuning":  # its file holds the output of its network, not the network
        assert snapshot(loaded) == snapshot(model)
    if name in TRAINS_BASE:
        for function in (detach, lambda model: disabled(model).__enter__()):
            assert_raises("reload the base", function, model)
        return
    # The base comes back when the adapter is disabled or detached.
    with disabled(model):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), adapted)
    assert not torch.equal(adapted, base)
    assert_raises("already has an adapter", method.attach, model)
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
        (METHODS[name] if seed == 1 else MIXED.get(name, METHODS[name])).attach(model)
        return model.double()

    base, ids = tiny(kind).double(), torch.randint(1, 96, (6, 7), generator=torch.Generator().manual_seed(3))
    plain = logits(base, ids)
    alone, members = ([attached(seed) for seed in (1, 2)] for _ in range(2))
    packed, numbers, gradients = stack_members(base, members)
    numbers.grad = gradients
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in alone]
    pack_optimizer = torch.optim.AdamW([numbers], lr=1e-3)
    for _ in range(20):
        for model, optimizer, rows in zip(alone, optimizers, ids.chunk(2), strict=True):
            optimizer.zero_grad()
            loss_of(logits(model, rows)).backward()
            optimizer.step()
        gradients.zero_()
        sum(loss_of(output) for output in logits(packed, ids).chunk(2)).backward()
        pack_optimizer.step()
    for seed, model, member in zip((1, 2), alone, members, strict=True):
        expected, actual = ([p for p in m.parameters() if p.requires_grad] for m in (model, member))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        assert not torch.equal(logits(member), logits(attached(seed)))  # training changed it
    with torch.no_grad():  # adds in place
        together, apart = logits(packed, ids), [logits(m, rows) for m, rows in zip(alone, ids.chunk(2), strict=True)]
    torch.testing.assert_close(together, torch.cat(apart))
    with disabled(packed):
        torch.testing.assert_close(logits(packed, ids), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_method_of_the_readme_passes_the_tests_of_every_method(kind, tmp_path, monkeypatch):
    section = (ROOT / "README.md").read_text().partition("## Extend")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    code = code.replace("    can_pack", "    targets: tuple[str, ...] = ()\n    can_pack")
    (file := tmp_path / "norm_scale.py").write_text(code)
    monkeypatch.setitem(REGISTRY, "norm-scale", None)  # replaced by the README, and removed afterwards
    method = runpy.run_path(str(file))["NormScale"](targets="v,q")
    assert method.targets == ("q", "v")
    monkeypatch.setitem(METHODS, method.name, method)
    test_attach_train_save_load_disable_detach(method.name, kind, tmp_path / "adapter")
    assert method.can_pack
    test_pack_trains_as_alone_and_can_be_disabled(method.name, kind)
    assert params(tiny(kind), method).trainable == 5 * 32


@dataclass(frozen=True)
class Biases(Method):
    name, trains_base = "biases", True

    def insert(self, model, to_fill):
        for name, p in model.named_parameters():
            p.requires_grad_(name.endswith("bias"))


def test_method_that_trains_some_weights_of_the_base_is_counted():
    report, counted = Biases().attach(model := tiny("bert")), params(tiny("bert"), Biases())
    assert report.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (counted.trainable, counted.head) == (report.adapter_parameters, 3)


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


def test_warning_about_a_head_that_stays_random():
    model = make_model("DebertaV2ForSequenceClassification", pooler_hidden_size=32)
    with pytest.warns(LabWarning, match="pooler of this DebertaV2ForSequenceClassification .* stays frozen"):
        LoRA(rank=2, targets=("query_proj",)).attach(model)
    with warnings.catch_warnings(action="error", category=LabWarning):
        for kind in ("gpt2", "roberta", "phi3", "llama", "bert"):
            LoRA(rank=2).attach(tiny(kind))
            PromptTuning(tokens=2).attach(tiny(kind))


def test_at_strength_scales_the_update_and_keeps_the_head(tmp_path):
    model, scaled = (with_adapter("roberta", LoRA(rank=4)) for _ in range(2))
    adapted = logits(model)
    for strength in (1.0, 0.5, 0.0):
        for layer, original in zip(lora_layers(scaled), lora_layers(model), strict=True):
            layer.lora_B.data = strength * original.lora_B.data
        with suppress(KeyError), at_strength(model, strength):
            torch.testing.assert_close(logits(model), logits(scaled))
            raise KeyError
        assert torch.equal(logits(model), adapted)  # also after an error
    for value in (float("nan"), "0.5", None):
        with pytest.raises(BadValue, match="must be a finite number"), at_strength(model, value):
            pass
    with at_strength(model, 0.5), at_strength(model, -1):
        for function, match in ((merge, "keep this strength"), (partial(save_adapter, path=tmp_path), "strength -0.5")):
            assert_raises(f"{match}: leave the at_strength block", function, model, unchanged=model)
    save_adapter(model, tmp_path)
    model = with_adapter("roberta", IA3())
    with at_strength(model, 0), at_strength(model, 1):
        pass
    for other in (model, with_adapter("roberta", Probe())):
        name = other.lora_lab_report.method.name
        with pytest.raises(BadValue, match=rf"use 0 \(off\) or 1 \(on\) for {name}"), at_strength(other, 0.5):
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
    padding = torch.arange(5) >= torch.tensor([[3], [5]])  # torch would pack the rows without padding into one tensor
    torch.testing.assert_close(model(x, src_key_padding_mask=padding)[1], adapted[1])
    merge(model)
    torch.testing.assert_close(model(x), adapted, rtol=1e-4, atol=1e-4)
    detach(model)
    assert model.use_nested_tensor
    bank = AdapterBank(model)
    bank.add("a", with_adapter(copy.deepcopy(model), LoRA(rank=2, targets="linear1")))
    bank.close()
    assert model.use_nested_tensor


@pytest.mark.parametrize("name", ["lora", "vera", "lora-xs", "tinylora", "bottleneck", "prompt", "ptuning", "prefix"])
def test_torch_compiles_an_adapted_model_without_graph_breaks(name):
    torch.compiler.reset()
    model, inputs = with_adapter("roberta", METHODS[name]), {"input_ids": torch.arange(1, 10).view(1, 9)}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_wrapped_model_is_refused_by_attach_and_taken_elsewhere(wrap, tmp_path):
    model, loaded = tiny("roberta"), tiny("roberta")
    wrapped = wrap(model)
    assert_raises(r"pass the inner model, model\.(_orig_mod|module)", LoRA(rank=2).attach, wrapped, unchanged=model)
    base = logits(model)
    with_adapter(model, LoRA(rank=2))
    load_adapter(loaded, save_adapter(wrapped, tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert len(merge(wrapped).rounded) == 4
    detach(wrapped)
    with_adapter(model, PromptTuning(tokens=2))
    detach(wrapped)
    assert torch.equal(logits(model), base)
