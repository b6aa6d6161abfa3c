"""NF4 equals bitsandbytes' bit for bit; a quantized model answers like its dequantized twin and fits the prediction."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import FullFineTuning, LoRA, load_adapter, load_model, memory, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue
from lora_lab.methods import quant
from lora_lab.methods.attach import fingerprint, numbers_of, quantized_layers
from lora_lab.methods.quant import QuantizedLinear, levels_of, quantize, quantize_model, regroup
from lora_lab.methods.targets import QUANTISED_BITS, bits_per_weight
from lora_lab.training.measure import measure
from tests.conftest import logits, randomise, tiny

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((64, 64), (192, 576), (2, 64))
FEW = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def peer(bitsandbytes):
    """bitsandbytes' functions."""
    return bitsandbytes.functional


def weight(shape: tuple[int, int], seed: int, spread: float = 0.02, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread).to(dtype)


def test_the_levels_are_those_of_bitsandbytes(peer):
    assert torch.equal(levels_of("nf4"), peer.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(quant.dynamic_levels(), peer.create_dynamic_map())


@FEW
@given(
    st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([1e-4, 0.02, 50.0]), st.sampled_from(DTYPES),
    st.booleans(),
)  # fmt: skip
def test_codes_scales_and_values_equal_bitsandbytes(peer, shape, seed, spread, dtype, double):
    original = weight(shape, seed, spread, dtype)
    codes, state = peer.quantize_4bit(original, quant_type="nf4", compress_statistics=double)
    ours = quantize(original, "nf4" if double else "nf4-single")
    assert torch.equal(ours.packed, codes.flatten())
    assert torch.equal(ours.absmax, state.absmax)
    if double:
        assert torch.equal(ours.scales, state.state2.absmax)
        assert ours.offset == state.offset
    for wanted in DTYPES:
        state.dtype = wanted
        theirs = peer.dequantize_4bit(codes, state)
        assert torch.equal(ours.dequantized(wanted), theirs)
        assert torch.equal(ours.dequantized(wanted, fast=True), theirs)


@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 12), st.integers(0, 10**6))
def test_what_is_packed_comes_back(bits, eights, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (8 * eights,), generator=generator).to(torch.uint8)
    packed = regroup(codes, bits, 8).to(torch.uint8)
    assert len(packed) == eights * bits
    assert torch.equal(regroup(packed, 8, bits).to(torch.uint8), codes)


@pytest.mark.parametrize(("name", "bits"), [("nf4", 4.127), ("nf4-single", 4.5), ("nf3", 3.127)])
def test_bits_a_weight(name, bits):
    stored = quantize(weight((256, 512), 0), name)
    numbers = [t for t in (stored.packed, stored.absmax, stored.scales, stored.offset) if t is not None]
    assert 8 * sum(t.nbytes for t in numbers) / (256 * 512) == pytest.approx(bits, abs=0.001)
    assert bits_per_weight(name) == pytest.approx(bits, abs=0.001)


@FEW
@given(st.sampled_from(sorted(QUANTISED_BITS)), st.integers(1, 300), st.integers(0, 10**6))
def test_any_number_of_weights_comes_back_within_half_a_step(name, count, seed):
    original = weight((1, count), seed, 1.0)
    back, levels = quantize(original, name).dequantized(), levels_of(name)
    step = float((levels[1:] - levels[:-1]).max())
    assert back.shape == original.shape
    assert float((back - original).abs().max()) <= (step / 2 + 0.02) * float(original.abs().max()) + 1e-6


def test_zeros_stay_zeros_and_what_cannot_be_quantized_is_named():
    assert not quantize(torch.zeros(4, 64), "nf4-single").dequantized().any()
    with pytest.raises(BadValue, match="nf4"):
        quantize(torch.ones(1, 64), "nf5")
    with pytest.raises(BadValue, match="NaN or infinity"):
        quantize(torch.full((1, 64), float("nan")))


# ---- layers and models


