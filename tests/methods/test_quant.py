import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import FullFineTuning, LoRA, load_adapter, load_model, memory, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.methods.attach import fingerprint, quantized_layers
from lora_lab.methods.quant import QuantizedLinear, levels_of, quantize, quantize_model
from lora_lab.methods.targets import QUANTIZED_BITS, bits_per_weight
from lora_lab.training.measure import measure
from tests.accounting.conftest import small_config
from tests.conftest import assert_raises, logits, make_model, randomise, tiny

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def make_weight(shape: tuple[int, int], seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@settings(max_examples=25)
@given(
    shape=st.sampled_from([(64, 64), (192, 576), (2, 64)]), seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-4, 0.02, 50.0]), dtype=st.sampled_from(DTYPES), double=st.booleans(),
)  # fmt: skip
def test_nf4_equals_bitsandbytes(bitsandbytes, shape, seed, scale, dtype, double):
    weight = make_weight(shape, seed, scale).to(dtype)
    codes, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    ours = quantize(weight, "nf4" if double else "nf4-single")
    assert torch.equal(ours.packed, codes.flatten())
    assert torch.equal(ours.absmax, state.absmax)
    if double:
        assert torch.equal(ours.scales, state.state2.absmax)
        assert ours.offset == state.offset
    for state.dtype in DTYPES:
        expected = bitsandbytes.functional.dequantize_4bit(codes, state)
        assert torch.equal(ours.dequantized(state.dtype), expected)
        assert torch.equal(ours.dequantized(state.dtype, fast=True), expected)


def test_bits_per_weight():
    for name, bits in (("nf4", 4.127), ("nf4-single", 4.5), ("nf3", 3.127)):
        q = quantize(make_weight((256, 512)), name)
        stored = sum(t.nbytes for t in (q.packed, q.absmax, q.scales, q.offset) if t is not None)
        assert 8 * stored / (256 * 512) == pytest.approx(bits, abs=0.001) == bits_per_weight(name)


@settings(max_examples=40)
@given(st.sampled_from(sorted(QUANTIZED_BITS)), st.integers(1, 300), st.integers(0, 10**6), st.sampled_from([0.0, 1.0]))
def test_error_is_at_most_half_a_step(name, count, seed, scale):
    weight, levels = make_weight((1, count), seed, scale), levels_of(name)
    dequantized, step = quantize(weight, name).dequantized(), float((levels[1:] - levels[:-1]).max())
    assert dequantized.shape == weight.shape
    assert quantize(torch.tensor(2.0), name).dequantized() == 2
    assert float((dequantized - weight).abs().max()) <= (step / 2 + 0.0075) * float(weight.abs().max()) + 1e-6
    assert len(levels) == 2 ** QUANTIZED_BITS[name] - name.startswith("int")  # as many as the bits allow
    for broken, match in (("nf5", "'nf5' is not a quantization format; use nf4"), (name, "NaN or infinity")):
        assert_raises(match, quantize, torch.full((1, 64), float("nan")), broken)


@pytest.mark.parametrize(("kind", "name"), [("bert", "nf4"), ("gpt2", "int8"), ("phi3", "nf3")])
def test_quantized_model_equals_its_dequantized_copy(kind, name):
    model = tiny(kind)
    base, plain, gradients = logits(model), copy.deepcopy(model), []
    quantize_model(model, name)
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            out_by_in(plain.get_submodule(path)).data.copy_(layer.dequantized())
    assert torch.allclose(logits(model), logits(plain), atol=1e-5)
    assert not torch.equal(logits(model), base)
    for m in (model, plain):
        torch.manual_seed(0)
        LoRA(rank=4, targets="all-linear").attach(m)
        randomise(m)
        logits(m).square().mean().backward()
        gradients.append({path: p.grad for path, p in m.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_quantized_model_keeps_its_heads_count_and_fingerprint(tmp_path):
    model, plain = tiny("bert"), tiny("bert")
    assert quantize_model(model) == len(quantized_layers(model)) == 2 * 6
    assert type(model.classifier) is type(model.bert.pooler.dense) is nn.Linear
    assert fingerprint(model) == fingerprint(plain)
    for function, match in ((FullFineTuning().attach, "weights cannot be trained"), (quantize_model, "already")):
        assert_raises(match, function, model)
    size = {"vocab_size": 96, "dim": 64, "hidden_dim": 64, "n_layers": 1, "n_heads": 2}
    with_two_heads = make_model("DistilBertForSequenceClassification", size)
    quantize_model(with_two_heads)
    assert type(with_two_heads.pre_classifier) is type(with_two_heads.classifier) is nn.Linear
    for name in ("BertForMaskedLM", "BioGptForCausalLM"):
        quantize_model(language_model := make_model(name))
        head, embeddings = language_model.get_output_embeddings(), language_model.get_input_embeddings()
        assert head.weight is embeddings.weight
    report = LoRA().attach(model)
    assert report.total == sum(p.numel() for p in plain.parameters()) + report.adapter_parameters
    assert load_adapter(plain, save_adapter(model, tmp_path)).method == LoRA()


def test_a_layer_is_dequantized_in_double_precision(bitsandbytes):
    layer = QuantizedLinear(nn.Linear(64, 64))
    garbage = torch.full((64, 64), 7.0, dtype=torch.float64)
    del garbage  # a kernel that writes nothing would return this memory
    assert torch.equal(layer.dequantized(torch.float64), layer.dequantized().double())


def test_checkpoint_loads_quantized_and_backward_keeps_no_weight_and_no_input(tiny_encoder):
    weight, kept = load_model(tiny_encoder, 2).bert.encoder.layer[0].attention.self.query.weight, []
    bert = load_model(tiny_encoder, 2, dtype="nf4+bf16").bert
    layer = bert.encoder.layer[0].attention.self.query
    assert torch.equal(layer.dequantized(), quantize(weight).dequantized())
    assert bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        layer(torch.randn(8, 32, requires_grad=True, dtype=torch.bfloat16))
    assert kept == []


def test_predicted_memory_of_a_quantized_step_is_close():
    model = small_config("mixtral", hidden_size=64, intermediate_size=256)
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "bf16", "quantized": "nf4"}
    predicted, measured = memory(model, LoRA(), trace=True, **setup), measure(model, LoRA(), **setup)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.03)
