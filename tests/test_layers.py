import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from transformers.pytorch_utils import Conv1D

from lora_lab.adapter_layer import out_by_in
from lora_lab.layers import LoRALinear, init_A

IN, OUT, RANK, SCALING = 12, 18, 3, 2.0
KINDS = ("linear", "linear without bias", "conv1d")


def frozen_layer(kind: str = "linear", inputs: int = IN, outputs: int = OUT) -> nn.Module:
    torch.manual_seed(0)
    layer = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=kind == "linear")
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.requires_grad_(False)


def randomized(layer: LoRALinear) -> LoRALinear:
    torch.manual_seed(1)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return layer


def naive(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Compute x W^T + b + scaling x A^T B^T for each adapter, with the update in the rows of its slice."""
    if not isinstance(layer, LoRALinear):
        return F.linear(x, out_by_in(layer), layer.bias)
    start, stop = layer.out_slice or (0, layer.out_features)
    update = layer.scaling * (x @ layer.lora_A.T @ layer.lora_B.T)
    return naive(layer.base_layer, x) + F.pad(update, (start, layer.out_features - stop))


@settings(max_examples=90)
@given(st.sampled_from(KINDS), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2))
def test_output_and_gradients_equal_the_naive_reference(kind, inputs, outputs, rank, slices):
    """Several slices of one layer are nested adapters."""
    layer = frozen_layer(kind, inputs, outputs)
    rows = [(outputs // 3, outputs // 3 + outputs // 2), (0, 1)][:slices] if outputs > 1 else []
    for part in rows or [None]:
        layer = LoRALinear(layer, rank, SCALING, out_slice=part)
    layer = randomized(layer).double()  # fp32 would show rounding
    for shape in ((inputs,), (2, 3, 4, inputs), (0, inputs)):
        x = torch.randn(shape, dtype=torch.double, requires_grad=True)
        actual, expected = layer(x), naive(layer, x)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        trained = [x, *(p for p in layer.parameters() if p.requires_grad)]
        gradients = [torch.autograd.grad(y.tanh().sum(), trained) for y in (actual, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    layer.enabled = False
    assert torch.equal(layer(x), layer.base_layer(x))


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
