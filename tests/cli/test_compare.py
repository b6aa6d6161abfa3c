"""`lora-lab compare`: the contract's keys, a table for people, a budget in minutes, and what is refused."""

import json
from functools import partial
from pathlib import Path

import pytest

from lora_lab.cli.compare import describe
from lora_lab.experiments import budget
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

CHEAP = ["--batch", "4", "--rates", "2", "--growth", "0", "--seeds", "2", "--dtype", "fp32", "--attention", "eager"]


@pytest.fixture
def run(lora_lab):
    """`run("--steps", "4")`."""
    return partial(lora_lab, "compare")


@pytest.fixture
def small(tiny_encoder, opinions):
    """The options of a cheap comparison."""
    return ["--model", tiny_encoder, "--task", opinions, "--methods", "lora,lora:rank=1:targets=q+v+k", *CHEAP]


def test_json_is_all_of_stdout_and_progress_goes_to_stderr(run, small, tmp_path):
    done = run(*small, "--steps", "4", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(Path(tmp_path, "comparison.json").read_text())
    assert [one["label"] for one in found["methods"]] == ["LoRA r8 q,v", "LoRA r1 q,v,k"]
    assert all(one["accuracy"]["n"] == 2 and one["edge"] for one in found["methods"])
    assert "LoRA r8 q,v: tuning lr over 0.001, 0.002" in done.stderr
    table = describe(found)
    each = " ".join(f"{100 * value:.1f}" for value in found["methods"][0]["accuracy"]["each"])
    assert f"{found['methods'][0]['lr']:g} (edge)" in table
    assert each in table
    assert "4 steps of 4 rows; rates tuned on validation with seed 1000" in table


def test_minutes_become_steps(run, small, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "pack_timed", lambda *_: budget.Timing(0.0, 1.0, 0.0))  # a second a step
    done = run(*small, "--methods", "lora", "--minutes", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "12 steps each, about 1 minutes in total" in done.stderr
    assert "12 steps of 4 rows" in done.stdout


def test_methods_that_all_fail_are_a_failure_and_impossible_ones_bad_input(run, small, tmp_path):
    for method, code, says in (("prompt:tokens=40", 1, "every method failed"), ("lora:rank=33", 2, "rank 33 is above")):
        done = run(*small, "--methods", method, "--steps", "2", "--out", str(tmp_path), "--json")
        assert (done.returncode, says in done.stderr) == (code, True)
        assert not (tmp_path / "comparison.json").exists()


def test_of_a_method_that_failed_the_table_has_strokes_and_nothing_that_it_forgot():
    found = read_json(shipped("data/results/compare/minilm_rt.json"))
    failed = dict.fromkeys(found["methods"][0]) | {
        **{"label": "prefix", "settings": {}, "tried": [], "against": {}, "runs": [], "error": "does not fit"},
        **{found["metric"]: {"mean": None, "std": None, "n": 0, "each": []}},
        "forgetting": {"task": "shakespeare", "before": 9.0, "after": {"each": []}},
    }
    told = describe(found | {"methods": [found["methods"][0], failed]})
    assert set(told.splitlines()[2].split()) == {"prefix", "-"}
    assert "prefix: does not fit" in told
    assert "shakespeare" not in told
