"""Roles, and how targets choose among the sites of a model. No model is needed: a site is a name and a few integers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.targets import Site, choose, match, roles_of, sites_of_layer

GPT2_WIDTHS = {"q": 32, "k": 32, "v": 32}


def bert_like(layers: int = 2) -> list[Site]:
    """The sites of a small encoder with a pooler and a head."""
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts += ("intermediate.dense", "output.dense")
    sites = sites_of_layer("bert.embeddings.word_embeddings", 96, 32, "embedding", {})
    for i in range(layers):
        for part in parts:
            sites += sites_of_layer(f"bert.encoder.layer.{i}.{part}", 32, 32, "linear", {})
    sites += sites_of_layer("bert.pooler.dense", 32, 32, "linear", {})
    return sites + sites_of_layer("classifier", 32, 2, "linear", {})


def gpt2_like() -> list[Site]:
    """The sites of one layer of GPT-2, whose q, k and v are one layer."""
    sites = sites_of_layer("transformer.h.0.attn.c_attn", 32, 96, "linear", GPT2_WIDTHS)
    return sites + sites_of_layer("transformer.h.0.attn.c_proj", 32, 32, "linear", GPT2_WIDTHS)


ROLES = {
    "bert.encoder.layer.0.attention.output.dense": ("o",),
    "bert.encoder.layer.0.output.dense": ("down",),
    "bert.pooler.dense": ("pooler",),
    "distilbert.transformer.layer.0.attention.out_lin": ("o",),
    "model.decoder.layers.0.encoder_attn.out_proj": ("o",),
    "transformer.h.0.attn.c_proj": ("o",),
    "transformer.h.0.mlp.c_proj": ("down",),
    "transformer.h.0.self_attention.query_key_value": ("q", "k", "v"),
    "decoder.block.0.layer.1.EncDecAttention.o": ("o",),
    "decoder.block.0.layer.2.DenseReluDense.wi_0": ("gate",),
    "deberta.encoder.rel_embeddings": ("position",),  # a table that the model never calls as one
    "cls.predictions.decoder": ("head",),
    "something.of.its.own": (),
    "bert.myquery": (),
}


def test_a_role_follows_from_the_end_of_the_path():
    assert {module: roles_of(module) for module in ROLES} == ROLES


def test_a_fused_layer_is_one_site_and_one_for_each_slice():
    whole, q, k, v = sites_of_layer("h.0.attn.c_attn", 32, 64, "linear", {"q": 32, "k": 16, "v": 16})
    assert (whole.out_slice, q.out_slice, k.out_slice, v.out_slice) == (None, (0, 32), (32, 48), (48, 64))
    assert [site.role for site in (whole, q, k, v)] == ["q+k+v", "q", "k", "v"]
    assert (q.name, v.out_features) == ("h.0.attn.c_attn[q]", 16)
    for widths in ({}, {"q": 32, "k": 32, "v": 31}):  # an unknown order gets no slices rather than wrong ones
        assert [site.out_slice for site in sites_of_layer("h.0.attn.c_attn", 32, 96, "linear", widths)] == [None]


@pytest.mark.parametrize(
    ("target", "modules"),
    [
        ("q", ["layer.0.attention.self.query", "layer.1.attention.self.query"]),
        ("query", ["layer.0.attention.self.query", "layer.1.attention.self.query"]),
        ("*.0.attention.self.*", [f"layer.0.attention.self.{name}" for name in ("query", "key", "value")]),
    ],
)
def test_a_target_is_a_role_a_name_or_a_pattern(target, modules):
    assert [site.module for site in match(target, bert_like())] == [f"bert.encoder.{m}" for m in modules]


def test_a_role_means_the_slice_and_a_name_the_whole_fused_layer():
    sites = gpt2_like()
    assert [site.name for site in match("q", sites)] == ["transformer.h.0.attn.c_attn[q]"]
    assert [site.name for site in match("c_attn", sites)] == ["transformer.h.0.attn.c_attn"]
    assert [site.out_slice for site in match("transformer.h.0.attn.c_attn[v]", sites)] == [(64, 96)]
    assert {site.out_slice for site in match("all-linear", sites)} == {None}
    slices = match("q", sites) + match("v", sites)
    assert match("*.0.attn.c_attn", slices, slices=True) == slices
    with pytest.raises(NotFound):
        match("*.0.attn.c_attn", slices)


def test_sites_come_in_the_models_order_each_once():
    sites = bert_like()
    assert choose(["value", "v", "q"], sites) == [site for site in sites if site.role in ("q", "v")]


# ---- LoRA as a value: what it accepts, and where it is placed

SITES = [
    Site("layer.0.query", "q", 32, 32),
    Site("layer.0.value", "v", 32, 16),
    Site("layer.1.query", "q", 32, 32),
    Site("layer.1.value", "v", 32, 16),
]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank must be an integer of at least 1, not 0"),
        ({"rank": True}, "rank must be"),
        ({"targets": None}, "targets are roles, names or patterns, such as .q,v., not None"),
        ({"alpha": 0}, "alpha must be a positive number, not 0"),
        ({"alpha": 1e39}, "above 1e30 it would overflow"),
        ({"alpha_pattern": {"q": -1}}, "alpha must be"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1"),
        ({"rslora": "no"}, "rslora must be True or False"),
        ({"lr_ratio": math.inf}, "lr_ratio must be a positive number"),
        ({"dora": True, "init": "pissa"}, "leave one of them out"),
        ({"init": "xavier"}, "init must be one of kaiming, gaussian, pissa, not 'xavier'"),
        ({"targets": " , "}, "targets is empty"),
        ({"rank": 17}, r"rank 17 is above what layer\.0\.value \(32 x 16\) can hold: at most 16"),
        ({"rank_pattern": {"layer.1.query": 33}}, "rank 33 is above what layer.1.query"),
        ({"targets": ("q",), "rank_pattern": {"v": 4}}, "target 'v' matches no layer"),
    ],
)
def test_an_impossible_value_is_refused_in_one_sentence(options, sentence):
    with pytest.raises((BadValue, NotFound), match=sentence):
        LoRA(**options).place(SITES)


@given(rank=st.integers(1, 16), special=st.integers(1, 16), alpha=st.floats(0.1, 64), rslora=st.booleans())
def test_patterns_change_rank_and_alpha_where_they_fit_the_first_counts_and_the_rest_follows(
    rank, special, alpha, rslora
):
    method = LoRA(rank, alpha, rslora=rslora, rank_pattern={"layer.0.query": special, "q": 4}, alpha_pattern={"v": 24})
    placed = {p.site.module: p for p in method.place(SITES)}
    ranks = {"layer.0.query": special, "layer.1.query": 4, "layer.0.value": rank, "layer.1.value": rank}
    assert {name: p.rank for name, p in placed.items()} == ranks
    for name, p in placed.items():
        root = math.sqrt(p.rank) if rslora else p.rank
        assert p.scaling == (24 if "value" in name else alpha) / root
        assert p.parameters == p.rank * (p.site.in_features + p.site.out_features)
