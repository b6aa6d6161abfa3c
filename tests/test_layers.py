"""LoRA itself: each promise of lora_lab/layers.py on single layers, small enough to compute by hand."""

from __future__ import annotations

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
from lora_lab.methods.attach import TrainedCopy
from lora_lab.methods.lora_layers import LoRAEmbedding

IN, OUT, RANK, SCALING = 12, 18, 3, 2.0
KINDS = ("linear", "linear without bias", "conv1d")
ROWS = (None, (6, 12))


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


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_right_after_wrapping_the_output_is_exactly_the_frozen_layers(kind, rows):
    x, frozen = torch.randn(2, 5, IN), base(kind)
    assert torch.equal(LoRALinear(frozen, RANK, SCALING, out_slice=rows)(x), frozen(x))


@pytest.mark.parametrize("shape", [(IN,), (4, IN), (2, 5, IN), (2, 3, 4, IN), (0, IN)])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_output_is_the_formula(kind, rows, shape):
    layer, x = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=rows)), torch.randn(shape)
    torch.testing.assert_close(layer(x), by_hand(layer, x))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_are_autograds_of_the_formula(kind, rows):
    layer = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=rows)).double()
    x, weights = torch.randn(2, 5, IN, dtype=torch.double, requires_grad=True), torch.randn(2, 5, OUT).double()
    wanted = [x, layer.lora_A, layer.lora_B]
    ours = torch.autograd.grad((layer(x).tanh() * weights).sum(), wanted)
    plain = torch.autograd.grad((by_hand(layer, x).tanh() * weights).sum(), wanted)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_two_slices_of_one_layer_are_one_wrapper_around_the_other(kind):
    q = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=(0, 6)))
    both = trained(LoRALinear(q, 2, 0.5, out_slice=(12, 18)))
    frozen, x = innermost(both), torch.randn(4, IN, requires_grad=True)
    y_q, y_v = (SCALING * x @ q.lora_A.T @ q.lora_B.T, 0.5 * x @ both.lora_A.T @ both.lora_B.T)
    expected = F.linear(x, out_by_in(frozen), frozen.bias) + torch.cat([y_q, torch.zeros(4, 6), y_v], dim=1)
    torch.testing.assert_close(both(x), expected)
    assert torch.equal(both(x)[:, 6:12], frozen(x)[:, 6:12])  # the k part is untouched, to the bit
    wanted = [x, q.lora_A, q.lora_B, both.lora_A, both.lora_B]
    ours, plain = (torch.autograd.grad(y.square().sum(), wanted) for y in (both(x), expected))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_a_frozen_layer_gets_no_gradient():
    layer = trained(LoRALinear(base(), RANK, SCALING))
    layer(torch.randn(4, IN)).sum().backward()
    assert all(parameter.grad is None for parameter in layer.base_layer.parameters())
    assert layer.lora_A.grad is not None


def test_at_the_start_only_b_gets_a_gradient():
    layer = LoRALinear(base(), RANK, SCALING)
    layer(torch.randn(4, IN)).square().sum().backward()
    assert layer.lora_A.grad.abs().max() == 0  # B is zero, and A's gradient passes through it
    assert layer.lora_B.grad.abs().min() > 0


