import gzip
import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from lora_lab import Store
from lora_lab.experiments import playground as module
from lora_lab.experiments.playground import Cell, Playground, Result
from lora_lab.experiments.statistics import mean_interval
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import recipe_from

STORE = shipped("data/results/sweeps/rate_rank_alpha.zip")
CELLS = [  # 180 of them
    Cell("q,v", rank, alpha, 2 ** (octave / 2))
    for rank in (1, 8, 64) for alpha in (1.0, 4.0, 16.0, 64.0, 256.0) for octave in range(-24, -12)
]  # fmt: skip


def cells(*rates: float) -> list[Cell]:
    return [Cell("q,v", 8, 16.0, lr) for lr in rates]


def playground(value, cells: list[Cell], seeds: int = 3) -> Playground:
    """Return a playground in which a cell's validation accuracy is `value(cell)`, and higher for higher seeds."""

    def result(cell: Cell, seed: int) -> Result:
        accuracy = value(cell) + 0.001 * seed
        losses = [0.69 - 0.005 * n for n in range(40)]
        return Result(cell, seed, "done", accuracy > 0.55, losses, accuracy, "bf16")

    return Playground(module.load().recipe, "accuracy", tuple(result(c, s) for c in cells for s in range(seeds)), {})


def test_largest_group_of_a_store_is_read(tmp_path):
    Store(tmp_path / "runs").add(Store(STORE).runs(needed=())[0])
    shutil.make_archive(str(tmp_path / "own"), "zip", tmp_path, "runs")  # as Windows and macOS zip a folder
    assert [who for who, _ in module.records(tmp_path / "own.zip")] == [""]
    found = module.read(STORE)
    records = {record["hash"]: record for _, record in module.records(STORE)}
    assert len(records) - len(found.results) == 4  # these have other dtypes and clips
    for result in found.results[:20]:
        recipe = found.recipe_of(result.cell, result.seed)
        record = records[recipe_from({**recipe.settings(), "validations": 1}).hash]
        assert result.value == record["history"]["validation"][-1]["accuracy"]
        assert np.allclose(result.losses, np.array(record["history"]["loss"]).reshape(40, 5).mean(1))


def test_curves_are_one_byte_per_point_and_the_shipped_file_has_the_fields_of_a_playground():
    whole = module.load()
    assert len(whole.results) == 540
    assert json.loads(json.dumps(vars(whole))) == json.loads(gzip.decompress(shipped(module.SHIPPED).read_bytes()))
    failed = whole.results[0]._replace(status="failed", value=None, losses=[0.69, 0.7], dtype=None)
    whole = module.replace(whole, results=(failed, *whole.results[1:]))
    data, losses = module.shown(whole)
    points = np.frombuffer(losses, np.uint8).reshape(540, module.POINTS)
    assert list(points[0, 2:]) == [module.MISSING] * 38
    for row, result in zip(points, whole.results, strict=True):
        expected = np.minimum(result.losses, data["top"])
        assert np.allclose(row[: len(expected)] / (module.MISSING - 1) * data["top"], expected, atol=0.003)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_mean_interval_is_students(values):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert (low, high) == (None, None)
    elif (spread := np.std(values, ddof=1) / math.sqrt(len(values))) > 1e-9:
        assert (low, high) == pytest.approx(student.interval(0.95, len(values) - 1, np.mean(values), spread))


def test_cell_is_the_mean_of_its_seeds_and_an_untrained_run_is_flat_or_collapsed():
    data, losses = module.shown(playground(lambda cell: 0.7 if cell.lr == 1e-3 else 0.76, cells(1e-3, 2e-3)))
    assert [cell["mean"] for cell in data["cells"]] == [70.1, 76.1]
    assert data["best"] == {"q,v": 1}
    assert len(losses) == 6 * module.POINTS
    found = playground(lambda cell: 0.76 if cell.lr == 2e-3 else 0.5, cells(1e-4, 2e-3, 5e-2), seeds=1)
    assert [run["state"] for run in module.shown(found)[0]["runs"]] == ["flat", "done", "collapsed"]
    one = module.shown(playground(lambda cell: 0.5, cells(5e-2), seeds=1))[0]  # is its rate too low, or too high?
    assert (one["runs"][0]["state"], one["about"][:6]) == ("unlearned", "1 run:")


def test_lines_have_the_names_that_javascript_gives_them():
    alphas = (16 * 8**0.5, 16.0)  # one has more digits than Python's format "g"
    tried = [Cell("q,v", rank, alpha, 2.0**octave) for alpha in alphas for rank in (1, 8) for octave in (-12, -11, -10)]
    lines = module.shown(playground(lambda cell: 0.7, tried))[0]["lines"]["rank"]
    assert lines.keys() == {"q,v|45.254833995939045", "q,v|16"}
    assert [lines["q,v|16"][name]["least"] for name in ("alone", "whole")] == [False, True]  # whole needs 3 octaves


@given(st.lists(st.lists(st.floats(-14, -3), min_size=1, max_size=9, unique_by=lambda x: round(x, 2)), max_size=5))
def test_rates_of_a_row_have_different_columns(rows):
    tried = [Cell("q,v", 8, float(alpha), 2**octave) for alpha, row in enumerate(rows, 1) for octave in row]
    data, _ = module.shown(playground(lambda cell: 0.7, tried, seeds=1))
    places = [(cell["alpha"], cell["column"]) for cell in data["cells"]]
    assert len(set(places)) == len(tried)
    assert all(0 <= column < len(data["rates"]) for _, column in places)


def test_only_runs_of_the_same_kind_are_added():
    records = list(module.records(STORE))
    empty = module.replace(module.load(), results=())
    first = empty.plus(records[:30])
    second = first.plus(records[20:40])
    assert len(second.results) == len({(result.cell, result.seed) for result in second.results}) > len(first.results)
    longer = [("", {**record, "recipe": {**record["recipe"], "steps": 400}}) for _, record in records[:5]]
    assert second.plus(longer) == second
    recipe = records[0][1]["recipe"]
    near = {**records[0][1], "recipe": {**recipe, "lr": np.nextafter(recipe["lr"], 1), "seed": 9}}
    assert second.plus([("", near)]).results[-1].cell == module.cell_of(recipe)  # otherwise, the map could not be drawn
    assert empty.plus(longer) == empty
    unvalidated = {**records[0][1], "recipe": {**recipe, "validations": 0, "seed": 9}}
    assert second.plus([("", unvalidated)]) == second  # it has no value on the map


def test_luck_is_about_two_standard_errors():
    """Luck is 1.96 standard errors of a difference of means, for any number of seeds; collapsed runs do not count."""
    rng = np.random.default_rng(0)
    for seeds in (3, 5, 8):
        whole = playground(lambda cell: float(rng.normal(0.7, 0.01)), CELLS, seeds)
        assert module.shown(whole)[0]["luck"] == pytest.approx(1.96 * math.sqrt(2 / seeds), rel=0.15)
    collapsed = tuple(run._replace(learned=False, value=0.5 + 0.2 * run.seed) for run in whole.results[:30])
    assert module.shown(module.replace(whole, results=(*collapsed, *whole.results[30:])))[0]["luck"] < 2
    assert module.shown(playground(lambda cell: 0.7, cells(1e-3, 2e-3), seeds=1))[0]["luck"] is None
