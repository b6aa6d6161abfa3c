import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from transformers.pytorch_utils import Conv1D

from lora_lab.adapter_layer import innermost, out_by_in
from lora_lab.layers import LoRALinear, init_A
from lora_lab.methods.lora_layers import LoRAEmbedding

IN, OUT, RANK, SCALING = 12, 18, 3, 2.0
KINDS = ("linear", "linear without bias", "conv1d")


def frozen_layer(kind: str = "linear", inputs: int = IN, outputs: int = OUT) -> nn.Module:
    torch.manual_seed(0)
    layer = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=kind == "linear")
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.requires_grad_(False)


def randomized(layer: LoRALinear | LoRAEmbedding) -> LoRALinear | LoRAEmbedding:
    torch.manual_seed(1)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return layer


def naive(layer: LoRALinear, x: torch.Tensor) -> torch.Tensor:
    """Compute x W^T + b + scaling x A^T B^T, with the update in the rows of the layer's slice."""
    frozen = innermost(layer)
    start, stop = layer.out_slice or (0, layer.out_features)
    update = layer.scaling * (x @ layer.lora_A.T @ layer.lora_B.T)
    return F.linear(x, out_by_in(frozen), frozen.bias) + F.pad(update, (start, layer.out_features - stop))


@settings(max_examples=90)
@given(st.sampled_from(KINDS), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.booleans())
def test_output_and_gradients_equal_the_naive_reference(kind, inputs, outputs, rank, sliced):
    rows = (outputs // 3, outputs // 3 + outputs // 2) if sliced and outputs > 1 else None
    layer = LoRALinear(frozen_layer(kind, inputs, outputs), rank, SCALING, out_slice=rows)
    layer = randomized(layer).double()  # fp32 would show rounding
    for shape in ((inputs,), (2, 3, 4, inputs), (0, inputs)):
        x = torch.randn(shape, dtype=torch.double, requires_grad=True)
        actual, expected = layer(x), naive(layer, x)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        gradients = [torch.autograd.grad(y.tanh().sum(), [x, layer.lora_A, layer.lora_B]) for y in (actual, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    layer.enabled = False
    assert torch.equal(layer(x), layer.base_layer(x))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_two_slices_of_one_layer_have_nested_adapters(kind):
    q = randomized(LoRALinear(frozen_layer(kind), RANK, SCALING, out_slice=(0, 6)))
    both = randomized(LoRALinear(q, 2, 0.5, out_slice=(12, 18)))
    frozen, x = innermost(both), torch.randn(4, IN, requires_grad=True)
    y_q, y_v = (SCALING * x @ q.lora_A.T @ q.lora_B.T, 0.5 * x @ both.lora_A.T @ both.lora_B.T)
    expected = F.linear(x, out_by_in(frozen), frozen.bias) + torch.cat([y_q, torch.zeros(4, 6), y_v], dim=1)
    torch.testing.assert_close(both(x), expected)
    assert torch.equal(both(x)[:, 6:12], frozen(x)[:, 6:12])
    inputs = [x, q.lora_A, q.lora_B, both.lora_A, both.lora_B]
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (both(x), expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)
    assert (both.weight is frozen.weight, both.bias is frozen.bias) == (True, True)  # T5 reads the weight's dtype
    assert sum(p is frozen.weight for p in both.parameters()) == 1


def test_dropout_acts_only_on_the_adapter_and_in_training():
    layer, x = randomized(LoRALinear(frozen_layer(), RANK, SCALING, dropout=0.5)), torch.randn(64, IN)
    torch.testing.assert_close(layer.eval()(x), naive(layer, x))
    torch.manual_seed(3)
    update = layer.train()(x) - layer.base_layer(x)
    torch.manual_seed(3)
    expected = SCALING * F.dropout(x, 0.5) @ layer.lora_A.T @ layer.lora_B.T
    torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(update, layer.eval()(x) - layer.base_layer(x))


def test_adapter_of_a_bf16_layer_stays_fp32():
    layer = randomized(LoRALinear(frozen_layer().bfloat16(), RANK, SCALING))
    x = torch.randn(4, IN, dtype=torch.bfloat16)
    y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    for parameter in (layer.lora_A, layer.lora_B):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    expected = naive(layer.float(), x.float())
    assert (y.float() - expected).norm() < 0.01 * expected.norm()  # each rounding to bf16 costs up to 0.4%


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("rows", [None, (6, 12)])
def test_hook_on_the_frozen_layer_or_on_every_layer_sees_its_own_output(rows, every):
    layer, x, outputs = randomized(LoRALinear(frozen_layer(), RANK, SCALING, out_slice=rows)), torch.randn(5, IN), []
    expected = layer.base_layer(x)
    register = register_module_forward_hook if every else layer.base_layer.register_forward_hook
    with register(lambda module, args, y: outputs.append(y)):
        y = layer(x)
    assert torch.equal(outputs[0], expected)
    torch.testing.assert_close(y, naive(layer, x))


@pytest.mark.parametrize("padding", [None, 0])
def test_embedding_adds_a_column_of_a_and_merges(padding):
    torch.manual_seed(0)
    layer = LoRAEmbedding(nn.Embedding(20, 8, padding_idx=padding).requires_grad_(False), RANK, SCALING)
    tokens = torch.randint(1, 20, (2, 5))
    assert torch.equal(layer(tokens), layer.base_layer(tokens))
    randomized(layer)
    columns = layer.lora_embedding_A[:, tokens.flatten()]  # (rank, tokens)
    expected = layer.base_layer(tokens) + SCALING * (layer.lora_embedding_B @ columns).T.view(2, 5, 8)
    torch.testing.assert_close(layer(tokens), expected)
    inputs = [layer.lora_embedding_A, layer.lora_embedding_B]
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (layer(tokens), expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(F.embedding(tokens, layer.merged_weights(layer.weight, None)[0]), layer(tokens))
    layer(torch.tensor([0, 0, 3])).sum().backward()
    assert bool(layer.lora_embedding_A.grad[:, 0].any()) == (padding is None)
    assert layer.lora_embedding_A.grad[:, 3].any()


def test_kaiming_init_equals_loralibs_and_gaussian_has_the_deviation_1_over_rank():
    actual, expected, a = torch.empty(8, 384), torch.empty(8, 384), torch.empty(8, 4096)
    torch.manual_seed(0)
    init_A(actual, "kaiming")
    torch.manual_seed(0)
    nn.init.kaiming_uniform_(expected, a=math.sqrt(5))
    torch.testing.assert_close(actual, expected)
    init_A(a, "gaussian")
    assert a.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert abs(a.mean().item()) < 0.05 / 8
