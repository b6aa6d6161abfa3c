"""`lora-lab sweep` and `collect`: the contract's keys, the grid's words, and what is refused in one sentence."""

import json
import re

import pytest

from lora_lab import FullFineTuning, Grid, LoRA, PromptTuning, Recipe, Store
from tests.conftest import made_run

CHEAP = ["--steps", "3", "--batch", "4", "--validations", "1", "--dtype", "fp32", "--attention", "eager"]


@pytest.fixture
def small(tiny_encoder, opinions):
    """The options of a cheap sweep."""
    return ["--model", tiny_encoder, "--task", opinions, *CHEAP]


def test_json_has_the_contracts_keys_and_nothing_else_is_on_stdout(lora_lab, small, tmp_path):
    words = ["sweep", *small, "--rank", "1,2", "--lr", "1e-3,2e-3", "--seed", "0-1", "--out", str(tmp_path), "--json"]
    done = lora_lab(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= {"runs", "packs", "skipped", "failed", "seconds"}
    assert (len(found["runs"]), sum(found["packs"]), found["skipped"], found["failed"]) == (8, 8, 0, 0)
    assert {(r["recipe"]["method"]["rank"], r["recipe"]["lr"], r["recipe"]["seed"]) for r in found["runs"]} == {
        (rank, lr, seed) for rank in (1, 2) for lr in (1e-3, 2e-3) for seed in (0, 1)
    }
    assert all("accuracy" in r["metrics"] and len(r["history"]["loss"]) == 3 for r in found["runs"])
    again = json.loads(lora_lab(*words, "--solo").stdout)
    assert (again["packs"], again["skipped"]) == ([], 8)


@pytest.mark.parametrize("word", ["--choose", "--halving"])
def test_a_sweep_that_chooses_says_what_it_chose_and_what_that_saved(lora_lab, small, tmp_path, word):
    words = ["sweep", *small, "--rank", "1,2", "--lr", "1e-3,2e-3", "--seed", "0-1", "--out", str(tmp_path), word]
    done = lora_lab(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= {"chosen", "rivals", "stopped", "saved", "regret_bound", "runs", "packs", "seconds"}
    assert set(found["chosen"]) == {"recipe", "metric", "validation", "test", "seeds", "runs"}
    assert set(found["saved"]) == {"steps", "of_steps", "tests", "of_tests", "seconds"}
    assert set(found["regret_bound"]) == {"points", "level", "from"}
    assert (found["stopped"], found["saved"]["of_steps"]) == ([], 24)
    assert 2 * (1 + len(found["rivals"])) == sum(bool(run["metrics"]) for run in found["runs"])
    told = lora_lab(*words).stdout
    assert "chosen  lora, rank" in told
    assert "saved   0 of 24 steps" in told


def test_the_command_validates_at_the_end_only(lora_lab, small, tmp_path):
    none = [word for word in small if word not in ("--validations", "1")]
    for more, at in (([], [0, 3]), (["--patience", "2"], [0, 1, 2, 3])):
        (run,) = json.loads(lora_lab("sweep", *none, *more, "--out", str(tmp_path), "--json").stdout)["runs"]
        assert [one["step"] for one in run["history"]["validation"]] == at


def test_a_table_for_people_and_a_picture_of_what_was_collected(lora_lab, small, tmp_path):
    for i in (1, 2):
        share = ["--share", f"{i}/2", "--out", str(tmp_path / "class" / f"laptop{i}")]
        done = lora_lab("sweep", *small, "--rank", "1,2", "--alpha-rule", "2rank", *share)
        assert done.returncode == 0, done.stderr
        assert "1 runs, 0 of them already stored; packs of 1;" in done.stdout
    collected = lora_lab("collect", str(tmp_path / "class"), "--out", str(tmp_path / "all"))
    assert collected.returncode == 0, collected.stderr
    assert "2 runs in" in collected.stdout
    assert "lora q,v 1 2 0.002" in " ".join(collected.stdout.split())
    assert (tmp_path / "all" / "rank.png").stat().st_size > 10_000
    answer = json.loads(lora_lab("collect", str(tmp_path / "class"), "--out", str(tmp_path / "all"), "--json").stdout)
    assert (answer["runs"], answer["taken"], answer["repeated"], len(answer["frame"])) == (2, 0, 2, 2)


def keep(folder, recipe: Recipe, **metrics: float) -> None:
    """A run of a class, with the same metrics on validation and on test."""
    Store(folder / "class").add(made_run(recipe, **metrics))


@pytest.mark.parametrize(
    ("accuracies", "head", "lines"),
    [
        (
            {Recipe("minilm", "rt", FullFineTuning()): 0.6, Recipe("minilm", "rt", LoRA(rank=1)): 0.7},
            "method targets rank alpha lr seeds",
            {"full - - - 0.002 1 60.0 60.0", "lora q,v 1 16 0.002 1 70.0 70.0"},
        ),
        (
            {
                Recipe("minilm", "rt", PromptTuning(tokens=4)): 0.6,
                Recipe("minilm", "rt", PromptTuning(tokens=40)): 0.8,
                Recipe("minilm", "rt", PromptTuning(tokens=40), seed=1): 0.9,
                Recipe("minilm", "rt", PromptTuning(tokens=40), examples=50): 0.5,
            },
            "method lr examples tokens seeds",
            {"prompt 0.002 0 4 1 60.0 60.0", "prompt 0.002 0 40 2 85.0 80.0 90.0", "prompt 0.002 50 40 1 50.0 50.0"},
        ),
        (
            {Recipe("minilm", "rt", LoRA()): 0.6, Recipe("minilm", "rt", LoRA(dora=True)): 0.8},
            "method targets rank alpha lr dora seeds",
            {"lora q,v 8 16 0.002 - 1 60.0 60.0", "lora q,v 8 16 0.002 True 1 80.0 80.0"},
        ),
    ],
    ids=["a method without ranks", "tokens and examples", "a variant of LoRA"],
)
def test_a_line_is_of_runs_that_differ_in_their_seed_alone(lora_lab, tmp_path, accuracies, head, lines):
    for recipe, accuracy in accuracies.items():
        keep(tmp_path, recipe, accuracy=accuracy)
    answer = lora_lab("collect", str(tmp_path / "class"), "--out", str(tmp_path / "all")).stdout
    found = [" ".join(line.split()) for line in answer.splitlines() if not line.startswith("picture")]
    assert found[1].startswith(head)
    assert set(found[2:]) == lines


def test_runs_of_two_tasks_are_not_averaged(lora_lab, tmp_path):
    for model, task, metrics in (("minilm", "rt", {"accuracy": 0.8}), ("smollm2", "kjv", {"perplexity": 9.0})):
        for recipe in Grid(rank=[1, 2]).recipes(model, task):
            keep(tmp_path, recipe, **metrics)
    answer = lora_lab("collect", str(tmp_path / "class"), "--out", str(tmp_path / "all")).stdout
    told = dict(re.findall(r"\d: (\w+) on \w+,.*\n((?:.+\n)+)", answer))
    assert "mean accuracy" in told["minilm"]
    assert "80.0" in told["minilm"]
    assert "9.0" not in told["minilm"]
    assert "mean perplexity" in told["smollm2"]
    assert " 9.0" in told["smollm2"]
    assert "nan" not in answer
    assert (tmp_path / "all" / "rank_2.png").is_file()


def test_a_laptop_beyond_the_grid_has_nothing_to_do(lora_lab, tmp_path):
    words = ["sweep", *CHEAP, "--rank", "1,2", "--share", "3/40", "--out", str(tmp_path / "runs")]
    done = lora_lab(*words)
    assert (done.returncode, done.stdout) == (0, "share 3/40 of 2 runs is empty: nothing to do\n")
    done = lora_lab(*words, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["runs"], found["packs"], found["skipped"], found["failed"]) == (0, [], [], 0, 0)
