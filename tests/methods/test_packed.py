"""Lanes side by side: each answers, and has the gradients, that it has alone; what fills a rank up stays zero."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import LoRA, disabled
from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.full import HeadOnly
from lora_lab.methods.packed import PackedLoRA, Stream, pack, share
from tests.conftest import BERT, randomise, tiny

TARGETS = {
    "roberta": ["q,v", "all-linear", "k", "o,up", "*.0.*.query"],
    "gpt2": ["q,v", "c_attn", "k", "all-linear"],
    "phi3": ["q,v", "gate,down", "all-linear"],
    "llama": ["q,v", "o", "lm_head,q"],
}


def lane(base: nn.Module, method, seed: int) -> nn.Module:
    """A share of the base with the method attached and random numbers in what trains."""
    model = share(base)
    method.attach(model)
    randomise(model, seed)
    return model


def ids(lanes: int, rows: int = 3, tokens: int = 8) -> torch.Tensor:
    return torch.randint(1, 96, (lanes * rows, tokens), generator=torch.Generator().manual_seed(7))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def alone_and_together(base: nn.Module, methods: list, rows: int = 3):
    """Answers and gradients of each lane on its own rows, alone and then in a pack."""
    given_ids = ids(len(methods), rows)
    lanes = [lane(base, method, 10 + k) for k, method in enumerate(methods)]
    answers, grads = [], []
    for model, part in zip(lanes, given_ids.chunk(len(methods)), strict=True):
        out = model(input_ids=part, attention_mask=torch.ones_like(part)).logits
        out.square().mean(0).sum().backward()
        answers.append(out.detach())
        grads.append(gradients(model))
        model.zero_grad()
    packed, table = pack(base, lanes, [Stream(k) for k in range(len(lanes))])
    assert table.numbers.shape[0] == len(lanes)
    out = packed(input_ids=given_ids, attention_mask=torch.ones_like(given_ids)).logits
    parts = out.chunk(len(methods))
    sum(part.square().mean(0).sum() for part in parts).backward()
    return lanes, packed, answers, grads, [part.detach() for part in parts]


@st.composite
def mixes(draw: st.DrawFn):
    """A kind of model and a few methods of mixed ranks, scalings and targets."""
    kind = draw(st.sampled_from(sorted(TARGETS)))
    methods = [
        LoRA(draw(st.integers(1, 9)), draw(st.sampled_from([1, 8, 20])), draw(st.sampled_from(TARGETS[kind])))
        for _ in range(draw(st.integers(1, 5)))
    ]
    return kind, methods


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(mixes())
def test_each_lane_answers_and_learns_as_it_does_alone(mix):
    kind, methods = mix
    lanes, packed, answers, grads, together = alone_and_together(tiny(kind), methods)
    for model, answer, gradient, part in zip(lanes, answers, grads, together, strict=True):
        assert torch.allclose(part, answer, rtol=1e-4, atol=1e-5)
        for own, other in zip(gradient, gradients(model), strict=True):
            assert torch.allclose(other, own, rtol=1e-3, atol=1e-5)
    for layer in (m for m in packed.modules() if isinstance(m, PackedLoRA)):
        for k, rank in enumerate(_ranks(lanes, layer)):
            assert not layer.A[k, rank:].any()
            assert not layer.B[k, rank:].any()
            assert not layer.A.grad[k, rank:].any()  # exactly zero
            assert not layer.B.grad[k, rank:].any()


def _ranks(lanes, layer: PackedLoRA) -> list[int]:
    """The rank of each lane at this place, found by where in memory its A lies; 0 where it has none."""
    ranks = []
    for k, model in enumerate(lanes):
        start = layer.A[k].data_ptr()
        ranks.append(
            next((m.rank for m in model.modules() if hasattr(m, "lora_A") and m.lora_A.data_ptr() == start), 0)
        )
    return ranks


DEBERTA = {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}


def test_debertas_layers_read_positions_too_so_that_only_its_heads_pack():
    """A table of 2 x 128 positions, which could be taken for rows of two lanes."""
    config = transformers.DebertaV2Config(**DEBERTA, max_relative_positions=128, norm_rel_ebd="layer_norm")
    base = transformers.DebertaV2ForSequenceClassification(config).eval()
    for method in (LoRA(2, targets=("query_proj", "value_proj")), BitFit()):
        with pytest.raises(BadValue, match=r"relative positions, which is no run's own: .* with --solo"):
            alone_and_together(base, [method] * 2)
    _, _, answers, _, together = alone_and_together(base, [HeadOnly()] * 2)
    torch.testing.assert_close(together, answers)


def test_a_lanes_parameters_are_views_so_that_an_update_of_one_is_an_update_of_the_pack():
    base = tiny("roberta")
    lanes = [lane(base, LoRA(2), 1), lane(base, LoRA(3), 2)]
    packed, _ = pack(base, lanes, [Stream(0), Stream(1)])
    before = packed(input_ids=ids(2)).logits
    with torch.no_grad():
        for parameter in lanes[1].parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    after = packed(input_ids=ids(2)).logits
    assert torch.equal(before[:3], after[:3])
    assert not torch.allclose(before[3:], after[3:], atol=1e-3)


def test_switched_off_each_lane_has_the_head_of_its_own_seed():
    base, bases = tiny("roberta"), []
    for seed in (1, 2):
        bases.append(share(base))
        torch.manual_seed(seed)
        bases[-1].classifier = type(base.classifier)(base.config).eval()
    lanes = [lane(one, LoRA(2), seed) for seed, one in enumerate(bases)]
    packed, _ = pack(base, lanes, [Stream(0), Stream(1)])
    parts = ids(2).chunk(2)
    with disabled(packed):
        plain = [one(input_ids=part).logits for one, part in zip(bases, parts, strict=True)]
        torch.testing.assert_close(packed(input_ids=ids(2)).logits, torch.cat(plain))
    with disabled(packed, keep_head=True):
        apart = []
        for model, part in zip(lanes, parts, strict=True):
            with disabled(model, keep_head=True):
                apart.append(model(input_ids=part).logits)
        torch.testing.assert_close(packed(input_ids=ids(2)).logits, torch.cat(apart))


@torch.no_grad()
def test_a_hook_that_keeps_a_frozen_layers_output_keeps_the_frozen_layers():
    base = tiny("roberta")
    packed, _ = pack(base, [lane(base, LoRA(2), k) for k in range(2)], [Stream(0), Stream(1)])
    heard = []
    for layer in (m for m in packed.modules() if isinstance(m, nn.Linear)):
        layer.register_forward_hook(lambda layer, args, out: heard.append((out, out.clone())))
    packed(input_ids=ids(2))
    assert heard
    assert all(torch.equal(out, then) for out, then in heard)


def test_a_share_takes_no_memory_and_is_adapted_alone():
    base = tiny("roberta")
    other = share(base)
    assert {p.data_ptr() for p in base.parameters()} == {p.data_ptr() for p in other.parameters()}
    LoRA(2).attach(other)
    assert not any(isinstance(m, AdapterLayer) for m in base.modules())


def test_dropout_draws_for_each_lane_what_it_would_draw_alone():
    """On rows of its own width, though the batch is wider."""
    base, method = tiny("roberta"), LoRA(4, targets="q", dropout=0.3)
    lanes, streams = [lane(base, method, k) for k in range(2)], [Stream(5), Stream(6)]
    layer = "roberta.encoder.layer.0.attention.self.query"
    x = torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(1))
    alone = []
    for seed, model, part, width in ((5, lanes[0], x[:2], 8), (6, lanes[1], x[2:], 5)):
        torch.manual_seed(seed)
        alone.append(model.get_submodule(layer).train()(part[:, :width]).detach())
    packed = pack(base, lanes, streams)[0].get_submodule(layer).train()
    streams[1].width = 5
    torch.manual_seed(99)
    before = torch.get_rng_state()
    together = packed(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(together[:2], alone[0], atol=1e-6)
    assert torch.allclose(together[2:, :5], alone[1], atol=1e-6)