def test_dropout_acts_only_while_training_and_only_on_the_adapter():
    layer, x = trained(LoRALinear(base(), RANK, SCALING, dropout=0.5)), torch.randn(64, IN)
    torch.testing.assert_close(layer.eval()(x), by_hand(layer, x))
    torch.manual_seed(3)
    update = layer.train()(x) - layer.base_layer(x)
    torch.manual_seed(3)
    kept = F.dropout(x, 0.5)
    torch.testing.assert_close(update, SCALING * kept @ layer.lora_A.T @ layer.lora_B.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(update, layer.eval()(x) - layer.base_layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_bf16_base_the_adapter_and_its_gradient_stay_fp32(kind):
    layer = trained(LoRALinear(base(kind).bfloat16(), RANK, SCALING))
    x = torch.randn(4, IN, dtype=torch.bfloat16)
    y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    for parameter in (layer.lora_A, layer.lora_B):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    exact = by_hand(layer.float(), x.float())
    assert (y.float() - exact).norm() < 0.01 * exact.norm()  # bf16 keeps 8 bits: 0.4 % a rounding


def test_a_step_too_small_for_bf16_is_not_lost():
    layer = trained(LoRALinear(base().bfloat16(), RANK, SCALING))
    before = layer.lora_A.detach().clone()
    with torch.no_grad():
        layer.lora_A.add_(1e-3 * layer.lora_A)
    assert (layer.lora_A != before).all()
    assert (before.bfloat16() * 1.001 == before.bfloat16()).all()  # what bf16 would have made of it


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_on_the_frozen_layer_sees_its_own_output(kind, rows):
    layer, x, seen = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=rows)), torch.randn(5, IN), []
    own = layer.base_layer(x)
    layer.base_layer.register_forward_hook(lambda module, given, y: seen.append(y))
    y = layer(x)
    assert torch.equal(seen[0], own)
    torch.testing.assert_close(y, by_hand(layer, x))


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_an_adapted_layer_for_its_weight_gets_the_frozen_one_which_counts_once(kind):
    frozen = base(kind)
    outer = LoRALinear(LoRALinear(frozen, RANK, SCALING, out_slice=(0, 6)), RANK, SCALING, out_slice=(12, 18))
    assert outer.weight is frozen.weight
    assert outer.bias is frozen.bias
    assert sum(p is frozen.weight for p in outer.parameters()) == 1
    own = {name for name in outer.state_dict() if "lora" not in name}
    assert own == {f"base_layer.base_layer.{name}" for name in frozen.state_dict()}


# ---- embeddings


def embedding(padding: int | None = None) -> LoRAEmbedding:
    torch.manual_seed(0)
    return LoRAEmbedding(nn.Embedding(20, 8, padding_idx=padding).requires_grad_(False), RANK, SCALING)


def test_an_embedding_starts_as_it_was_with_a_zero_and_b_random():
    layer, tokens = embedding(), torch.randint(20, (2, 5))
    assert torch.equal(layer(tokens), layer.base_layer(tokens))
    assert layer.lora_embedding_A.abs().max() == 0
    assert layer.lora_embedding_B.std() > 0.5


@pytest.mark.parametrize("padding", [None, 0])
def test_an_embedding_looks_up_a_column_of_a(padding):
    layer, tokens = trained(embedding(padding)), torch.randint(1, 20, (2, 5))
    columns = layer.lora_embedding_A[:, tokens.flatten()]  # (rank, tokens)
    expected = layer.base_layer(tokens) + SCALING * (layer.lora_embedding_B @ columns).T.view(2, 5, 8)
    torch.testing.assert_close(layer(tokens), expected)
    wanted = [layer.lora_embedding_A, layer.lora_embedding_B]
    ours, plain = (torch.autograd.grad(y.square().sum(), wanted) for y in (layer(tokens), expected))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_padding_trains_nothing():
    layer = trained(embedding(padding=0))
    layer(torch.tensor([0, 0, 3])).sum().backward()
    assert layer.lora_embedding_A.grad[:, 0].abs().max() == 0
    assert layer.lora_embedding_A.grad[:, 3].abs().max() > 0


# ---- merging


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_weights_compute_the_same(kind, rows):
    layer, x = trained(LoRALinear(base(kind), RANK, SCALING, out_slice=rows)), torch.randn(7, IN)
    torch.testing.assert_close(F.linear(x, *layer.merged_weights(out_by_in(layer), layer.bias)), layer(x))


def test_an_embedding_merges_too():
    layer, tokens = trained(embedding()), torch.randint(20, (9,))
    torch.testing.assert_close(F.embedding(tokens, layer.merged_weights(layer.weight, None)[0]), layer(tokens))


