"""A model in a few bits answers as its dequantised twin, trains its adapter alone, and needs what was predicted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lora_lab import LoRA, load_adapter, load_model, memory, save_adapter
from lora_lab.errors import BadValue
from lora_lab.layers import out_by_in
from lora_lab.methods.attach import coded_layers, fingerprint, numbers_of
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.quantize import quantize
from lora_lab.methods.quantized import QuantizedLinear, quantize_model
from lora_lab.training.measure import measure
from tests.conftest import logits, randomise, tiny

KINDS = ("bert", "gpt2", "llama", "phi3")
pytestmark = pytest.mark.usefixtures("one_thread")


def twin(model: nn.Module, name: str) -> nn.Module:
    """The same model with plain layers that hold what comes back from the codes."""
    plain = copy.deepcopy(model)
    quantize_model(model, name, fast=False)
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            with torch.no_grad():
                out_by_in(plain.get_submodule(path)).copy_(layer.dequantized())
    return plain


@pytest.mark.parametrize("name", ["nf4", "nf4-single", "int8", "nf3", "nf2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_answers_as_its_dequantised_twin(kind, name):
    model = tiny(kind)
    before = logits(model)
    plain = twin(model, name)
    assert torch.allclose(logits(model), logits(plain), atol=1e-5)
    assert not torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_through_the_codes_as_through_plain_weights(kind):
    model = tiny(kind)
    plain = twin(model, "nf4")
    gradients = []
    for one in (model, plain):
        torch.manual_seed(0)
        LoRA(rank=4, targets="all-linear").attach(one)
        randomise(one)
        logits(one).square().mean().backward()
        gradients.append({name: p.grad for name, p in one.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], grad, atol=1e-5) for name, grad in gradients[1].items())


def test_backward_keeps_no_weight_and_no_input():
    layer = QuantizedLinear(nn.Linear(128, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        layer(torch.randn(8, 128, requires_grad=True))
    assert kept == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitsandbytes_own_layer_gives_the_same(bitsandbytes, dtype):
    plain, x = nn.Linear(128, 64), torch.randn(8, 128, dtype=dtype)
    theirs = bitsandbytes.nn.Linear4bit(128, 64, quant_type="nf4", compute_dtype=dtype)
    theirs.load_state_dict(plain.state_dict())
    theirs = theirs.to("cpu")  # which is when it quantises
    answers = []
    for layer in (QuantizedLinear(plain), QuantizedLinear(plain, fast=False), theirs.train()):
        asked = x.clone().requires_grad_()
        y = layer(asked)
        y.float().square().sum().backward()
        answers.append((y, asked.grad))
    for y, gradient in answers[1:]:
        assert torch.equal(y, answers[0][0])
        assert torch.equal(gradient, answers[0][1])


def test_casting_a_model_leaves_codes_and_scales_alone():
    layer = QuantizedLinear(nn.Linear(128, 64))
    before = layer.dequantized()
    assert torch.equal(layer.bfloat16().dequantized(), before)
    assert layer.bias.dtype == torch.bfloat16


def test_heads_and_embeddings_stay_and_the_count_does_too():
    model = tiny("bert")
    numbers, known = numbers_of(model), fingerprint(model)
    assert quantize_model(model) == 2 * 6
    assert len(coded_layers(model)) == 2 * 6
    assert type(model.classifier) is nn.Linear
    assert type(model.bert.pooler.dense) is nn.Linear
    assert numbers_of(model) == numbers
    assert fingerprint(model) == known
    assert LoRA().attach(model).base_parameters == numbers


def test_an_adapter_of_a_quantised_base_loads_on_the_plain_one(tmp_path):
    plain = tiny("llama")
    model = copy.deepcopy(plain)
    quantize_model(model)
    LoRA(rank=2).attach(model)
    randomise(model)
    save_adapter(model, tmp_path)
    load_adapter(plain, tmp_path)
    assert torch.equal(dict(plain.named_parameters())["model.layers.0.self_attn.q_proj.lora_A"],
                       dict(model.named_parameters())["model.layers.0.self_attn.q_proj.lora_A"])  # fmt: skip


def test_codes_do_not_train():
    model = tiny("llama")
    quantize_model(model)
    with pytest.raises(BadValue, match="codes of a few bits cannot train"):
        FullFineTuning().attach(model)
    with pytest.raises(BadValue, match="quantised already"):
        quantize_model(model)
    with pytest.raises(BadValue, match="nf4"):
        quantize_model(tiny("llama"), "nf5")


@pytest.mark.parametrize("name", ["nf4", "nf4+bf16", "int8"])
def test_a_model_loads_quantised_from_the_checkpoints_own_numbers(name, loaded):
    model, plain = load_model("minilm", 2, dtype=name), loaded("minilm", 2)
    own = model.bert.encoder.layer[0].attention.self.query
    expected = quantize(plain.bert.encoder.layer[0].attention.self.query.weight, name.partition("+")[0])
    assert torch.equal(own.dequantized(), expected.dequantized())
    assert model.bert.embeddings.word_embeddings.weight.dtype == (torch.bfloat16 if "+" in name else torch.float32)


@pytest.mark.parametrize("name", ["nf4", "int8", "nf2"])
def test_a_real_step_needs_what_was_predicted(name):
    setup = {"batch": 2, "seq": 64, "device": "cpu", "dtype": "bf16", "quantised": name}
    predicted, real = memory("minilm", LoRA(), **setup), measure("minilm", LoRA(), **setup)
    assert predicted.peak == pytest.approx(real.peak, rel=0.03)
    assert memory("minilm", LoRA(), trace=True, **setup).peak == pytest.approx(real.peak, rel=0.03)


def test_qlora_on_smollm2_needs_what_was_predicted():
    setup = {"batch": 1, "seq": 32, "device": "cpu", "dtype": "bf16", "quantised": "nf4"}
    method = LoRA(targets="all-linear")
    predicted, real = memory("smollm2", method, **setup), measure("smollm2", method, **setup)
    assert predicted.peak == pytest.approx(real.peak, rel=0.03)
    sixteen = memory("smollm2", method, **{**setup, "quantised": "none"})
    assert real.categories["weights"] < 0.5 * sixteen.categories["weights"]


def test_other_widths_are_predicted_and_traced_alike():
    config = tiny("llama").config.to_dict() | {"hidden_size": 64, "intermediate_size": 128}
    weights = [
        memory(config, LoRA(), trace=True, quantised=name).categories["weights"] for name in ("nf2", "nf4", "int8")
    ]
    assert weights == sorted(weights)
