"""`lora-lab compare`: the contract's keys, a table for people, a budget in minutes, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lora_lab.cli.compare import describe
from tests.training.conftest import opinions, tiny_encoder  # noqa: F401

CHEAP = ["--batch", "4", "--rates", "2", "--growth", "0", "--seeds", "2", "--dtype", "fp32", "--attention", "eager"]


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "lora_lab", "compare", *words], capture_output=True, text=True)


@pytest.fixture
def small(tiny_encoder, opinions):  # noqa: F811
    """The options of a cheap comparison."""
    return ["--model", tiny_encoder, "--task", opinions, "--methods", "lora,lora:rank=1:targets=q+v+k", *CHEAP]


def test_json_is_all_of_stdout_and_progress_goes_to_stderr(small, tmp_path):
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


def test_minutes_become_steps_which_a_repeat_keeps(small, tmp_path):
    words = [*small, "--minutes", "0.5", "--out", str(tmp_path)]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "s a step, as one of 2 side by side" in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "so that all of it takes about 0.5 minutes" in line]
    steps = int(said.split("min")[1].split()[0])
    assert steps >= 10
    assert f"{steps} steps of 4 rows" in done.stdout
    again = run(*words, "--json")
    assert json.loads(again.stdout)["steps"] == steps
    assert "side by side" not in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "lora,loar"], "unknown method 'loar'"),
        (["--methods", "lora:rank"], "option=value"),
        (["--methods", "lora", "--steps", "5", "--minutes", "5"], "not both"),
        (["--methods", "lora", "--seeds", "0"], "seeds must be"),
        (["--methods", "lora", "--prompts", "4"], "of language models"),
        (["--methods", "lora", "--task", "rtt"], "no task or file 'rtt'"),
        (["--methods", "lora", "--minutes", "0"], "minutes"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(words, says, small, tmp_path):
    done = run(*small, "--out", str(tmp_path / "out"), *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_methods_that_all_fail_are_a_failure(small, tmp_path):
    done = run(*small, "--methods", "lora:rank=33", "--steps", "2", "--out", str(tmp_path), "--json")
    assert done.returncode == 1
    assert "rank 33 is above" in json.loads(done.stdout)["methods"][0]["error"]
    assert "no method came to anything" in done.stderr
