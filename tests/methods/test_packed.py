"""Members of a pack: each answers, learns and drops out on its own rows as it does alone."""

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


def member(base: nn.Module, method, seed: int) -> nn.Module:
    return with_adapter(share(base), method, seed)


def ids(members: int, rows: int = 3, tokens: int = 8) -> torch.Tensor:
    return torch.randint(1, 96, (members * rows, tokens), generator=torch.Generator().manual_seed(7))


def alone_and_together(base: nn.Module, methods: list):
    """Answers and gradients of each member on its own rows, alone and then in a pack; and the pack's gradients."""
    given_ids = ids(len(methods))
    members = [member(base, method, 10 + k) for k, method in enumerate(methods)]
    answers, grads = [], []
    for model, part in zip(members, given_ids.chunk(len(methods)), strict=True):
        out = model(input_ids=part, attention_mask=torch.ones_like(part)).logits
        out.square().mean(0).sum().backward()
        answers.append(out.detach())
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
        model.zero_grad()
    packed, numbers, gradients = stack_members(base, members)
    parts = packed(input_ids=given_ids, attention_mask=torch.ones_like(given_ids)).logits.chunk(len(methods))
    sum(part.square().mean(0).sum() for part in parts).backward()
    return members, answers, grads, parts, numbers, gradients


@st.composite
def mixes(draw: st.DrawFn):
    """A kind of model and a few methods of mixed ranks, scalings and targets."""
    kind = draw(st.sampled_from(sorted(TARGETS)))
    one = st.builds(
        LoRA, st.integers(1, 9), st.sampled_from([1, 8, 20]), st.sampled_from(TARGETS[kind]), rslora=st.booleans()
    )
    return kind, draw(st.lists(one, min_size=1, max_size=5))


@settings(max_examples=15)
@given(mixes())
def test_each_member_answers_and_learns_as_it_does_alone(mix):
    kind, methods = mix
    members, answers, grads, together, numbers, gradients = alone_and_together(tiny(kind), methods)
    for model, answer, gradient, part, row, row_gradient in zip(
        members, answers, grads, together, numbers, gradients, strict=True
    ):
        torch.testing.assert_close(part, answer, rtol=1e-4, atol=1e-5)
        trained = [p for p in model.parameters() if p.requires_grad]
        for p, other in zip(trained, gradient, strict=True):
            torch.testing.assert_close(p.grad, other, rtol=1e-3, atol=1e-5)
        # Beside the views of its own parameters a row holds zeros, and so do its gradients.
        for values, own in ((row, [p.data for p in trained]), (row_gradient, [p.grad for p in trained])):
            assert values.count_nonzero() == sum(part.count_nonzero() for part in own)


def test_deberta_reads_a_table_of_positions_so_only_its_heads_pack():
    """A table of 2 x 128 positions, which could be taken for rows of two members."""
    deberta = {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
    config = transformers.DebertaV2Config(**deberta, max_relative_positions=128, norm_rel_ebd="layer_norm")
    base = transformers.DebertaV2ForSequenceClassification(config).eval()
    for method in (LoRA(2, targets=("query_proj", "value_proj")), BitFit()):
        with pytest.raises(BadValue, match=r"relative positions, which all runs share: .* with --solo"):
            alone_and_together(base, [method] * 2)
    _, answers, _, together, *_ = alone_and_together(base, [HeadOnly()] * 2)
    torch.testing.assert_close(together, tuple(answers))


@torch.no_grad()
def test_the_frozen_layers_output_is_left_to_a_hook_that_keeps_it():
    base = tiny("roberta")
    packed, _, _ = stack_members(base, [member(base, LoRA(2), k) for k in range(2)])
    heard = []
    for layer in (m.base_layer for m in packed.modules() if isinstance(m, Packed) and not m.head):
        layer.register_forward_hook(lambda layer, args, out: heard.append((out, out.clone())))
    packed(input_ids=ids(2))
    assert heard
    assert all(torch.equal(out, then) for out, then in heard)


@torch.no_grad()
def test_each_member_drops_at_its_own_rate():
    """Not at the first one's."""
    base, rates = tiny("roberta"), (0.0, 0.3, 0.9)
    members = [member(base, LoRA(4, targets="q", dropout=rate), 1) for rate in rates]
    layer = "roberta.encoder.layer.0.attention.self.query"
    packed = stack_members(base, members)[0].get_submodule(layer).train()
    torch.manual_seed(0)
    x = torch.randn(1, 400, 32, generator=torch.Generator().manual_seed(1)).repeat(3, 1, 1)
    frozen = base.get_submodule(layer)(x)
    update = packed(x) - frozen
    whole = members[0].get_submodule(layer).eval()(x[:1]) - frozen[:1]
    torch.testing.assert_close(update[:1], whole, rtol=1e-4, atol=1e-5)
    noise = (update - whole).square().mean((1, 2)) / whole.square().mean()
    assert noise[1] == pytest.approx(0.3 / 0.7, rel=0.5)  # the variance of x / (1 - p) where it is kept
    assert noise[2] == pytest.approx(0.9 / 0.1, rel=0.5)
    packed.eval()
    torch.testing.assert_close(packed(x) - frozen, whole.repeat(3, 1, 1), rtol=1e-4, atol=1e-5)


def test_a_share_takes_no_memory_and_is_adapted_alone():
    base = tiny("roberta")
    other = share(base)
    assert {p.data_ptr() for p in base.parameters()} == {p.data_ptr() for p in other.parameters()}
    LoRA(2).attach(other)
    assert not any(isinstance(m, AdapterLayer) for m in base.modules())