def test_switched_off_a_layer_gives_the_frozen_output():
    layer, x = trained(LoRALinear(base(), RANK, SCALING)), torch.randn(3, IN)
    layer.enabled = False
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_trained_copy_answers_in_fp32_and_can_be_switched_off():
    head = nn.Linear(IN, 2).bfloat16()
    copy = TrainedCopy(head, nn.Linear(IN, 2))
    x = torch.randn(3, IN, dtype=torch.bfloat16)
    assert torch.equal(copy(x), copy.trained(x.float()))
    copy.enabled = False
    assert torch.equal(copy(x), head(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_trained_copy_in_fewer_bits_still_answers_in_fp32(dtype):
    copy = TrainedCopy(nn.Linear(IN, 2), nn.Linear(IN, 2)).to(dtype)
    x = torch.randn(3, IN).to(dtype)
    assert torch.equal(copy(x), copy.trained(x).float())


# ---- the start


def test_kaiming_is_bounded_by_one_over_the_root_of_the_width():
    a = torch.empty(8, 384)
    init_A(a, "kaiming")
    bound = 1 / math.sqrt(384)
    assert 0.99 * bound < a.abs().max() <= bound
    assert a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_kaiming_is_what_loralib_asks_torch_for():
    ours, theirs = torch.empty(8, 384), torch.empty(8, 384)
    torch.manual_seed(0)
    init_A(ours, "kaiming")
    torch.manual_seed(0)
    nn.init.kaiming_uniform_(theirs, a=math.sqrt(5))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rank", [2, 8])
def test_gaussian_has_a_standard_deviation_of_one_over_the_rank(rank):
    a = torch.empty(rank, 4096)
    init_A(a, "gaussian")
    assert a.std().item() == pytest.approx(1 / rank, rel=0.05)
    assert abs(a.mean().item()) < 0.05 / rank


def test_the_wrong_fan_in_makes_a_too_large_by_the_root_of_d_over_r():
    right, wrong = torch.empty(8, 384), torch.empty(384, 8)
    init_A(right, "kaiming")
    init_A(wrong, "kaiming")  # A written (in, rank), as some texts do: its second size is then the rank
    assert (wrong.std() / right.std()).item() == pytest.approx(math.sqrt(384 / 8), rel=0.05)  # 6.9


# ---- properties over sizes and ranks

sizes = st.integers(1, 24)


@st.composite
def layers(draw) -> LoRALinear:
    """A trained layer of any small shape, rank and slice."""
    inputs, outputs = draw(sizes), draw(sizes)
    stop = draw(st.integers(1, outputs))
    rows = draw(st.sampled_from([None, (draw(st.integers(0, stop - 1)), stop)]))
    width = rows[1] - rows[0] if rows else outputs
    frozen = base(draw(st.sampled_from(KINDS)), inputs, outputs)
    return trained(
        LoRALinear(frozen, draw(st.integers(1, min(inputs, width))), draw(st.floats(0.1, 4)), out_slice=rows)
    )


class NaiveLoRA(nn.Module):
    """LoRA as one would write it first: no slices, nothing in place, one dtype."""

    def __init__(self, base_layer: nn.Linear, rank: int, scaling: float) -> None:
        super().__init__()
        self.base_layer, self.scaling = base_layer, scaling
        self.lora_A = nn.Parameter(torch.randn(rank, base_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, st.integers(1, 24), st.booleans(), st.integers(0, 99))
def test_it_trains_as_the_naive_layer_does(inputs, outputs, rank, bias, seed):
    torch.manual_seed(seed)
    naive = NaiveLoRA(nn.Linear(inputs, outputs, bias=bias).requires_grad_(False), min(rank, inputs, outputs), 1.5)
    layer = LoRALinear(naive.base_layer, len(naive.lora_A), 1.5)
    layer.load_state_dict(naive.state_dict())
    x = torch.randn(3, 2, inputs)
    for step in range(3):
        for one in (layer, naive):
            one.zero_grad()
            one(x).square().mean().backward()
            with torch.no_grad():
                for p in (one.lora_A, one.lora_B):
                    p -= 0.1 * p.grad
        torch.testing.assert_close(layer(x), naive(x), rtol=1e-4, atol=1e-5, msg=f"after step {step}")


@settings(deadline=None, max_examples=60)
@given(layers())
def test_the_updates_rank_is_at_most_r(layer):
    assert torch.linalg.matrix_rank(layer.delta_weight()) <= layer.rank


@settings(deadline=None, max_examples=60)
@given(layers())
def test_merged_weights_are_w_plus_delta_in_the_slice_and_w_elsewhere(layer):
    weight = out_by_in(layer).clone()
    merged, bias = layer.merged_weights(weight, layer.bias)
    start, stop = layer.out_slice or (0, layer.out_features)
    torch.testing.assert_close(merged[start:stop], weight[start:stop] + layer.delta_weight())
    assert torch.equal(merged[:start], weight[:start])
    assert torch.equal(merged[stop:], weight[stop:])
    assert bias is layer.bias


@settings(deadline=None, max_examples=60)
@given(layers())
def test_what_trains_is_r_times_in_plus_out(layer):
    start, stop = layer.out_slice or (0, layer.out_features)
    count = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    assert count == layer.rank * (layer.in_features + stop - start)
