"""Tests of packs: each member computes, trains and drops out as it does alone."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import LoRA
from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.full import HeadOnly
from lora_lab.methods.packed import Packed, share, stack_members
from tests.conftest import BERT, tiny
from tests.methods.conftest import TARGETS, with_adapter


def outputs(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def make_ids(members: int) -> torch.Tensor:
    return torch.randint(1, 96, (3 * members, 8), generator=torch.Generator().manual_seed(7))


@st.composite
def packs(draw: st.DrawFn) -> tuple[str, list[LoRA]]:
    """Draw a kind of model, and LoRAs of mixed ranks, scalings and targets."""
    kind = draw(st.sampled_from(sorted(TARGETS)))
    ranks, alphas, targets = st.integers(1, 9), st.sampled_from([1, 8, 20]), st.sampled_from(TARGETS[kind])
    method = st.builds(LoRA, ranks, alphas, targets, rslora=st.booleans())
    return kind, draw(st.lists(method, min_size=1, max_size=5))


@settings(max_examples=15)
@given(packs())
def test_packed_equals_alone(case):
    kind, methods = case
    base, size, ids = tiny(kind).double(), len(methods), make_ids(len(methods))  # in fp32, gradients would be rounded
    members = [with_adapter(share(base), method, 10 + k).double() for k, method in enumerate(methods)]
    parameters = [[p for p in model.parameters() if p.requires_grad] for model in members]
    expected = [outputs(model, rows) for model, rows in zip(members, ids.chunk(size), strict=True)]
    losses = [output.square().mean(0).sum() for output in expected]
    expected_grads = [torch.autograd.grad(loss, ps) for loss, ps in zip(losses, parameters, strict=True)]
    packed, numbers, gradients = stack_members(base, members)
    actual = outputs(packed, ids).chunk(size)
    sum(output.square().mean(0).sum() for output in actual).backward()
    torch.testing.assert_close(list(actual), expected, rtol=1e-5, atol=1e-5)
    for k, ps in enumerate(parameters):
        torch.testing.assert_close([p.grad for p in ps], list(expected_grads[k]), rtol=1e-5, atol=1e-5)
        # A row of the table is zero outside its member's parameters, and so are the gradients.
        assert numbers[k].count_nonzero() == sum(p.count_nonzero() for p in ps)
        assert gradients[k].count_nonzero() == sum(p.grad.count_nonzero() for p in ps)


def test_deberta_packs_only_its_head():
    """DeBERTa's layers also read a table of 2 x 128 positions, which could be taken for rows of two members."""
    deberta = {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
    config = transformers.DebertaV2Config(**deberta, max_relative_positions=128, norm_rel_ebd="layer_norm")
    base, ids = transformers.DebertaV2ForSequenceClassification(config).eval(), make_ids(2)
    for method in (LoRA(2, targets=("query_proj", "value_proj")), BitFit()):
        with pytest.raises(BadValue, match=r"relative positions, which all runs share: .* with --solo"):
            stack_members(base, [with_adapter(share(base), method)] * 2)
    members = [with_adapter(share(base), HeadOnly(), seed) for seed in range(2)]
    expected = torch.cat([outputs(model, rows) for model, rows in zip(members, ids.chunk(2), strict=True)])
    torch.testing.assert_close(outputs(stack_members(base, members)[0], ids), expected)


@torch.no_grad()
def test_hook_can_keep_the_output_of_a_frozen_layer():
    base, kept = tiny("roberta"), []
    packed, _, _ = stack_members(base, [with_adapter(share(base), LoRA(2), seed) for seed in range(2)])
    for layer in (m.base_layer for m in packed.modules() if isinstance(m, Packed) and not m.head):
        layer.register_forward_hook(lambda layer, args, output: kept.append((output, output.clone())))
    outputs(packed, make_ids(2))
    assert kept
    assert all(torch.equal(output, before) for output, before in kept)


@torch.no_grad()
def test_each_member_has_its_own_dropout_rate():
    base, rates = tiny("roberta"), (0.0, 0.3, 0.9)
    members = [with_adapter(share(base), LoRA(4, targets="q", dropout=rate), 1) for rate in rates]
    path = "roberta.encoder.layer.0.attention.self.query"
    packed = stack_members(base, members)[0].get_submodule(path).train()
    torch.manual_seed(0)
    x = torch.randn(1, 400, 32).repeat(3, 1, 1)
    frozen = base.get_submodule(path)(x)
    update, expected = packed(x) - frozen, members[0].get_submodule(path).eval()(x) - frozen
    torch.testing.assert_close(update[0], expected[0], rtol=1e-4, atol=1e-5)
    noise = (update - expected).square().mean((1, 2)) / expected[0].square().mean()
    assert noise[1] == pytest.approx(0.3 / 0.7, rel=0.5)  # the variance of x / (1 - p) where it is kept
    assert noise[2] == pytest.approx(0.9 / 0.1, rel=0.5)
    torch.testing.assert_close(packed.eval()(x) - frozen, expected, rtol=1e-4, atol=1e-5)


def test_share_copies_modules_but_not_weights():
    base = tiny("roberta")
    other = share(base)
    assert {p.data_ptr() for p in base.parameters()} == {p.data_ptr() for p in other.parameters()}
    LoRA(2).attach(other)
    assert not any(isinstance(m, AdapterLayer) for m in base.modules())
