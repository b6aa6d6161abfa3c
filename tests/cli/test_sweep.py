import json
import re

import pytest

from lora_lab import FullFineTuning, Grid, LoRA, PromptTuning, Recipe, Store
from lora_lab.training.runs import failed
from tests.conftest import made_run


@pytest.fixture
def sweep(lora_lab, tiny_encoder, opinions):
    """`sweep(out, "--rank", "1,2")` runs the command on the tiny encoder; the command must succeed."""
    fields = ["--steps", "3", "--batch", "4", "--dtype", "fp32", "--attention", "eager"]

    def run(out, *words: str):
        done = lora_lab("sweep", "--model", tiny_encoder, "--task", opinions, *fields, "--out", str(out), *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return run


@pytest.fixture
def collect(lora_lab, tmp_path):
    """`collect("--json")` returns the output of the command for the stores in tmp_path / "class"."""
    return lambda *words: lora_lab("collect", str(tmp_path / "class"), "--out", str(tmp_path / "all"), *words).stdout


def test_packs_have_the_size_given_and_only_again_retries_failed_runs(sweep, tmp_path):
    words = ["--seed", "0-3", "--pack", "2", "--json"]
    assert sweep(tmp_path, *words)["packs"] == [2, 2]
    (store := Store(tmp_path)).add(failed(store.runs()[0].recipe, "the disk was full"))
    found = [sweep(tmp_path, *words, *more) for more in ((), ("--again",))]
    assert [(one["packs"], one["failed"]) for one in found] == [([], 1), ([1], 0)]
    alone = sweep(tmp_path, "--rank", "1,2", "--seed", "7-8", "--solo", "--json")
    assert alone["packs"] == [1, 1, 1, 1]
    assert all(run["metrics"] for run in alone["runs"])


def test_choosing_sweep_reports_its_choice_and_savings(sweep, tmp_path):
    words = ["--lr", "1e-3,2e-3", "--seed", "0-1"]
    found = sweep(tmp_path, *words, "--choose", "--json")
    assert set(found) >= {"chosen", "rivals", "stopped", "saved", "regret_bound", "runs", "packs", "seconds"}
    assert set(found["chosen"]) == {"recipe", "metric", "validation", "test", "seeds", "runs"}
    assert set(found["saved"]) == {"steps", "of_steps", "tests", "of_tests", "seconds"}
    assert set(found["regret_bound"]) == {"points", "level", "from"}
    assert (found["stopped"], found["saved"]["of_steps"], sum(found["packs"])) == ([], 12, 4)
    assert 2 * (1 + len(found["rivals"])) == sum(bool(run["metrics"]) for run in found["runs"])
    again = sweep(tmp_path, *words, "--choose", "--json")
    assert (again["runs"], again["packs"], again["skipped"], again["failed"]) == (found["runs"], [], 4, 0)
    text = sweep(tmp_path, *words, "--halving")
    assert "chosen  lora, rank" in text
    assert "saved   0 of 12 steps" in text


def test_empty_share_has_nothing_to_do(sweep, tmp_path):
    words = ["--rank", "1,2", "--share", "3/40"]
    assert sweep(tmp_path, *words) == "share 3/40 of 2 runs is empty: nothing to do\n"
    found = sweep(tmp_path, *words, "--json")
    assert (found["runs"], found["packs"], found["skipped"], found["failed"]) == ([], [], 0, 0)


def test_shares_are_collected_into_a_table_and_a_picture(sweep, collect, tmp_path):
    for i in (1, 2):
        text = sweep(tmp_path / "class" / f"laptop{i}", "--rank", "1,2", "--alpha-rule", "2rank", "--share", f"{i}/2")
        assert "1 runs, 0 of them already stored; packs of 1;" in text
    text = collect()
    assert "2 runs in" in text
    assert "lora q,v 1 2 0.002" in " ".join(text.split())
    assert (tmp_path / "all" / "rank.png").stat().st_size > 10_000
    answer = json.loads(collect("--json"))
    assert (answer["runs"], answer["taken"], answer["repeated"], len(answer["frame"])) == (2, 0, 2, 2)


FEW, MANY = PromptTuning(tokens=4), PromptTuning(tokens=40)
ROWS = {  # the head of a table: fields and accuracies of runs, and the rows
    "method targets rank alpha lr seeds": (
        [({"method": FullFineTuning()}, 0.6), ({"method": LoRA(rank=1)}, 0.7)],
        {"full - - - 0.002 1 60.0 60.0", "lora q,v 1 16 0.002 1 70.0 70.0"},
    ),
    "method lr examples tokens seeds": (
        [({"method": FEW}, 0.6), ({"method": MANY, "examples": 50}, 0.5)]
        + [({"method": MANY, "seed": seed}, 0.8 + 0.1 * seed) for seed in (0, 1)],
        {"prompt 0.002 0 4 1 60.0 60.0", "prompt 0.002 0 40 2 85.0 80.0 90.0", "prompt 0.002 50 40 1 50.0 50.0"},
    ),
    "method targets rank alpha lr examples seeds": (  # each seed has its own draw of examples
        [({"method": LoRA(), "examples": 9, "subset": seed, "seed": seed}, 0.6 + 0.2 * seed) for seed in (0, 1)]
        + [({"method": LoRA(), "examples": 0}, 0.5)],
        {"lora q,v 8 16 0.002 0 1 50.0 50.0", "lora q,v 8 16 0.002 9 2 70.0 60.0 80.0"},
    ),
    "method targets rank alpha lr dora seeds": (
        [({"method": LoRA()}, 0.6), ({"method": LoRA(dora=True)}, 0.8)],
        {"lora q,v 8 16 0.002 False 1 60.0 60.0", "lora q,v 8 16 0.002 True 1 80.0 80.0"},
    ),
}


@pytest.mark.parametrize("head", ROWS)
def test_runs_in_a_table_row_differ_only_in_their_seed(collect, tmp_path, head):
    runs, rows = ROWS[head]
    for fields, accuracy in runs:
        Store(tmp_path / "class").add(made_run(Recipe("minilm", "rt", **fields), accuracy=accuracy))
    lines = [" ".join(line.split()) for line in collect().splitlines() if not line.startswith("picture")]
    assert lines[1].startswith(head)
    assert set(lines[2:]) == rows


def test_tasks_have_separate_tables_and_pictures(collect, tmp_path):
    for model, task, metrics in (("minilm", "rt", {"accuracy": 0.8}), ("smollm2", "kjv", {"perplexity": 9.0})):
        for recipe in Grid(rank=[1, 2]).recipes(model, task):
            Store(tmp_path / "class").add(made_run(recipe, **metrics))
    text = collect()
    tables = dict(re.findall(r"\d: (\w+) on \w+,.*\n((?:.+\n)+)", text))
    assert [part in tables["minilm"] for part in ("mean accuracy", "80.0", "9.0")] == [True, True, False]
    assert [part in tables["smollm2"] for part in ("mean perplexity", " 9.0", "80.0")] == [True, True, False]
    assert "nan" not in text
    assert (tmp_path / "all" / "rank_2.png").is_file()
