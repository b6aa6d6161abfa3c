"""LoRA itself: each promise of lora_lab/layers.py on single layers, small enough to compute by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_lab.adapter_layer import innermost, out_by_in
from lora_lab.layers import LoRALinear, init_A
from lora_lab.methods.lora_layers import LoRAEmbedding

IN, OUT, RANK, SCALING = 12, 18, 3, 2.0
KINDS = ("linear", "linear without bias", "conv1d")


def base(kind: str = "linear", inputs: int = IN, outputs: int = OUT) -> nn.Module:
    """A frozen layer with random weights."""
    torch.manual_seed(0)
    layer = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=kind == "linear")
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.requires_grad_(False)


def trained(layer: LoRALinear | LoRAEmbedding) -> LoRALinear | LoRAEmbedding:
    """The layer as training might leave it: both matrices random, so that the update is not zero."""
    torch.manual_seed(1)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return layer


def by_hand(layer: LoRALinear, x: torch.Tensor) -> torch.Tensor:
    """x W^T + b + scaling x A^T B^T, the update in the layer's rows only."""
    frozen = innermost(layer)
    start, stop = layer.out_slice or (0, layer.out_features)
    update = layer.scaling * (x @ layer.lora_A.T @ layer.lora_B.T)
    return F.linear(x, out_by_in(frozen), frozen.bias) + F.pad(update, (start, layer.out_features - stop))


@settings(max_examples=60)
@given(st.sampled_from(KINDS), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.booleans())
def test_output_and_gradients_are_the_formula(kind, inputs, outputs, rank, sliced):
    rows = (outputs // 3, outputs // 3 + outputs // 2) if sliced and outputs > 1 else None
    layer = trained(LoRALinear(base(kind, inputs, outputs), rank, SCALING, out_slice=rows)).double()
    for shape in ((inputs,), (2, 3, 4, inputs), (0, inputs)):
        x = torch.randn(shape, dtype=torch.double, requires_grad=True)
        torch.testing.assert_close(layer(x), by_hand(layer, x))
        wanted = [x, layer.lora_A, layer.lora_B]
        ours, plain = (torch.autograd.grad(y.tanh().sum(), wanted) for y in (layer(x), by_hand(layer, x)))
        torch.testing.assert_close(ours, plain)
    layer.enabled = False
    assert torch.equal(layer(x), layer.base_layer(x))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_two_slices_of_one_layer_are_one_adapter_around_the_other(kind):
    q = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=(0, 6)))
    both = trained(LoRALinear(q, 2, 0.5, out_slice=(12, 18)))
    frozen, x = innermost(both), torch.randn(4, IN, requires_grad=True)
    y_q, y_v = (SCALING * x @ q.lora_A.T @ q.lora_B.T, 0.5 * x @ both.lora_A.T @ both.lora_B.T)
    expected = F.linear(x, out_by_in(frozen), frozen.bias) + torch.cat([y_q, torch.zeros(4, 6), y_v], dim=1)
    torch.testing.assert_close(both(x), expected)
    assert torch.equal(both(x)[:, 6:12], frozen(x)[:, 6:12])  # the k part is untouched, to the bit
    wanted = [x, q.lora_A, q.lora_B, both.lora_A, both.lora_B]
    ours, plain = (torch.autograd.grad(y.square().sum(), wanted) for y in (both(x), expected))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)
    assert (both.weight is frozen.weight, both.bias is frozen.bias) == (True, True)  # T5 asks for its dtype
    assert sum(p is frozen.weight for p in both.parameters()) == 1


