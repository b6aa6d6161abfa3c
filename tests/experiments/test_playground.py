"""Runs as cells of a map: what they come from, what the file keeps, and what is computed of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments import playground as pg
from lora_lab.experiments.statistics import mean_interval
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import recipe_from
from lora_lab.training.runs import Store

STORE = shipped("data/results/sweeps/rate_rank_alpha.zip")
MOST_BYTES = 200_000
RATES = [2 ** (octave / 2) for octave in range(-24, -12)]


@pytest.fixture(scope="module")
def store() -> pg.Playground:
    found = pg.read(STORE)
    assert found
    return found


def grid(value: Callable[[pg.Cell], float], cells: list[pg.Cell], seeds: int = 3, **more: Any) -> pg.Playground:
    """A playground in which a cell is worth what `value` says."""
    recipe = pg.load().recipe

    def result(cell: pg.Cell, seed: int) -> pg.Result:
        worth = value(cell) + 0.001 * seed
        checks = [(25 * at, worth) for at in range(1, 9)]
        return pg.Result(cell, seed, "done", worth > 0.55, [0.69 - 0.005 * n for n in range(40)], checks, "bf16")

    return pg.Playground(recipe, "accuracy", tuple(result(c, s) for c in cells for s in range(seeds)), {**more})


def ridge(k: float, alphas: tuple[float, ...] = (1, 4, 16, 64)) -> pg.Playground:
    """Best where rate * alpha^k = 2^-9 * 16^k, and worse by the square of the octaves from there."""
    cells = [pg.Cell("q,v", 8, alpha, lr) for alpha in alphas for lr in RATES]
    return grid(lambda c: 0.8 - 0.02 * (math.log2(c.lr) + 9 + k * math.log2(c.alpha / 16)) ** 2, cells)


def test_of_a_store_the_largest_group_is_taken_and_each_run_has_its_own_numbers(store: pg.Playground):
    records = {record["hash"]: record for _, record in pg.records(STORE)}
    assert len(records) - len(store.results) == 4  # the suspects, of other dtypes and clips
    for one in store.results[:20]:
        recipe = store.recipe_of(one.cell, one.seed)
        record = records[recipe_from({**recipe.settings(), "validations": 1}).hash]
        assert one.value == record["history"]["validation"][-1]["accuracy"]
        assert np.allclose(one.losses, np.array(record["history"]["loss"]).reshape(40, 5).mean(1))


def test_what_ships_is_what_the_stored_runs_say(store: pg.Playground):
    given_, shipped_ = {(one.cell, one.seed): one for one in store.results}, pg.load()
    assert shipped_.made["date"] == store.made["date"]
    for one in shipped_.results:
        own = given_[one.cell, one.seed]
        assert one.value == pytest.approx(own.value, abs=1e-4)
        assert (one.status, one.learned, one.dtype) == (own.status, own.learned, own.dtype)
        assert np.allclose(one.losses, own.losses, atol=0.003)


def test_a_file_of_540_runs_is_small_and_reads_back(tmp_path: Path):
    alphas, ranks = (1, 4, 16, 64, 256), (1, 8, 64)
    cells = [pg.Cell("q,v", rank, float(alpha), lr) for rank in ranks for alpha in alphas for lr in RATES]
    rng = np.random.default_rng(0)
    whole = grid(lambda cell: float(rng.uniform(0.5, 0.8)), cells)
    (tmp_path / "playground.json").write_text(json.dumps(pg.packed(whole), separators=(",", ":")))
    assert len(whole.results) == 540
    assert (tmp_path / "playground.json").stat().st_size <= MOST_BYTES
    again = pg.load(tmp_path / "playground.json")
    assert [one.cell for one in again.results] == [one.cell for one in whole.results]
    for one, other in zip(again.results, whole.results, strict=True):
        assert np.allclose([value for _, value in one.checks], [value for _, value in other.checks], atol=1e-4)
        assert np.allclose(one.losses, other.losses, atol=0.003)
    newer = json.loads((tmp_path / "playground.json").read_text()) | {"version": pg.VERSION + 1}
    with pytest.raises(BadValue, match="update"):
        pg.unpacked(newer)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_the_interval_is_students(values: list[float]):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    if (spread := np.std(values, ddof=1) / math.sqrt(len(values))) > 1e-9:
        assert (low, high) == pytest.approx(student.interval(0.95, len(values) - 1, np.mean(values), spread))


def test_one_seed_has_no_interval():
    assert mean_interval([3.0]) == (3.0, None, None)


def test_cells_have_the_mean_of_their_seeds_and_how_far_they_are_behind_the_best():
    cells = [pg.Cell("q,v", 8, 16.0, lr) for lr in (1e-3, 2e-3)]
    data, losses = pg.shown(grid(lambda cell: 0.7 if cell.lr == 1e-3 else 0.76, cells))
    worse, best = data["cells"]
    assert (worse["mean"], best["mean"]) == (70.1, 76.1)
    assert worse["behind"] == [6.0, 6.0, 6.0]  # seed by seed
    assert best["behind"] is None
    assert data["best"] == {"q,v": 1}
    assert len(losses) == 6 * pg.POINTS


def test_a_cell_of_one_lucky_seed_is_not_the_best_of_cells_with_three():
    cells = [pg.Cell("q,v", 8, 16.0, lr) for lr in (1e-3, 2e-3)]
    whole = grid(lambda cell: 0.7 if cell.lr == 1e-3 else 0.9, cells)
    few = tuple(one for one in whole.results if one.cell.lr == 1e-3 or one.seed == 0)
    data, _ = pg.shown(pg.replace(whole, results=few))
    assert data["best"] == {"q,v": 0}


@pytest.mark.parametrize(("k", "family"), [(0.0, "alone"), (0.5, "root"), (1.0, "whole")])
def test_the_family_that_the_ridge_follows_loses_nothing(k: float, family: str):
    data, _ = pg.shown(ridge(k))
    fits = data["lines"]["alpha"]["q,v|8"]
    lost = {name: fit["lost"] for name, fit in fits.items()}
    assert lost[family] < 0.3
    assert min(lost, key=lambda name: lost[name]) == family
    assert all(other > 1 for name, other in lost.items() if name != family)
    at = data["start"] + data["wide"] * fits[family]["at"] - fits[family]["k"] * math.log2(16)
    assert at == pytest.approx(-9, abs=0.3)  # octaves: the rate of the line at alpha 16


def test_the_lines_over_the_rank_go_the_other_way():
    cells = [pg.Cell("q,v", rank, 16.0, lr) for rank in (1, 4, 16) for lr in RATES]
    whole = grid(lambda c: 0.8 - 0.02 * (math.log2(c.lr) + 9 - math.log2(c.rank) + 2) ** 2, cells)
    fits = pg.shown(whole)[0]["lines"]["rank"]["q,v|16"]
    assert fits["whole"]["lost"] < 0.3 < fits["root"]["lost"] < fits["alone"]["lost"]


def test_what_learned_nothing_collapsed_above_the_best_rate_and_is_flat_below_it():
    cells = [pg.Cell("q,v", 8, 16.0, lr) for lr in (1e-4, 2e-3, 5e-2)]
    data, _ = pg.shown(grid(lambda cell: 0.76 if cell.lr == 2e-3 else 0.5, cells, seeds=1))
    assert [run["state"] for run in data["runs"]] == ["flat", "done", "collapsed"]


def test_the_knobs_move_the_metric_by_what_their_cells_differ():
    cells = [pg.Cell("q,v", rank, alpha, lr) for rank in (1, 8) for alpha in (4.0, 16.0) for lr in RATES]
    whole = grid(lambda c: 0.75 - 0.01 * abs(math.log2(c.lr) + 9) + 0.02 * (c.rank == 8) + 0.01 * (c.alpha == 4), cells)
    moves = pg.shown(whole)[0]["moves"]["q,v"]
    assert moves["rank"] == pytest.approx(2, abs=0.01)
    assert moves["alpha"] == pytest.approx(1, abs=0.01)
    assert moves["lr"] == pytest.approx(3, abs=0.6)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-14, -3), min_size=1, max_size=9, unique_by=lambda x: round(x, 2)), max_size=5))
def test_no_two_rates_of_a_row_share_a_column(rows: list[list[float]]):
    cells = [pg.Cell("q,v", 8, float(alpha), 2**octave) for alpha, row in enumerate(rows, 1) for octave in row]
    data, _ = pg.shown(grid(lambda cell: 0.7, cells, seeds=1))
    places = [(cell["alpha"], cell["column"]) for cell in data["cells"]]
    assert len(set(places)) == len(cells)
    assert all(0 <= column < len(data["rates"]) for _, column in places)


def test_rates_that_a_ridge_shifts_by_row_make_one_column_each():
    cells = [
        pg.Cell("q,v", 8, float(alpha), 2 ** (-9.3 + 0.45 * math.log2(16 / alpha) - 2.75 + at / 2))
        for alpha in (1, 4, 16, 64, 256) for at in range(12)
    ]  # fmt: skip
    data, _ = pg.shown(grid(lambda cell: 0.7, cells))
    assert data["wide"] == 0.5
    assert len(data["rates"]) <= 20


def test_axes_that_were_asked_for_are_there_though_nothing_was_tried():
    empty = pg.replace(pg.load(), results=())
    data, losses = pg.shown(empty, ranks=(1, 8), alphas=(16,), rates=(1e-3, 2e-3))
    assert (data["ranks"], data["alphas"], data["rates"]) == ([1, 8], [16.0], [1e-3, 2e-3])
    assert (data["cells"], data["best"], losses) == ([], {}, b"")


def test_a_class_is_read_by_student_and_one_kind_of_runs_at_a_time(tmp_path: Path):
    runs = Store(STORE).runs()[:6]
    for who, part in (("ada", runs[:4]), ("grace", runs[2:])):
        for run in part:
            Store(tmp_path / who / "runs").add(run)
    found = pg.read(tmp_path)
    assert found
    assert {one.who for one in found.results} == {"ada", "grace"}
    assert len(found.results) == 8  # what both have is a dot for each
    with pytest.raises(NotFound, match="no folder"):
        pg.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert pg.read(tmp_path / "empty") is None


def test_runs_of_the_same_kind_join_and_others_are_left_out():
    records = list(pg.records(STORE))
    plan = pg.replace(pg.load(), results=())
    joined = plan.plus(records[:30])
    again = joined.plus(records[20:40])
    assert len(again.results) == len({(one.cell, one.seed) for one in again.results}) > len(joined.results)
    other = [("", {**record, "recipe": {**record["recipe"], "steps": 400}}) for _, record in records[:5]]
    assert again.plus(other) is again


def test_runs_of_two_dtypes_are_told_of():
    whole = grid(lambda cell: 0.7, [pg.Cell("q,v", 8, 16.0, 1e-3)])
    mixed = pg.replace(whole, results=(*whole.results[:2], whole.results[2]._replace(dtype="fp32")))
    assert "different dtypes" in pg.shown(mixed)[0]["about"]
    assert "different dtypes" not in pg.shown(whole)[0]["about"]


def test_a_perplexity_is_best_where_it_is_lowest():
    cells = [pg.Cell("q,v", 8, 16.0, lr) for lr in RATES]
    whole = grid(lambda cell: 20 + abs(math.log2(cell.lr) + 9), cells)
    data, _ = pg.shown(pg.replace(whole, metric="perplexity"))
    best = data["cells"][data["best"]["q,v"]]
    assert best["lr"] == min(RATES, key=lambda lr: abs(math.log2(lr) + 9))
    assert all(cell["behind"] is None or cell["behind"][0] >= 0 for cell in data["cells"])


def test_a_cell_of_which_some_runs_collapsed_has_a_mean_and_no_interval():
    cells = [pg.Cell("q,v", 8, 16.0, lr) for lr in (1e-3, 2e-3)]
    whole = grid(lambda cell: 0.76 if cell.lr == 1e-3 else 0.7, cells)
    lost = whole.results[-1]._replace(learned=False, checks=[(200, 0.5)])
    data, _ = pg.shown(pg.replace(whole, results=(*whole.results[:-1], lost)))
    best, mixed = data["cells"]
    assert best["low"] < best["mean"] < best["high"]
    assert (mixed["low"], mixed["high"], mixed["behind"][1:]) == (None, None, [None, None])
    assert mixed["mean"] == pytest.approx((70 + 70.1 + 50) / 3, abs=0.01)