def twin(model: nn.Module, name: str) -> nn.Module:
    """The same model with plain layers that hold what comes back from the codes."""
    plain = copy.deepcopy(model)
    quantize_model(model, name)
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            with torch.no_grad():
                out_by_in(plain.get_submodule(path)).copy_(layer.dequantized())
    return plain


@pytest.mark.parametrize(("kind", "name"), [("bert", "nf4"), ("gpt2", "int8"), ("phi3", "nf3")])
def test_a_quantized_model_answers_and_its_adapter_learns_as_on_the_dequantized_twin(kind, name):
    model = tiny(kind)
    before, gradients = logits(model), []
    plain = twin(model, name)
    assert torch.allclose(logits(model), logits(plain), atol=1e-5)
    assert not torch.equal(logits(model), before)
    for one in (model, plain):
        torch.manual_seed(0)
        LoRA(rank=4, targets="all-linear").attach(one)
        randomise(one)
        logits(one).square().mean().backward()
        gradients.append({path: p.grad for path, p in one.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][path], grad, atol=1e-5) for path, grad in gradients[1].items())


def test_backward_keeps_no_weight_and_no_input():
    layer, kept = QuantizedLinear(nn.Linear(128, 64)), []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        layer(torch.randn(8, 128, requires_grad=True))
    assert kept == []


def test_bitsandbytes_own_layer_gives_the_same(bitsandbytes):
    plain, x = nn.Linear(128, 64), torch.randn(8, 128, dtype=torch.bfloat16)
    theirs = bitsandbytes.nn.Linear4bit(128, 64, quant_type="nf4", compute_dtype=torch.bfloat16)
    theirs.load_state_dict(plain.state_dict())
    theirs = theirs.to("cpu")  # quantizes
    answers = []
    for layer in (QuantizedLinear(plain), theirs.train()):
        asked = x.clone().requires_grad_()
        y = layer(asked)
        y.float().square().sum().backward()
        answers.append((y, asked.grad))
    (ours, gradient), (wanted, other) = answers
    assert torch.equal(ours, wanted)
    assert torch.equal(gradient, other)


def test_casting_a_model_leaves_codes_and_scales_alone():
    layer = QuantizedLinear(nn.Linear(128, 64))
    before = layer.dequantized()
    assert torch.equal(layer.bfloat16().dequantized(), before)
    assert layer.bias.dtype == torch.bfloat16


def test_heads_and_embeddings_stay_and_the_count_and_the_fingerprint_do_too(tmp_path):
    model, plain = tiny("bert"), tiny("bert")
    assert quantize_model(model) == len(quantized_layers(model)) == 2 * 6
    assert type(model.classifier) is type(model.bert.pooler.dense) is nn.Linear
    assert numbers_of(model) == numbers_of(plain)
    assert fingerprint(model) == fingerprint(plain)
    for refused, says in ((FullFineTuning().attach, "weights cannot be trained"), (quantize_model, "already")):
        with pytest.raises(BadValue, match=says):
            refused(model)
    report = LoRA().attach(model)
    assert report.total == numbers_of(plain) + report.adapter_parameters
    randomise(model)
    load_adapter(plain, save_adapter(model, tmp_path))
    path = "bert.encoder.layer.0.attention.self.query.lora_A"
    assert torch.equal(plain.get_parameter(path), model.get_parameter(path))
    with pytest.raises(BadValue, match="nf4"):
        quantize_model(tiny("llama"), "nf5")


def test_a_model_loads_quantized_from_the_checkpoints_own_numbers(loaded):
    own = loaded("minilm", 2).bert.encoder.layer[0].attention.self.query
    bert = load_model("minilm", 2, dtype="nf4+bf16").bert
    assert torch.equal(bert.encoder.layer[0].attention.self.query.dequantized(), quantize(own.weight).dequantized())
    assert bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16


def test_a_real_step_needs_what_was_predicted():
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "bf16", "quantised": "nf4"}
    predicted, real = memory("minilm", LoRA(), trace=True, **setup), measure("minilm", LoRA(), **setup)
    assert predicted.peak == pytest.approx(real.peak, rel=0.03)
