"""NF4 equals bitsandbytes' bit for bit; a quantized model answers like its dequantized twin and fits the prediction."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import LoRA, load_adapter, load_model, memory, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue
from lora_lab.methods import quant
from lora_lab.methods.attach import fingerprint, numbers_of, quantized_layers
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.quant import QuantizedLinear, codes_of, levels_of, pack, quantize, quantize_model, unpack
from lora_lab.methods.targets import QUANTISED_BITS
from lora_lab.training.measure import measure
from tests.conftest import logits, randomise, tiny

KINDS = ("bert", "gpt2", "llama", "phi3")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((64, 64), (192, 576), (576, 1536), (384, 384), (2, 64))
FEW = settings(deadline=None, max_examples=25)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def peer(bitsandbytes):
    """bitsandbytes' functions."""
    return bitsandbytes.functional


def weight(shape: tuple[int, int], seed: int, spread: float = 0.02, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
    return made.to(dtype)


def error(held, original: torch.Tensor) -> float:
    return float((held.dequantized() - original.float()).norm() / original.float().norm())


def test_the_levels_are_those_of_bitsandbytes(peer):
    assert torch.equal(levels_of("nf4"), peer.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(quant.dynamic_levels(), peer.create_dynamic_map())


@FEW
@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([1e-4, 0.02, 50.0]), st.sampled_from(DTYPES))
def test_codes_scales_and_values_equal_bitsandbytes(peer, shape, seed, spread, dtype):
    original = weight(shape, seed, spread, dtype)
    codes, state = peer.quantize_4bit(original, quant_type="nf4", compress_statistics=True)
    ours = quantize(original)
    assert torch.equal(ours.packed, codes.flatten())
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(ours.scales, state.state2.absmax)
    assert ours.offset == state.offset
    for wanted in DTYPES:
        state.dtype = wanted
        assert torch.equal(ours.dequantized(wanted), peer.dequantize_4bit(codes, state))


def test_single_quantization_equals_bitsandbytes_too(peer):
    original = weight((192, 576), 0)
    codes, state = peer.quantize_4bit(original, quant_type="nf4", compress_statistics=False)
    ours = quantize(original, "nf4-single")
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(ours.dequantized(), peer.dequantize_4bit(codes, state))


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_path_gives_the_same_bits(shape, dtype, monkeypatch):
    quantized = quantize(weight(shape, 0))
    ours = quantized.dequantized(dtype)
    monkeypatch.setattr(quant, "_lookup", None)  # the kernel does not use it
    assert torch.equal(quantized.dequantized(dtype, fast=True), ours)


@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 12), st.integers(0, 10**6))
def test_what_is_packed_comes_back(bits, eights, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (8 * eights,), generator=generator).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == eights * bits
    assert torch.equal(unpack(packed, bits).to(torch.uint8), codes)


def test_the_first_code_is_in_the_high_bits_of_its_byte():
    assert pack(torch.tensor([1, 15, 0, 2, 0, 0, 0, 3], dtype=torch.uint8), 4).tolist() == [0x1F, 0x02, 0x00, 0x03]


@pytest.mark.parametrize(("name", "bits"), [("nf4", 4.127), ("nf4-single", 4.5), ("int8", 8.127), ("nf3", 3.127)])
def test_bits_a_weight(name, bits):
    assert quantize(weight((256, 512), 0), name).bits_per_weight == pytest.approx(bits, abs=0.001)


def test_more_bits_leave_less_error():
    original = weight((256, 512), 0)
    errors = [error(quantize(original, name), original) for name in ("int8", "nf4", "nf3", "nf2")]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < 0.08 < errors[1] < 0.1


def test_normal_quantiles_beat_even_steps_on_normal_weights_and_not_on_even_ones():
    normal, even = weight((256, 512), 0), torch.rand((256, 512), generator=torch.Generator().manual_seed(0)) - 0.5
    assert error(quantize(normal, "nf4"), normal) < 0.9 * error(quantize(normal, "int4"), normal)
    assert error(quantize(even, "nf4"), even) > error(quantize(even, "int4"), even)


@FEW
@given(st.sampled_from(sorted(QUANTISED_BITS)), st.integers(1, 300), st.integers(0, 10**6))
def test_any_number_of_weights_comes_back_within_half_a_step(name, count, seed):
    original = weight((1, count), seed, 1.0)
    held = quantize(original, name)
    back, levels = held.dequantized(), levels_of(name)
    step = float((levels[1:] - levels[:-1]).max())
    assert back.shape == original.shape
    assert float((back - original).abs().max()) <= (step / 2 + 0.02) * float(original.abs().max()) + 1e-6


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.sampled_from([levels_of("nf4"), levels_of("int8")]))
def test_a_code_is_that_of_the_nearest_level(values, levels):
    scaled = torch.tensor(values)
    nearest = (scaled[:, None] - levels).abs().min(1).values
    assert torch.allclose((scaled - levels[codes_of(scaled, levels).int()]).abs(), nearest, atol=1e-6)


@pytest.mark.parametrize("name", ["nf4-single", "int8", "nf3", "nf2"])
def test_quantizing_again_changes_nothing(name):
    once = quantize(weight((64, 128), 0), name)
    if name != "nf4-single":
        once = quantize(once.dequantized(), name)  # scales in 8 bits settle after the first time
    again = quantize(once.dequantized(), name)
    assert torch.equal(again.packed, once.packed)


def test_zeros_stay_zeros():
    held = quantize(torch.zeros(4, 64), "nf4-single")
    assert not held.dequantized().any()


def test_what_cannot_be_quantized_is_named():
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


@pytest.mark.parametrize("name", ["nf4", "nf4-single", "int8", "nf3", "nf2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_answers_like_its_dequantized_twin(kind, name):
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
    theirs = theirs.to("cpu")  # quantizes
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
    assert len(quantized_layers(model)) == 2 * 6
    assert type(model.classifier) is nn.Linear
    assert type(model.bert.pooler.dense) is nn.Linear
    assert numbers_of(model) == numbers
    assert fingerprint(model) == known
    report = LoRA().attach(model)
    assert report.total == numbers + report.adapter_parameters


def test_an_adapter_of_a_quantized_base_loads_on_the_plain_one(tmp_path):
    plain = tiny("llama")
    model = copy.deepcopy(plain)
    quantize_model(model)
    LoRA(rank=2).attach(model)
    randomise(model)
    save_adapter(model, tmp_path)
    load_adapter(plain, tmp_path)
    loaded, saved = (one.get_parameter("model.layers.0.self_attn.q_proj.lora_A") for one in (plain, model))
    assert torch.equal(loaded, saved)


def test_codes_do_not_train():
    model = tiny("llama")
    quantize_model(model)
    with pytest.raises(BadValue, match="quantized weights cannot train"):
        FullFineTuning().attach(model)
    with pytest.raises(BadValue, match="already quantized"):
        quantize_model(model)
    with pytest.raises(BadValue, match="nf4"):
        quantize_model(tiny("llama"), "nf5")


@pytest.mark.parametrize("name", ["nf4", "nf4+bf16", "int8"])
def test_a_model_loads_quantized_from_the_checkpoints_own_numbers(name, loaded):
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