def test_dropout_acts_only_while_training_and_only_on_the_adapter():
    layer, x = trained(LoRALinear(base(), RANK, SCALING, dropout=0.5)), torch.randn(64, IN)
    torch.testing.assert_close(layer.eval()(x), by_hand(layer, x))
    torch.manual_seed(3)
    update = layer.train()(x) - layer.base_layer(x)
    torch.manual_seed(3)
    kept = F.dropout(x, 0.5)
    torch.testing.assert_close(update, SCALING * kept @ layer.lora_A.T @ layer.lora_B.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(update, layer.eval()(x) - layer.base_layer(x))


def test_on_a_bf16_base_the_adapter_and_its_gradient_stay_fp32():
    layer = trained(LoRALinear(base().bfloat16(), RANK, SCALING))
    x = torch.randn(4, IN, dtype=torch.bfloat16)
    y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    for parameter in (layer.lora_A, layer.lora_B):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    exact = by_hand(layer.float(), x.float())
    assert (y.float() - exact).norm() < 0.01 * exact.norm()  # bf16 keeps 8 bits: 0.4% a rounding


@pytest.mark.parametrize("rows", [None, (6, 12)])
def test_a_hook_on_the_frozen_layer_sees_its_own_output(rows):
    layer, x, seen = trained(LoRALinear(base(), RANK, SCALING, out_slice=rows)), torch.randn(5, IN), []
    own = layer.base_layer(x)
    layer.base_layer.register_forward_hook(lambda module, given, y: seen.append(y))
    y = layer(x)
    assert torch.equal(seen[0], own)
    torch.testing.assert_close(y, by_hand(layer, x))


@pytest.mark.parametrize("padding", [None, 0])
def test_an_embedding_starts_as_it_was_looks_up_a_column_of_a_and_merges(padding):
    torch.manual_seed(0)
    layer = LoRAEmbedding(nn.Embedding(20, 8, padding_idx=padding).requires_grad_(False), RANK, SCALING)
    tokens = torch.randint(1, 20, (2, 5))
    assert torch.equal(layer(tokens), layer.base_layer(tokens))
    trained(layer)
    columns = layer.lora_embedding_A[:, tokens.flatten()]  # (rank, tokens)
    expected = layer.base_layer(tokens) + SCALING * (layer.lora_embedding_B @ columns).T.view(2, 5, 8)
    torch.testing.assert_close(layer(tokens), expected)
    wanted = [layer.lora_embedding_A, layer.lora_embedding_B]
    ours, plain = (torch.autograd.grad(y.square().sum(), wanted) for y in (layer(tokens), expected))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(F.embedding(tokens, layer.merged_weights(layer.weight, None)[0]), layer(tokens))
    layer(torch.tensor([0, 0, 3])).sum().backward()
    assert bool(layer.lora_embedding_A.grad[:, 0].any()) == (padding is None)  # padding trains nothing
    assert layer.lora_embedding_A.grad[:, 3].any()


def test_kaiming_is_what_loralib_asks_torch_for():
    ours, theirs = torch.empty(8, 384), torch.empty(8, 384)
    torch.manual_seed(0)
    init_A(ours, "kaiming")
    torch.manual_seed(0)
    nn.init.kaiming_uniform_(theirs, a=math.sqrt(5))
    torch.testing.assert_close(ours, theirs)
    assert 0.99 / math.sqrt(384) < ours.abs().max() <= 1 / math.sqrt(384)


def test_gaussian_has_a_standard_deviation_of_one_over_the_rank():
    a = torch.empty(8, 4096)
    init_A(a, "gaussian")
    assert a.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert abs(a.mean().item()) < 0.05 / 8


class NaiveLoRA(nn.Module):
    """LoRA as one would write it first: no slices, nothing in place, one dtype."""

    def __init__(self, base_layer: nn.Linear, rank: int, scaling: float) -> None:
        super().__init__()
        self.base_layer, self.scaling = base_layer, scaling
        self.lora_A = nn.Parameter(torch.randn(rank, base_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T


@settings(max_examples=30)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.booleans(), st.integers(0, 99))
def test_it_trains_as_the_naive_layer_does(inputs, outputs, rank, bias, seed):
    torch.manual_seed(seed)
    naive = NaiveLoRA(nn.Linear(inputs, outputs, bias=bias).requires_grad_(False), min(rank, inputs, outputs), 1.5)
    layer = LoRALinear(naive.double().base_layer, len(naive.lora_A), 1.5).double()  # fp32 would show its rounding
    layer.load_state_dict(naive.state_dict())
    x = torch.randn(3, 2, inputs).double()
    for step in range(3):
        for one in (layer, naive):
            one.zero_grad()
            one(x).square().mean().backward()
            with torch.no_grad():
                for p in (one.lora_A, one.lora_B):
                    p -= 0.1 * p.grad
        torch.testing.assert_close(layer(x), naive(x), rtol=1e-9, atol=1e-9, msg=f"after step {step}")
