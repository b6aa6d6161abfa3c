"""Tests of roles, targets and LoRA's placement. Sites are names and sizes, so no model is needed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.targets import Site, choose, match, roles_of, sites_of_layer

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
    "deberta.encoder.rel_embeddings": ("position",),
    "cls.predictions.decoder": ("head",),
    "something.unknown": (),
    "bert.myquery": (),
}


def test_roles_follow_from_the_path():
    assert {module: roles_of(module) for module in ROLES} == ROLES


def test_fused_layer_has_a_site_per_slice():
    whole, q, k, v = sites_of_layer("h.0.attn.c_attn", 32, 64, "linear", {"q": 32, "k": 16, "v": 16})
    assert (whole.out_slice, q.out_slice, k.out_slice, v.out_slice) == (None, (0, 32), (32, 48), (48, 64))
    assert [site.role for site in (whole, q, k, v)] == ["q+k+v", "q", "k", "v"]
    assert (q.name, v.out_features) == ("h.0.attn.c_attn[q]", 16)
    for widths in ({}, {"q": 32, "k": 32, "v": 31}):  # an unknown order
        assert [site.out_slice for site in sites_of_layer("h.0.attn.c_attn", 32, 96, "linear", widths)] == [None]


BERT = [Site("bert.embeddings.word_embeddings", "embed", 96, 32, "embedding")]
for number in range(2):
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        BERT += sites_of_layer(f"bert.encoder.layer.{number}.attention.{name}", 32, 32, "linear", {})
GPT2 = sites_of_layer("h.0.attn.c_attn", 32, 96, "linear", {"q": 32, "k": 32, "v": 32})
GPT2 += sites_of_layer("h.0.attn.c_proj", 32, 32, "linear", {})


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("q", ["0.attention.self.query", "1.attention.self.query"]),
        ("query", ["0.attention.self.query", "1.attention.self.query"]),
        ("*.0.attention.self.*", [f"0.attention.self.{name}" for name in ("query", "key", "value")]),
    ],
)
def test_target_is_a_role_a_name_or_a_pattern(target, names):
    assert [site.module for site in match(target, BERT)] == [f"bert.encoder.layer.{name}" for name in names]


def test_role_means_the_slice_and_name_the_fused_layer():
    assert [site.name for site in match("q", GPT2)] == ["h.0.attn.c_attn[q]"]
    assert [site.name for site in match("c_attn", GPT2)] == ["h.0.attn.c_attn"]
    assert [site.out_slice for site in match("h.0.attn.c_attn[v]", GPT2)] == [(64, 96)]
    assert {site.out_slice for site in match("all-linear", GPT2)} == {None}
    slices = match("q", GPT2) + match("v", GPT2)
    assert match("*.0.attn.c_attn", slices, slices=True) == slices
    with pytest.raises(NotFound):
        match("*.0.attn.c_attn", slices)


def test_sites_are_chosen_once_in_model_order():
    assert choose(["value", "v", "q"], BERT) == [site for site in BERT if site.role in ("q", "v")]


SITES = [
    Site("layer.0.query", "q", 32, 32),
    Site("layer.0.value", "v", 32, 16),
    Site("layer.1.query", "q", 32, 32),
    Site("layer.1.value", "v", 32, 16),
]


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_invalid_option_is_refused(options, message):
    with pytest.raises((BadValue, NotFound), match=message):
        LoRA(**options).place(SITES)


@given(rank=st.integers(1, 16), special=st.integers(1, 16), alpha=st.floats(0.1, 64), rslora=st.booleans())
def test_patterns_set_rank_and_alpha(rank, special, alpha, rslora):
    patterns = {"rank_pattern": {"layer.0.query": special, "q": 4}, "alpha_pattern": {"v": 24}}  # the first match wins
    placements = {p.site.module: p for p in LoRA(rank, alpha, rslora=rslora, **patterns).place(SITES)}
    ranks = {"layer.0.query": special, "layer.1.query": 4, "layer.0.value": rank, "layer.1.value": rank}
    assert {name: p.rank for name, p in placements.items()} == ranks
    for name, p in placements.items():
        assert p.scaling == (24 if "value" in name else alpha) / (math.sqrt(p.rank) if rslora else p.rank)
        assert p.parameters == p.rank * (p.site.in_features + p.site.out_features)
