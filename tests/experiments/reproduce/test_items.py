"""Every item's rule by results that are made, and the items that train once through on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest

from lora_lab.errors import BadValue
from lora_lab.experiments import paper
from lora_lab.experiments.budget import Timing
from lora_lab.experiments.reproduce import (
    NAMES,
    fig3,
    fig4,
    fit,
    item,
    section4_2,
    table1,
    table2,
    table3,
    table5,
    table6,
    table7,
    table16,
    table18,
)
from lora_lab.experiments.reproduce.base import Place, Plan, by_verdicts, in_every
from lora_lab.experiments.reproduce.run import reproduce
from lora_lab.experiments.statistics import verdict
from lora_lab.experiments.subspace import amplification
from lora_lab.methods.lora import LoRA
from lora_lab.training.tasks import load_task
from tests.training.conftest import PLAIN, opinions, tiny_causal, tiny_encoder, tiny_models  # noqa: F401

SEEDS, ROWS = 3, 2000


def right(share: float, seed: int = 0) -> np.ndarray:
    """Answers of three runs, so many of them right; the same rows are hard for all."""
    rng = np.random.default_rng(seed)
    return np.stack([np.random.default_rng(0).random(ROWS) + 0.02 * rng.standard_normal(ROWS) < share for _ in "abc"])


def scores(item, share: float, **others: float) -> dict[str, np.ndarray]:
    """Every row with this share of right answers, but some."""
    made = {name: right(others.get(name, share), seed) for seed, name in enumerate(item.methods)}
    assert set(others) <= set(made)
    return made


WHICH = [("holds", 0.75, 0.75), ("fails", 0.80, 0.75), ("fails", 0.85, 0.75)]


@pytest.mark.parametrize(("standing", "q", "k"), WHICH)
def test_which_matrices(standing, q, k):
    made = scores(table5.ITEM, 0.80, **{"q r8": q, "k r8": k})
    judged = table5.ITEM.verdict(made)
    assert judged.standing == standing
    assert "q,v r4 against q r8" in judged.words


def test_which_matrices_undecided():
    made = {name: own[:1, :60] for name, own in scores(table5.ITEM, 0.80, **{"q r8": 0.77}).items()}
    assert table5.ITEM.verdict(made).standing == "undecided"


@pytest.mark.parametrize(
    ("standing", "low"), [("holds", 0.80), ("holds", 0.86), ("fails", 0.75)],
)  # fmt: skip
def test_how_low(standing, low):
    assert table6.ITEM.verdict(scores(table6.ITEM, 0.80, **{"q,v r1": low})).standing == standing


def test_how_low_undecided():
    made = {name: own[:1, :60] for name, own in scores(table6.ITEM, 0.80).items()}
    assert table6.ITEM.verdict(made).standing == "undecided"


def times(small: float, large: float, merged: float = 1.0, noise: float = 0.01) -> dict:
    """Forty rounds of two cells, with the ratios wanted."""
    rng = np.random.default_rng(0)

    def of(ratio: float) -> list[float]:
        return list(ratio * np.exp(noise * rng.standard_normal(40)))

    return {
        cell: {
            "base": of(1.0),
            table1.MERGED: of(merged),
            table1.UNMERGED: of(1.1),
            table1.HOULSBY: of(h),
            table1.LIN: of(h),
        }
        for cell, h in (("1 x 128", small), ("32 x 512", large))
    }


@pytest.mark.parametrize(
    ("standing", "made"),
    [
        ("holds", times(1.3, 1.03)),
        ("fails", times(1.0, 1.0)),
        ("fails", times(1.1, 1.2)),
        ("fails", times(1.3, 1.03, merged=1.2)),
        ("undecided", times(1.3, 1.25, noise=0.3)),
    ],
)
def test_latency(standing, made):
    assert table1.ITEM.judge(made).standing == standing


@pytest.mark.parametrize(("standing", "lora"), [("holds", 0.80), ("holds", 0.85), ("fails", 0.75)])
def test_methods(standing, lora):
    made = {"full": right(0.80), "lora": right(lora, 1), "head": right(0.7, 2)}
    assert table2.ITEM.verdict(made).standing == standing
    few = {name: own[:1, :60] for name, own in made.items()}
    assert table2.ITEM.verdict(few).standing == "undecided" or lora != 0.80


def losses(level: float, seed: int, spread: float = 0.001) -> np.ndarray:
    """Minus the loss of each of 200 rows, of three runs."""
    rng = np.random.default_rng(seed)
    return -(level + np.random.default_rng(0).random(200) + spread * rng.standard_normal((3, 200)))


@pytest.mark.parametrize(
    ("standing", "lora", "prefix", "spread"),
    [
        ("holds", 1.00, 1.2, 0.001),
        ("holds", 0.9, 1.2, 0.001),
        ("fails", 1.1, 1.2, 0.001),
        ("fails", 1.0, 0.9, 0.001),
        ("undecided", 1.0, 1.2, 3.0),
        ("undecided", 1.0, 1.0, 0.001),
    ],
)
def test_writing(standing, lora, prefix, spread):
    made = {"full": losses(1.0, 1, spread), "lora": losses(lora, 2, spread), "prefix": losses(prefix, 3, spread)}
    assert table3.ITEM.verdict(made).standing == standing


@pytest.mark.parametrize(
    ("standing", "one", "sixty_four", "spread"),
    [
        ("holds", 1.1, 1.0, 0.001),
        ("fails", 1.0, 1.0, 0.001),
        ("fails", 1.1, 0.9, 0.001),
        ("fails", 1.1, 1.1, 0.001),
        ("undecided", 1.1, 1.0, 3.0),
    ],
)
def test_rank_and_loss(standing, one, sixty_four, spread):
    levels = {"rank 1": one, "rank 4": 1.05, "rank 16": 1.0, "rank 64": sixty_four}
    made = {name: losses(level, seed, spread) for seed, (name, level) in enumerate(levels.items())}
    assert table18.ITEM.verdict(made).standing == standing


@pytest.mark.parametrize(
    ("standing", "full", "prefix"),
    [("holds", 0.7, 0.6), ("fails", 0.75, 0.8), ("fails", 0.9, 0.6), ("undecided", 0.7, 0.75)],
)
def test_little_data(standing, full, prefix):
    lora = right(0.75)
    found = {("full", 100): verdict(right(full, 1), lora), ("prefix 20", 100): verdict(right(prefix, 2), lora)}
    assert table16.at_little(found, 100).standing == standing


def amplified(low: float, high: float, update: float = 1.0) -> dict[int, list[dict[str, float]]]:
    seeds = range(5)
    told = {"in_random": 0.5, "in_update": update, "in_weight": 5.0, "update": 3.0}
    return {4: [{**told, "factor": low} for _ in seeds], 64: [{**told, "factor": high} for _ in seeds]}


def test_amplification():
    assert table7.judged(amplified(20.0, 2.0)).standing == "holds"
    assert table7.judged(amplified(2.0, 20.0)).standing == "fails"
    assert table7.judged(amplified(20.0, 2.0, update=0.4)).standing == "fails"  # less of W than by chance
    mixed = amplified(20.0, 2.0)
    mixed[4][0]["factor"] = 1.0
    assert table7.judged(mixed).standing == "undecided"
    assert table7.judged({rank: seeds[:3] for rank, seeds in amplified(20.0, 2.0).items()}).standing == "undecided"


def shared(q: float, v: float, rest: float = 0.1, seeds: int = 5) -> dict:
    cells = {(1, 1): (q, v), (8, 8): (rest, rest), (8, 64): (rest, rest)}
    return {("BA", role, cell): [pair["qv".index(role)]] * seeds for cell, pair in cells.items() for role in "qv"}


def test_between_ranks():
    assert fig3.judged(shared(0.8, 0.7)).standing == "holds"
    assert fig3.judged(shared(0.8, 0.3)).standing == "fails"
    assert fig3.judged(shared(0.8, 0.7, rest=0.6)).standing == "fails"  # the others overlap as well
    assert fig3.judged(shared(0.8, 0.7, seeds=3)).standing == "undecided"


def test_between_seeds():
    def made(q: list[float], v: list[float]) -> dict:
        return {("BA", "q", (8, 8)): q, ("BA", "v", (8, 8)): v}

    assert fig4.judged(made([0.4] * 4, [0.2] * 4)).standing == "holds"
    assert fig4.judged(made([0.2] * 4, [0.4] * 4)).standing == "fails"
    assert fig4.judged(made([0.4] * 4, [-0.1] * 4)).standing == "fails"
    assert fig4.judged(made([0.4] * 4, [0.2, 0.2, 0.5, 0.2])).standing == "undecided"


def costs(peak: float, file: float, speed: float) -> section4_2.Costs:
    rounds = list(np.random.default_rng(0).normal(speed, 0.01, 20))
    full = {"full": 1000, "LoRA": 0}
    return section4_2.Costs(
        {**full, "LoRA": round(1000 * peak)},
        {"full": 10**6, "LoRA": round(10**6 * file)},
        {"full": [1.0] * 20, "LoRA": rounds},
        {},
    )


@pytest.mark.parametrize(
    ("standing", "made"),
    [
        ("holds", costs(0.3, 0.001, 1.3)),
        ("fails", costs(0.95, 0.001, 1.3)),
        ("fails", costs(0.3, 0.2, 1.3)),
        ("fails", costs(0.3, 0.001, 0.9)),
        ("undecided", costs(0.7, 0.001, 1.3)),
    ],
)
def test_costs(standing, made):
    assert section4_2.ITEM.judge(made).standing == standing


@pytest.mark.parametrize("name", NAMES)
def test_published_rows_are_rows_of_the_paper(name):
    one, table = item(name), paper.table(name)
    assert all(one.published(table).values())
    assert all(one.others(table).values())


def test_published_figures_stand_at_their_rows():
    assert table5.ITEM.published(paper.table("table5"))["q,v r4"] == "WikiSQL 73.7, MNLI 91.3"
    assert table6.ITEM.published(paper.table("table6")).keys() == table6.ITEM.methods.keys()
    assert table1.ITEM.published(paper.table("table1"))["1 x 128 bottleneck H"] == "1.303 (11M)"


def test_rules():
    assert by_verdicts({}, ("better",), ("worse",)).standing == "undecided"
    assert in_every([True] * 4, 5, "so").standing == "undecided"
    assert in_every([True] * 5, 5, "so").standing == "holds"
    assert in_every([False] * 5, 5, "so").standing == "fails"
    assert in_every([True, False] * 3, 5, "so").standing == "undecided"


# ---- once through


@pytest.fixture
def small(tiny_encoder, opinions, monkeypatch):  # noqa: F811
    """Table 5 on a tiny model and task."""
    monkeypatch.setattr(fit, "best_speed", lambda where: 1e6)
    return table5.WhichMatrices(tiny_encoder, opinions, **PLAIN)


def test_an_item_that_trains_goes_on_where_it_was(small, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "plan", lambda place: Plan({"steps": 2, "seeds": 2}, 1.0))
    (found,) = reproduce([small], tmp_path)
    assert found["error"] is None
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == dict.fromkeys(small.methods, 2)
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}
    assert len(stamps) == 14
    (again,) = reproduce([small], tmp_path, again=True)
    assert again["rows"] == found["rows"]
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}


def test_one_that_is_late_says_so_and_goes_on_later(small, tmp_path, monkeypatch):
    from lora_lab.experiments.reproduce import base

    monkeypatch.setattr(small, "plan", lambda place: Plan({"steps": 2, "seeds": 1}, 1.0))
    monkeypatch.setattr(base, "LATE", 1e-9)
    (late,) = reproduce([small], tmp_path)
    assert "goes on where it was" in late["error"]
    monkeypatch.undo()
    assert reproduce([small], tmp_path)[0]["error"] is None


def test_real_steps_are_timed_and_become_a_plan(small, tmp_path):
    plan = small.plan(Place(tmp_path, 5))
    assert plan.sizes["steps"] >= fit.LEAST
    assert plan.seconds < 6 * 60


def test_methods_are_compared_within_the_minutes(tiny_encoder, opinions, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fit, "best_speed", lambda where: 1e7)
    monkeypatch.setattr(table2.Methods, "methods", "full,lora")
    monkeypatch.setattr(table2.Methods, "published", lambda *_: {})
    one = table2.Methods(tiny_encoder, opinions, **PLAIN)
    assert one.expected(40).sizes == {"steps": 400, "rates": 4, "growth": 1, "seeds": 3}
    monkeypatch.setattr(one, "plan", lambda place: Plan({"steps": 2, "rates": 1, "growth": 0, "seeds": 2}, 1.0))
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == {"full": 2, "LoRA r8 q,v": 2}
    with pytest.raises(BadValue, match="one seed take about"):
        one._sized(0.01, [Timing(1, 1, 1)])


def test_little_data_is_drawn_and_judged(tiny_encoder, opinions, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(table16.LittleData, "published", lambda *_: {})
    one = table16.LittleData(tiny_encoder, opinions, sizes=(8, 0), **PLAIN)
    monkeypatch.setattr(one, "plan", lambda place: Plan({"steps": 2, "seeds": 1}, 1.0))
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert [row["name"] for row in found["rows"]][:2] == ["8 examples, lora r8", "8 examples, full"]
    assert len(found["rows"]) == 8


def test_costs_are_measured(tmp_path, tiny_causal):  # noqa: F811
    one = section4_2.Costly(tiny_causal)
    assert one.expected(1).sizes["rounds"] >= section4_2.LEAST
    found = one.run(Plan({"rounds": 3}, 1.0), Place(tmp_path, 1))
    assert found.peaks["LoRA"] < found.peaks["full"]
    assert found.files["LoRA"] < found.files["full"]
    assert len(found.gains) == 3
    names = [row.name for row in one.rows(found)]
    assert set(one.published(paper.table("section4_2"))) <= set(names)


@pytest.mark.parametrize("name", ["table7", "fig3", "fig4"])
def test_subspaces_are_trained_once_and_looked_at(tiny_encoder, opinions, tmp_path, monkeypatch, name):  # noqa: F811
    from lora_lab.experiments.reproduce import subspaces

    small_ranks = {"rank 4": LoRA(rank=2), "rank 8": LoRA(rank=4), "rank 64": LoRA(rank=8)}
    monkeypatch.setattr(subspaces.Subspaces, "methods", small_ranks)
    monkeypatch.setattr(subspaces.Subspaces, "plan", lambda *_: Plan({"steps": 2, "seeds": 2}, 1.0))
    monkeypatch.setattr(table7, "amplification", lambda w, u, rank: amplification(w, u, min(rank, len(u.values))))
    one = type(item(name))(tiny_encoder, opinions, **PLAIN)
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert (tmp_path / "subspaces" / "runs").is_dir()
    assert all(len(row["yours"]) >= 2 for row in found["rows"])
    assert found["standing"] == "undecided"  # two seeds


@pytest.mark.parametrize(("step", "steps", "seeds"), [(0.01, 400, 5), (0.1, 120, 4), (0.5, 96, 1)])
def test_seeds_give_way_to_steps(opinions, step, steps, seeds):  # noqa: F811
    plan = fit.sized(10, 10, Timing(0, step, 0), load_task(opinions))
    assert plan.sizes == {"steps": steps, "seeds": seeds}
    assert plan.seconds <= 600


def test_too_few_minutes_name_how_many(opinions):  # noqa: F811
    with pytest.raises(BadValue, match="one seed take about"):
        fit.sized(10, 1, Timing(1, 5, 1), load_task(opinions))


def test_latency_is_measured(tmp_path, monkeypatch, tiny_encoder):  # noqa: F811
    import lora_lab.experiments.reproduce.table1 as it

    monkeypatch.setattr(it, "SIZE", 8)
    one = it.Latency(tiny_encoder)
    monkeypatch.setattr(one, "expected", lambda minutes: Plan({"rounds": 7, "cells": [[1, 8], [2, 16]]}, 1.0))
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert [len(row["yours"]) for row in found["rows"]] == [7] * 8
