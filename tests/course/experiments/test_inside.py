"""What is said of runs' updates is what their matrices hold; the maker of the reference works on tiny runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_course.experiments import microscope_reference
from lora_course.experiments.inside import above_chance, amplified, intruding, shared_a, shared_rows, sizes
from lora_course.experiments.microscope import views_from
from lora_course.experiments.subspace import product_factors, random_directions
from lora_course.experiments.updates import Update, a_at_start, updates_of
from lora_lab import FullFineTuning, LoRA
from lora_lab.errors import BadValue
from lora_lab.training.runs import Store
from lora_lab.training.train import train

RNG = np.random.default_rng(3)


def update(name: str, rank: int, d: int = 24, a: np.ndarray | None = None) -> Update:
    a = RNG.standard_normal((rank, d)) if a is None else a
    b = RNG.standard_normal((d, rank))
    return Update(name, RNG.standard_normal((d, d)), product_factors(b, a), a, b)


def test_sizes_are_those_of_the_matrices():
    one = update("q", 2)
    row = sizes({"q": one}).iloc[0]
    assert row.norm == pytest.approx(np.linalg.norm(one.b @ one.a))
    assert row.relative == pytest.approx(row.norm / np.linalg.norm(one.weight))
    assert 1 <= row.stable_rank <= row.effective_rank + 1e-9 <= 2 + 1e-9
    assert (row.rank_for_90, row.of) in ((1, 2), (2, 2))


def test_a_common_start_is_found_in_a_and_not_where_b_listens_elsewhere():
    a = RNG.standard_normal((8, 24))
    long, short = update("q", 8, a=a), update("q", 3, a=a[:3])
    assert shared_a({"q": short.a}, {"q": long.a})["q"][-1, -1] == pytest.approx(1)
    rows = shared_rows({"q": short}, {"q": long})["q"]
    assert rows.shape == (3, 8)
    assert rows[-1, -1] == pytest.approx(1)
    assert rows[0, 0] < 1
    assert above_chance(rows, 24, 3, 8) > 3
    free = {"q": update("q", 3)}
    assert abs(above_chance(shared_rows(free, {"q": long})["q"], 24, 3, 8)) < 4
    with pytest.raises(BadValue, match="no adapted layer in common"):
        shared_a({"q": a}, {"v": a})


def test_amplification_and_intruders_of_each_matrix():
    basis = random_directions(24, 24)
    weight = basis * np.linspace(24, 1, 24) @ basis.T
    new = basis @ (np.ones(24) / np.sqrt(24))
    b, a = 100 * new[:, None], new[None]
    updates = {"q": Update("q", weight, product_factors(b, a), a, b)}
    assert amplified(updates, 1)["q"].factor == pytest.approx(100 / (new @ weight @ new))
    found, chance = intruding(updates)["q"], intruding(updates, by_chance=True)["q"]
    assert found.count >= 1
    assert replace(found, threshold=0.01).count == 0
    assert len(chance.cosines) == len(found.cosines) == 10
    assert not np.allclose(chance.cosines, found.cosines)


def test_a_before_training_is_what_a_run_begins_with(recipe, tmp_path):
    lazy = recipe(steps=1, lr=1e-12, method=LoRA(rank=2))
    run = train(lazy, store=tmp_path)
    trained = {name: one.a for name, one in updates_of(run).items()}
    start = a_at_start(lazy)
    assert start.keys() == trained.keys()
    assert all(np.allclose(start[name], trained[name], atol=1e-6) for name in start)
    with pytest.raises(BadValue, match="no plain LoRA"):
        a_at_start(recipe(method=FullFineTuning()))


def test_the_reference_is_made_of_runs_and_read_by_the_panel(recipe, opinions, tmp_path, monkeypatch):
    monkeypatch.setattr(microscope_reference, "SHOWN", ("layer.0.",))
    monkeypatch.setattr(microscope_reference, "AMPLIFIED", (1, 2))
    runs = {
        "full": recipe(steps=2, method=FullFineTuning(), lr=1e-3),
        "lora": recipe(steps=2, method=LoRA(rank=2), lr=1e-2),
        "lora64": recipe(steps=2, method=LoRA(rank=4), lr=1e-2),
    }
    found = json.loads(json.dumps(microscope_reference.made(Store(tmp_path), runs, sentences=5, ds=())))
    views = views_from(found["views"], opinions)
    assert views.whole("LoRA").rank == 2
    assert views.left == 0
    assert found["phi"]["8 in 64, one seed"]["A at the start"]["corner"]
    assert found["runs"].keys() == runs.keys()
    assert len(found["intruders"]["random like full"]) == 4
