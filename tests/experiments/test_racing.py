import shutil
import threading
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab import LoRA, PTuning, Recipe, Store, sweep
from lora_lab.experiments.racing import Race, behind, in_words
from lora_lab.training.pack import Pack
from tests.conftest import PLAIN, assert_raises, made_run
from tests.experiments.conftest import on_step

FAST, SLOW, FLAT = 3e-2, 1e-2, 1e-6  # learning rates: with these, a run learns soon, late, or never


@st.composite
def curves(draw):
    """Draw a number of steps and {configuration: training losses (seeds, steps)} with noise that they share."""
    steps, seeds = draw(st.sampled_from([40, 100])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shared = rng.normal(0, 0.1, (seeds, steps))
    falls = draw(st.lists(st.floats(-0.1, 0.6), min_size=1, max_size=6))
    first = draw(st.sampled_from([0.69, 3.0]))
    time = np.linspace(0, 1, steps)
    noisy = (first - fall * time + shared + rng.normal(0, 0.01, (seeds, steps)) for fall in falls)
    return steps, {name: losses.tolist() for name, losses in enumerate(noisy)}


@given(curves())
@settings(max_examples=30)
def test_rule_stops_exactly_those_far_behind_a_leader(drawn):
    """As docs/guide.md says: behind by 0.10 nats and by 60% of the leader's progress, or not 0.01 below the start."""
    steps, losses = drawn
    start = np.mean([np.array(seeds)[:, :10] for seeds in losses.values()])
    for step in range(1, steps + 1):
        means = {name: np.mean(np.array(seeds)[:, max(0, step - 25) : step]) for name, seeds in losses.items()}
        stopped, best = behind(losses, step, steps), min(means.values())
        limit = min(best + max(0.1, 0.6 * (start - best)), start - 0.01)
        decides = step % 10 == 0 and steps / 2 <= step < steps - 1 and start - best >= 0.1
        assert stopped.keys() == {name for name, mean in means.items() if decides and mean > limit}
        assert [means[leader] for leader in stopped.values()] == pytest.approx([best] * len(stopped))
        earlier = {name: [curve[:step] for curve in seeds] for name, seeds in reversed(losses.items())}
        assert behind(earlier, step, steps) == stopped  # neither the order nor later losses matter


@pytest.mark.parametrize(("last", "steps"), [(1.5, [30, 30]), (0.5, [30, 40, 30])])
def test_judging_a_step_again_changes_nothing(last, steps):
    """A resumed pack judges the steps since its checkpoint again, even if a run stopped at one of them."""
    good, late, bad = (Recipe("minilm", "rt", lr=lr, steps=60, validations=1) for lr in (1e-2, 1e-3, 1e-1))
    losses = {
        good: [0.69] * 10 + [0.3] * 30,
        late: [0.69] * 10 + [0.6] * 20 + [0.3] * 10,
        bad: [3.0] * 10 + [last] * 20 + [2.5] * 10,
    }
    race, ended = Race([*losses]), []
    next(race.stages())
    for step in steps:
        left = [recipe for recipe in losses if recipe not in ended]
        ends = {recipe: lambda _, recipe=recipe: ended.append(recipe) for recipe in left}
        race.judge([SimpleNamespace(recipe=r, history={"loss": losses[r][:step]}, end=ends[r]) for r in left], step)
    assert ended == [bad]


@pytest.fixture(scope="module")
def recipes(tiny_encoder, opinions) -> list[Recipe]:
    setups = product(((FAST, 4), (SLOW, 1), (FLAT, 4)), (0, 1))
    fields = {"steps": 60, "batch": 8, "validations": 1, **PLAIN}
    return [Recipe(tiny_encoder, opinions, LoRA(rank), lr=lr, seed=seed, **fields) for (lr, rank), seed in setups]


@pytest.fixture(scope="module")
def chosen(recipes, tmp_path_factory):
    """A sweep that chooses among the recipes, and its store. Packs that train may not read the test rows."""
    rows_of = Pack.rows_of
    store = tmp_path_factory.mktemp("chosen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pack, "rows_of", lambda p, split: rows_of(p, split) if p.adapters else p.rows[split])
        return sweep(recipes, store, choose=True), store


def ends(swept) -> dict[str, tuple]:
    return {run.recipe.hash: (run.status, len(run.history["step"]), bool(run.metrics)) for run in swept.runs}


def test_choice_is_that_of_the_whole_grid(recipes, chosen, tmp_path):
    swept, _ = chosen
    choice = swept.choice
    finalists = [name for row in (choice["chosen"], *choice["rivals"]) for name in row["runs"]]
    assert set(finalists) == {run.recipe.hash for run in swept.runs if run.metrics}
    assert len(finalists) < len(recipes)
    full = sweep(recipes, tmp_path)
    accuracies = {}
    for run in full.runs:
        accuracies.setdefault(replace(run.recipe, seed=0), []).append(run.history["validation"][-1]["accuracy"])
    best = max(accuracies, key=lambda recipe: np.mean(accuracies[recipe]))
    assert choice["chosen"]["recipe"] == {k: v for k, v in best.settings().items() if k != "seed"}
    tested = [full.at(hash=name).accuracy for name in choice["chosen"]["runs"]]
    assert choice["chosen"]["test"] == pytest.approx(np.mean(tested))
    assert {row["recipe"]["lr"] for row in choice["stopped"]} >= {FLAT}
    for row in choice["stopped"]:  # all seeds that had begun stopped at the same step
        seeds = [run for run in swept.runs if {**row["recipe"], "seed": run.recipe.seed} == run.recipe.settings()]
        cut = [run for run in seeds if run.status == "behind"]
        assert [run.recipe.seed for run in cut] == row["seeds"]
        assert {len(run.history["step"]) for run in cut} == {row["step"]}
        assert 30 <= row["step"] < 59
    saved = choice["saved"]
    assert saved["of_steps"] - saved["steps"] == sum(len(run.history["step"]) for run in swept.runs)
    assert (saved["of_tests"] - saved["tests"], saved["of_tests"]) == (len(finalists), len(recipes))
    assert saved["seconds"] > 0
    assert choice["regret_bound"]["points"] is None  # not measured for such a model


def test_regret_is_bounded_only_where_it_was_measured(tmp_path):
    def points(seeds=(0, 1), **changes):
        settings = {"steps": 200, "batch": 8, **changes}
        recipes = [Recipe("minilm", "rt", seed=seed, **settings) for seed in seeds]
        runs = [made_run(recipe, accuracy=0.8) for recipe in recipes]
        return Race(recipes).choice(Store(tmp_path), runs)["regret_bound"]["points"]

    assert points() == 0.35
    unmeasured = {"seeds": [0], "examples": 50, "steps": 100, "batch": 16, "max_length": 64, "dropout": True}
    assert {name: points(**{name: value}) for name, value in unmeasured.items()} == dict.fromkeys(unmeasured)


@pytest.mark.parametrize("size", [None, 2])
def test_stopped_choice_resumes_and_is_not_repeated(recipes, chosen, tmp_path, size):
    whole = sweep(recipes, tmp_path / "whole", choose=True, size=size) if size else chosen[0]
    for steps in (25, 80):
        stop, left = threading.Event(), iter(range(steps))
        on_event = on_step(lambda _, stop=stop, left=left: next(left, None) is None and stop.set())
        stopped = sweep(recipes, tmp_path / "stopped", choose=True, size=size, stop=stop, on_event=on_event)
        assert stopped.choice is None or not stop.is_set()
    resumed = sweep(recipes, tmp_path / "stopped", choose=True, size=size)
    actual, expected = resumed.choice, whole.choice
    assert (actual["chosen"], actual["rivals"]) == (expected["chosen"], expected["rivals"])
    if size is None:  # with several packs, the step at which a run stops depends on the curves known by then
        assert ends(resumed) == ends(whole)
    again = sweep(recipes, tmp_path / "stopped", choose=True, size=size)
    assert (again.packs, ends(again), in_words(again.choice)) == ((), ends(resumed), in_words(resumed.choice))


def test_run_whose_process_was_killed_as_it_fell_behind_stops_or_trains_on(recipes, tmp_path, monkeypatch):
    recipes = [replace(r, method=replace(r.method, dropout=0.01)) for r in recipes if r.lr != SLOW]
    add, store = Store.add, tmp_path / "store"

    def add_or_die(store: Store, run) -> None:
        if run.status == "behind":
            raise KeyboardInterrupt
        add(store, run)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", add_or_die)
        with pytest.raises(KeyboardInterrupt):
            sweep(recipes, store, choose=True)
    shutil.copytree(store, tmp_path / "copy")
    resumed, whole = (sweep(recipes, folder, choose=True) for folder in (store, tmp_path / "whole"))
    assert ends(resumed) == ends(whole)  # stopped at the same step
    assert resumed.choice["stopped"]
    assert {run.status for run in sweep(recipes, tmp_path / "copy").runs} == {"done"}


def test_finished_run_never_falls_behind():
    """A finished run keeps its status, so a repeated sweep couldn't see that its configuration was left out."""
    finished, slow, fast = (Recipe("minilm", "rt", lr=lr, steps=60, validations=1) for lr in (1e-6, 1e-5, 1e-2))
    race, ended = Race([finished, slow, fast]), []
    next(race.stages())
    race.record(SimpleNamespace(recipe=finished, history={"loss": [0.7] * 60}, status="unscored"))
    race.pauses = False
    members = [
        SimpleNamespace(recipe=slow, history={"loss": [0.7] * 30}, end=ended.append),
        SimpleNamespace(recipe=fast, history={"loss": [0.7 - 0.02 * step for step in range(30)]}, end=ended.append),
    ]
    race.judge(members, 30)
    assert (list(race.out), ended) == ([slow], ["behind"])


def test_stopped_run_does_not_count_as_a_whole_run(recipes, chosen, tmp_path):
    swept, store = chosen
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    cut = {run.recipe for run in swept.runs if run.status == "behind"}
    assert cut
    assert len(swept.finished.runs) == sum(bool(run.metrics) for run in swept.runs)
    others = [recipe for recipe in recipes if recipe.lr != FAST]  # without the leader
    hashes = {recipe.hash for recipe in others}
    without = sweep(others, tmp_path, choose=True)
    assert all(run.status != "behind" or run.environment["behind"] in hashes for run in without.runs)
    trained = set()
    plain = sweep(recipes, tmp_path, on_event=lambda event, facts: event == "run" and trained.add(facts["run"].recipe))
    assert {run.status for run in plain.runs} == {"done"}
    assert all(len(run.history["step"]) == 60 and run.metrics for run in plain.runs)
    assert trained & set(others) <= cut
    unscored = {run.recipe for run in swept.runs if run.status == "unscored"}
    assert not unscored & trained  # scored without training again


def test_stored_runs_count_and_are_rivals_without_stored_rows(recipes, tmp_path):
    pair = [recipe for recipe in recipes if recipe.seed == 0 and recipe.lr != SLOW]
    sweep(pair[1:], tmp_path)
    first = sweep(pair, tmp_path, choose=True)
    assert (first.skipped, first.choice["chosen"]["recipe"]["lr"]) == (1, FAST)
    for flat, rivals in ((120, 0), (167, 0), (169, 1)):  # right of 200 rows; eight rows show no difference
        for recipe, correct in zip(pair, (170, flat), strict=True):
            Store(tmp_path).add_rows(recipe, "validation", np.arange(200) < correct)
        choice = sweep(pair, tmp_path, choose=True).choice
        error = np.sqrt((170 - flat) / 200**2 * (1 - (170 - flat) / 200) * 200 / 199 + 1 / 200**2)
        assert rivals == ((170 - flat) / 200 <= error)
        assert (len(choice["rivals"]), choice["stopped"], choice["saved"]["steps"]) == (rivals, [], 0)
    (rows := Store(tmp_path).adapter_folder(pair[1]) / "validation.npy").unlink()
    assert len(sweep(pair, tmp_path, choose=True).choice["rivals"]) == 1
    rows.write_bytes(b"")
    assert_raises(r"validation\.npy", sweep, pair, tmp_path, choose=True)


@pytest.mark.parametrize("seeds", [1, 2])
def test_p_tuning_of_a_language_model_is_scored(tiny_causal, tmp_path, seeds):  # a loaded adapter trains nothing
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(f'{{"prompt": "{n}?", "response": "{n}!"}}' for n in range(12)))
    fields = {"steps": 2, "validations": 1, "max_length": 32, **PLAIN}
    recipes = [Recipe(tiny_causal, str(file), PTuning(tokens=2), seed=seed, **fields) for seed in range(seeds)]
    chosen, full = (sweep(recipes, tmp_path / f"{choose}", choose=choose).runs for choose in (True, False))
    assert [run.metrics["loss"] for run in chosen] == pytest.approx([run.metrics["loss"] for run in full], rel=1e-4)


def test_impossible_choice_is_refused_before_training(recipes, tmp_path):
    shorter = [replace(recipe, steps=30) for recipe in recipes]
    assert_raises("same seeds", sweep, recipes[1:], tmp_path, choose=True)
    assert_raises("needs the same steps in all runs", sweep, [*recipes, *shorter], tmp_path, choose=True)
    assert_raises("a cluster cannot choose", sweep, recipes, tmp_path, choose=True, client=object())
    assert Store(tmp_path).runs() == []


def test_failed_seed_rules_out_its_configuration(recipes, tmp_path):
    diverging = [replace(recipe, lr=1e30) for recipe in recipes[:2]]
    swept = sweep([*recipes[:2], *diverging], tmp_path, choose=True)
    assert [run.recipe.seed for run in swept.runs if run.status == "failed"] == [0]  # seed 1 was not started
    assert swept.choice["chosen"]["recipe"]["lr"] == FAST
