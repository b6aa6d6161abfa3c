"""Runs as cells of a map: which runs are on it, what the file keeps, and what is computed from them."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from lora_lab.errors import BadValue
from lora_lab.experiments import playground as pg
from lora_lab.experiments.statistics import mean_interval
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import recipe_from

STORE = shipped("data/results/sweeps/rate_rank_alpha.zip")
MOST_BYTES = 200_000
RATES = [2 ** (octave / 2) for octave in range(-24, -12)]
TWO = [pg.Cell("q,v", 8, 16.0, lr) for lr in (1e-3, 2e-3)]


@pytest.fixture(scope="module")
def store() -> pg.Playground:
    found = pg.read(STORE)
    assert found
    return found


def cells(ranks: tuple[int, ...] = (8,), alphas: tuple[float, ...] = (16.0,), rates: list[float] = RATES):
    return [pg.Cell("q,v", rank, float(alpha), lr) for rank in ranks for alpha in alphas for lr in rates]


def grid(value: Callable[[pg.Cell], float], cells: list[pg.Cell], seeds: int = 3) -> pg.Playground:
    """A playground in which a cell is worth what `value` says."""

    def result(cell: pg.Cell, seed: int) -> pg.Result:
        worth = value(cell) + 0.001 * seed
        return pg.Result(cell, seed, "done", worth > 0.55, [0.69 - 0.005 * n for n in range(40)], worth, "bf16")

    return pg.Playground(pg.load().recipe, "accuracy", tuple(result(c, s) for c in cells for s in range(seeds)), {})


def test_of_a_store_the_largest_group_is_taken_and_each_run_has_its_own_numbers(store: pg.Playground):
    records = {record["hash"]: record for _, record in pg.records(STORE)}
    assert len(records) - len(store.results) == 4  # of other dtypes and clips
    for one in store.results[:20]:
        recipe = store.recipe_of(one.cell, one.seed)
        record = records[recipe_from({**recipe.settings(), "validations": 1}).hash]
        assert one.value == record["history"]["validation"][-1]["accuracy"]
        assert np.allclose(one.losses, np.array(record["history"]["loss"]).reshape(40, 5).mean(1))


def test_a_file_of_540_runs_is_small_and_reads_back():
    rng = np.random.default_rng(0)
    whole = grid(lambda cell: float(rng.uniform(0.5, 0.8)), cells((1, 8, 64), (1, 4, 16, 64, 256)))
    failed = whole.results[0]._replace(status="failed", value=None, losses=[0.69, 0.7], dtype=None)
    whole = pg.replace(whole, results=(failed, *whole.results[1:]))
    content = json.dumps(pg.packed(whole), separators=(",", ":"))
    assert len(whole.results) == 540
    assert len(content) <= MOST_BYTES
    for one, other in zip(pg.unpacked(json.loads(content)).results, whole.results, strict=True):
        assert one._replace(value=None, losses=[]) == other._replace(value=None, losses=[])
        assert one.value == pytest.approx(other.value, abs=1e-4)  # up to rounding to one byte and two
        assert np.allclose(one.losses, other.losses, atol=0.003)
    with pytest.raises(BadValue, match="update"):
        pg.unpacked(json.loads(content) | {"version": pg.VERSION + 1})


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_the_interval_is_students(values: list[float]):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert (low, high) == (None, None)
    elif (spread := np.std(values, ddof=1) / math.sqrt(len(values))) > 1e-9:
        assert (low, high) == pytest.approx(student.interval(0.95, len(values) - 1, np.mean(values), spread))


def test_cells_have_the_mean_of_their_seeds_and_one_is_the_best():
    data, losses = pg.shown(grid(lambda cell: 0.7 if cell.lr == 1e-3 else 0.76, TWO))
    worse, best = data["cells"]
    assert (worse["mean"], best["mean"]) == (70.1, 76.1)
    assert data["best"] == {"q,v": 1}
    assert len(losses) == 6 * pg.POINTS


def test_a_run_that_learned_nothing_collapsed_above_the_best_rate_and_is_flat_below_it():
    whole = grid(lambda cell: 0.76 if cell.lr == 2e-3 else 0.5, cells(rates=[1e-4, 2e-3, 5e-2]), seeds=1)
    assert [run["state"] for run in pg.shown(whole)[0]["runs"]] == ["flat", "done", "collapsed"]


@given(st.lists(st.lists(st.floats(-14, -3), min_size=1, max_size=9, unique_by=lambda x: round(x, 2)), max_size=5))
def test_no_two_rates_of_a_row_share_a_column(rows: list[list[float]]):
    tried = [pg.Cell("q,v", 8, float(alpha), 2**octave) for alpha, row in enumerate(rows, 1) for octave in row]
    data, _ = pg.shown(grid(lambda cell: 0.7, tried, seeds=1))
    places = [(cell["alpha"], cell["column"]) for cell in data["cells"]]
    assert len(set(places)) == len(tried)
    assert all(0 <= column < len(data["rates"]) for _, column in places)


def test_runs_of_the_same_kind_join_and_others_are_left_out():
    records = list(pg.records(STORE))
    plan = pg.replace(pg.load(), results=())
    joined = plan.plus(records[:30])
    again = joined.plus(records[20:40])
    assert len(again.results) == len({(one.cell, one.seed) for one in again.results}) > len(joined.results)
    other = [("", {**record, "recipe": {**record["recipe"], "steps": 400}}) for _, record in records[:5]]
    assert again.plus(other) == again
    assert plan.plus(other) == plan


def test_what_may_be_luck_is_about_1_96_standard_errors_whatever_the_number_of_seeds():
    rng = np.random.default_rng(0)
    for seeds in (3, 5, 8):
        whole = grid(lambda cell: float(rng.normal(0.7, 0.01)), cells((1, 8, 64), (1, 4, 16, 64, 256)), seeds)
        assert pg.shown(whole)[0]["luck"] == pytest.approx(1.96 * math.sqrt(2 / seeds), rel=0.15)
    collapsed = tuple(one._replace(learned=False, value=0.5 + 0.2 * one.seed) for one in whole.results[:30])
    assert pg.shown(pg.replace(whole, results=(*collapsed, *whole.results[30:])))[0]["luck"] < 2
    assert pg.shown(grid(lambda cell: 0.7, TWO, seeds=1))[0]["luck"] is None
