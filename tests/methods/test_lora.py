"""LoRA as a value: what it accepts, what it counts, and that it survives being written down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab import LoRA
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_class, method_from
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
        ({"rank": -3}, "rank must be"),
        ({"rank": 2.0}, "rank must be"),
        ({"rank": True}, "rank must be"),
        ({"rank": "8"}, "rank must be"),
        ({"rank_pattern": {"q": 0}}, "rank must be"),
        ({"targets": None}, "targets are roles, names or patterns, such as .q,v., not None"),
        ({"alpha": 0}, "alpha must be a number above 0, not 0"),
        ({"alpha": 1e39}, "above 1e30 it would overflow"),
        ({"alpha": -1}, "alpha must be"),
        ({"alpha": math.nan}, "alpha must be"),
        ({"alpha": math.inf}, "alpha must be"),
        ({"alpha": "16"}, "alpha must be"),
        ({"alpha_pattern": {"q": -1}}, "alpha must be"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1"),
        ({"dropout": -0.1}, "dropout must be"),
        ({"dropout": math.nan}, "dropout must be"),
        ({"init": "xavier"}, "init must be one of kaiming, gaussian, pissa, not 'xavier'"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": " , "}, "targets is empty"),
        ({"rank": 17}, r"rank 17 is above what layer\.0\.value \(32 x 16\) can hold: at most 16"),
        ({"rank_pattern": {"layer.1.query": 33}}, "rank 33 is above what layer.1.query"),
        ({"targets": ("q", "gate")}, "target 'gate' matches no layer"),
        ({"rank_pattern": {"key": 4}}, "target 'key' matches no layer"),
        ({"targets": ("q",), "rank_pattern": {"v": 4}}, "target 'v' matches no layer"),
        ({"alpha_pattern": {"layer.2.*": 4}}, r"target 'layer.2.\*' matches no layer"),
    ],
)
def test_an_impossible_value_is_refused_in_one_sentence(options, sentence):
    with pytest.raises((BadValue, NotFound), match=sentence):
        LoRA(**options).place(SITES)


@pytest.mark.parametrize("targets", ["q,v", "q, v", ["q", "v"], ("q", "v")])
def test_targets_may_be_written_in_several_ways(targets):
    assert LoRA(targets=targets) == LoRA(targets=("q", "v"))


@pytest.mark.parametrize(
    ("method", "scaling"),
    [(LoRA(rank=4, alpha=8), 2), (LoRA(rank=4, alpha=8, rslora=True), 4), (LoRA(rank=1, alpha=3), 3)],
)
def test_scaling_is_alpha_by_rank_or_by_its_root(method, scaling):
    assert {placement.scaling for placement in method.place(SITES)} == {scaling}


def test_patterns_change_rank_and_alpha_where_they_fit_and_the_first_counts():
    method = LoRA(rank=8, alpha=16, rank_pattern={"layer.0.query": 2, "q": 4}, alpha_pattern={"v": 24})
    placed = {p.site.module: (p.rank, p.scaling) for p in method.place(SITES)}
    assert placed == {
        "layer.0.query": (2, 8.0),
        "layer.1.query": (4, 4.0),
        "layer.0.value": (8, 3.0),
        "layer.1.value": (8, 3.0),
    }


@settings(deadline=None)
@given(rank=st.integers(1, 16), special=st.integers(1, 16))
def test_the_count_is_the_sum_over_sites(rank, special):
    method = LoRA(rank=rank, rank_pattern={"v": special})
    assert sum(p.parameters for p in method.place(SITES)) == 2 * rank * (32 + 32) + 2 * special * (32 + 16)


@pytest.mark.parametrize(
    "method",
    [
        LoRA(),
        LoRA(rank=3, alpha=1.5, targets=("*.query", "all-linear"), dropout=0.1, rslora=True, init="gaussian"),
        LoRA(rank_pattern={"q": 2, "v": 3}, alpha_pattern={"v": 5}),
    ],
)
def test_settings_and_back(method):
    assert method_from(method.settings()) == method
    assert hash(method_from(method.settings())) == hash(method)


def test_a_method_is_frozen():
    with pytest.raises(AttributeError):
        LoRA().rank = 4  # type: ignore[misc]


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(BadValue, match="lora has no option 'rnak'; nearest: rank"):
        method_from({"name": "lora", "rnak": 8})


@pytest.mark.parametrize("name", ["lroa", ""])
def test_an_unknown_method_names_those_there_are(name):
    with pytest.raises(BadValue, match=f"unknown method '{name}'; known: .*lora"):
        method_class(name)
    with pytest.raises(BadValue, match=f"unknown method '{name}'"):
        method_from({"name": name})
