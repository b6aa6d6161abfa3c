"""The frame: tidy, whole, and quick for many runs."""

from __future__ import annotations

import json
import time

import pytest

from lora_lab import BadValue, LoRA, Recipe, Run, Store
from lora_lab.experiments.results import Runs, load
from lora_lab.experiments.statistics import verdict


def run(**fields) -> Run:
    recipe = Recipe("minilm", "rt", LoRA(fields.pop("rank", 8)), **{"steps": 200, "batch": 8, **fields})
    steps = list(range(1, 201))
    history = {
        "step": steps,
        "loss": [0.7 - s / 1000 for s in steps],
        "lr": [recipe.lr_at(s) for s in steps],
        "validation": [{"step": s, "accuracy": 0.5 + s / 1000, "macro_f1": 0.6, "loss": 0.5} for s in (0, 100, 200)],
    }
    metrics = {"accuracy": 0.7, "macro_f1": 0.7, "loss": 0.6}
    return Run(recipe, metrics, history, 73728, 770, 22786946, 12.5, 10**9, {"device": "cpu"})


def test_a_row_has_settings_metrics_and_the_last_validation(tmp_path):
    Store(tmp_path).add(run(rank=4, lr=1e-3, seed=3))
    (row,) = load(tmp_path).to_dict("records")
    expected = {"rank": 4, "alpha": 16, "lr": 1e-3, "seed": 3, "targets": "q,v", "accuracy": 0.7, "status": "done"}
    assert {name: row[name] for name in expected} == expected
    assert row["validation_accuracy"] == pytest.approx(0.7)


def test_what_is_no_run_and_what_is_newer_are_told_apart(tmp_path):
    Store(tmp_path).add(run())
    (file,) = tmp_path.glob("*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(BadValue, match="version 99"):
        load(tmp_path)
    file.write_text("[]")
    with pytest.raises(BadValue, match="move it out"):
        load(tmp_path)
    file.unlink()
    file.mkdir()  # nor is it a file
    with pytest.raises(BadValue, match="move it out"):
        load(tmp_path)


def test_ten_thousand_runs_are_a_frame_in_two_seconds(tmp_path):
    """The promise of the sweep runner; measured 0.9 s on one core."""
    text = json.dumps(run().to_json(), indent=1)
    for seed in range(10_000):
        (tmp_path / f"{seed:012x}.json").write_text(text.replace('"seed": 0', f'"seed": {seed}'))
    start = time.process_time()  # not the clock on the wall: other programs may be busy
    frame = load(tmp_path)
    assert time.process_time() - start < 2
    assert frame["seed"].nunique() == 10_000


def test_runs_that_cannot_be_judged_say_why_also_to_a_verdict():
    with pytest.raises(BadValue, match="has no predictions; score it again"):
        verdict(Runs((run(),)), Runs((run(seed=1),)))
    with pytest.raises(BadValue, match="none of these 0 runs finished"):
        verdict(Runs(()), Runs(()))
