"""Choosing: configurations that are behind stop, and only the chosen one and its rivals are scored on the test rows."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab import BadValue, Grid, Recipe, Store, sweep
from lora_lab.experiments.racing import EVERY, GAP, LED, Race, behind
from lora_lab.training.pack import Pack
from tests.conftest import PLAIN
from tests.experiments.conftest import on_step

# ---- the rule, on losses that are made up


@st.composite
def curves(draw):
    """Training losses of some configurations, (seeds, steps) each: a noise per seed and step that all share."""
    steps, seeds = draw(st.sampled_from([40, 100])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shared = rng.normal(0, 0.1, (seeds, steps))
    falls = draw(st.lists(st.floats(-0.1, 0.6), min_size=1, max_size=6))
    begin = draw(st.sampled_from([0.69, 3.0]))
    time = np.linspace(0, 1, steps)
    made = {k: begin - fall * time + shared + rng.normal(0, 0.01, (seeds, steps)) for k, fall in enumerate(falls)}
    return steps, {k: own.tolist() for k, own in made.items()}


@given(curves())
@settings(max_examples=30)
def test_the_leader_never_stops_nor_anyone_before_half_time_or_before_anyone_has_learned(made):
    steps, own = made
    start = np.mean([np.array(one)[:, :10] for one in own.values()])
    for step in range(1, steps + 1):
        now = {k: np.mean(np.array(one)[:, max(0, step - 25) : step]) for k, one in own.items()}
        stopped, best = behind(own, step, steps), min(now.values())
        if step < steps / 2 or step >= steps - 1 or step % EVERY or best > start - LED:
            assert stopped == {}
        for name, leader in stopped.items():
            assert now[leader] == pytest.approx(best)
            assert now[name] > best + 0.9 * GAP - 1e-9  # those that are flat are LED - FLAT behind at least
        assert not stopped.keys() & set(stopped.values())
        cut = {k: [one[:step] for one in losses] for k, losses in reversed(own.items())}
        assert behind(cut, step, steps) == stopped  # whatever the order and the losses to come


# ---- a sweep that chooses


def outcome(swept) -> dict[str, tuple]:
    return {run.recipe.hash: (run.status, len(run.history["step"]), bool(run.metrics)) for run in swept.runs}


@pytest.fixture
def grid(tiny_encoder, opinions):
    """Three rates, of which one learns soon, one late and one never, with two seeds each."""

    def make(**fields) -> list[Recipe]:
        axes = {"rank": [1, 4], "lr": [3e-2, 1e-2, 1e-6], "seed": [0, 1]}
        axes |= {name: fields.pop(name) for name in list(fields) if name in axes}
        return Grid(**axes).recipes(tiny_encoder, opinions, **{"steps": 60, "batch": 8, **PLAIN, **fields})

    return make


def test_it_chooses_as_the_whole_grid_does_and_tests_only_the_chosen_and_its_rivals(grid, tmp_path, monkeypatch):
    rows_of = Pack.rows_of  # test rows are only for those that were chosen
    monkeypatch.setattr(Pack, "rows_of", lambda p, split: rows_of(p, split) if p.adapters else p.rows[split])
    swept = sweep(grid(), tmp_path / "chosen", choose=True)
    monkeypatch.undo()
    told = swept.choice.to_json()
    finalists = [name for one in (told["chosen"], *told["rivals"]) for name in one["runs"]]
    assert set(finalists) == {run.recipe.hash for run in swept.runs if run.metrics}
    assert len(finalists) < 12
    full = sweep(grid(), tmp_path / "full")
    found = {}
    for run in full.runs:
        found.setdefault(replace(run.recipe, seed=0), []).append(run.history["validation"][-1]["accuracy"])
    best = max(found, key=lambda recipe: np.mean(found[recipe]))
    assert told["chosen"]["recipe"] == {k: v for k, v in best.settings().items() if k != "seed"}
    tested = [full.at(hash=name).accuracy for name in told["chosen"]["runs"]]
    assert told["chosen"]["test"] == pytest.approx(np.mean(tested))
    for one in told["stopped"]:  # with all its seeds, at one step, and the others were not begun
        own = [run for run in swept.runs if {**one["recipe"], "seed": run.recipe.seed} == run.recipe.settings()]
        cut = [run for run in own if run.status == "behind"]
        assert [run.recipe.seed for run in cut] == one["seeds"]
        assert {len(run.history["step"]) for run in cut} == {one["step"]}
        assert 30 <= one["step"] < 59
    assert {one["recipe"]["lr"] for one in told["stopped"]} >= {1e-6}
    saved = told["saved"]
    assert saved["of_steps"] - saved["steps"] == sum(len(run.history["step"]) for run in swept.runs)
    assert (saved["of_tests"] - saved["tests"], saved["of_tests"]) == (len(finalists), 12)
    assert (saved["seconds"] > 0, told["regret_bound"]["points"]) == (True, None)  # not measured for such models


@pytest.mark.parametrize("size", [None, 2])
def test_a_choice_that_was_broken_off_goes_on_and_a_whole_one_is_not_made_twice(grid, tmp_path, size):
    recipes, how = grid(rank=4), {"choose": True, "size": size}
    whole = sweep(recipes, tmp_path / "whole", **how)
    for many in (25, 80):
        stop, steps = threading.Event(), iter(range(many))

        def see(_, steps=steps, stop=stop) -> None:
            if next(steps, None) is None:
                stop.set()

        broken = sweep(recipes, tmp_path / "broken", stop=stop, note=on_step(see), **how)
        assert broken.choice is None or not stop.is_set()
    swept = sweep(recipes, tmp_path / "broken", **how)
    told, other = swept.choice.to_json(), whole.choice.to_json()
    assert (told["chosen"], told["rivals"]) == (other["chosen"], other["rivals"])
    if size is None:  # else in which step one stops depends on the curves that are known by then
        assert outcome(swept) == outcome(whole)
    again = sweep(recipes, tmp_path / "broken", **how)
    assert (again.packs, outcome(again), str(again.choice)) == ((), outcome(swept), str(swept.choice))


def test_only_runs_in_training_fall_behind():
    """A finished run is kept as it is, so a repeated sweep would not know that its configuration had been left out."""
    flat, slow, fast = (Recipe("minilm", "rt", lr=lr, steps=60, validations=1) for lr in (1e-6, 1e-5, 1e-2))
    race, ended = Race([flat, slow, fast]), []
    next(race.stages())
    race.note(SimpleNamespace(recipe=flat, history={"loss": [0.7] * 60}, status="unscored"))
    losses = {slow: [0.7] * 30, fast: [0.7 - 0.02 * step for step in range(30)]}
    members = [
        SimpleNamespace(
            recipe=recipe, history={"loss": own}, end=lambda why, recipe=recipe: ended.append((recipe, why))
        )
        for recipe, own in losses.items()
    ]
    race.pauses = False
    race.judge(members, 30)
    assert (list(race.out), ended) == ([slow], [(slow, "behind")])


def test_what_was_stopped_is_never_taken_for_a_whole_run(grid, tmp_path):
    recipes = grid(rank=4)
    chosen = sweep(recipes, tmp_path, choose=True)
    cut = [run for run in chosen.runs if run.status == "behind"]
    assert cut
    assert len(chosen.finished.runs) == sum(bool(run.metrics) for run in chosen.runs)
    best, rest = chosen.choice.runs[0].recipe, [run.recipe for run in cut]
    others = [recipe for recipe in recipes if recipe.lr != best.lr]  # without the one that led
    alone = sweep(others, tmp_path, choose=True)
    assert all(run.status != "behind" or run.environment["behind"] in {r.hash for r in others} for run in alone.runs)
    trained = []
    plain = sweep(recipes, tmp_path, note=lambda event, facts: event == "run" and trained.append(facts["run"].recipe))
    assert {run.status for run in plain.runs} == {"done"}
    assert all(len(run.history["step"]) == 60 and run.metrics for run in plain.runs)
    assert {recipe for recipe in rest if recipe in others} >= set(trained) & set(others)
    unscored = {run.recipe for run in chosen.runs if run.status == "unscored"}
    assert not unscored & set(trained)  # scored, not trained again


def test_runs_of_before_count_and_are_rivals_where_their_validation_rows_were_not_kept(grid, tmp_path):
    recipes = grid(rank=4, lr=[3e-2, 1e-6], seed=0)
    sweep(recipes[1:], tmp_path)
    first = sweep(recipes, tmp_path, choose=True)
    assert (first.skipped, first.choice.to_json()["chosen"]["recipe"]["lr"]) == (1, 3e-2)
    right = {3e-2: 170, 1e-6: 120}  # of 200 rows; the file has eight, which tell nothing
    for recipe in recipes:
        Store(tmp_path).add_rows(recipe, "validation", np.arange(200) < right[recipe.lr])
    told = sweep(recipes, tmp_path, choose=True).choice.to_json()
    assert (told["rivals"], told["stopped"], told["saved"]["steps"]) == ([], [], 0)
    (Store(tmp_path).adapter_folder(recipes[1]) / "validation.npy").unlink()
    assert len(sweep(recipes, tmp_path, choose=True).choice.to_json()["rivals"]) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda own: own[1:], "same seeds"),
        (lambda own: [*own, *(replace(recipe, steps=30) for recipe in own)], "one model, task and length"),
        (lambda own: [replace(recipe, validations=0) for recipe in own], "validations to 1 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(grid, tmp_path, change, says):
    with pytest.raises(BadValue, match=says):
        sweep(change(grid()), tmp_path, choose=True)
    assert Store(tmp_path).runs() == []
    with pytest.raises(BadValue, match="choose on this machine"):
        sweep(grid(), tmp_path, choose=True, client=object())


def test_a_configuration_with_a_seed_that_failed_is_not_chosen_and_trains_no_further(grid, tmp_path):
    swept = sweep([*grid(rank=4), *grid(rank=4, lr=1e30)], tmp_path, choose=True)
    assert [run.recipe.seed for run in swept.runs if run.status == "failed"] == [0]
    assert swept.choice.to_json()["chosen"]["recipe"]["lr"] == 3e-2
