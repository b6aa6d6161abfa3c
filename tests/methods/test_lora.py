"""LoRA as a value: what it accepts, what it counts, and that it survives being written down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab import LoRA
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.targets import Site

SITES = [
    Site("layer.0.query", "q", 32, 32),
    Site("layer.0.value", "v", 32, 16),
    Site("layer.1.query", "q", 32, 32),
    Site("layer.1.value", "v", 32, 16),
]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ({"rank": True}, "rank must be"),
        ({"rank_pattern": {"q": 0}}, "rank must be"),
        ({"targets": None}, "targets are roles, names or patterns, such as .q,v., not None"),
        ({"alpha": 0}, "alpha must be a number above 0, not 0"),
        ({"alpha": 1e39}, "above 1e30 it would overflow"),
        ({"alpha": math.nan}, "alpha must be"),
        ({"alpha_pattern": {"q": -1}}, "alpha must be"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1"),
        ({"rslora": "no"}, "rslora must be True or False"),
        ({"lr_ratio": math.inf}, "lr_ratio must be a number above 0"),
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


@settings(deadline=None)
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


def test_an_unknown_method_or_option_names_the_nearest():
    with pytest.raises(BadValue, match="lora has no option 'rnak'; nearest: rank"):
        method_from({"name": "lora", "rnak": 8})
    for name in ("lroa", ""):
        with pytest.raises(BadValue, match=f"unknown method '{name}'; known: .*lora"):
            method_from({"name": name})
