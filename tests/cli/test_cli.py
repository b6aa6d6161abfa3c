"""The command line: one sentence for every bad input, one JSON object for --json, and the contract's keys."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_lab import __version__, workbench
from lora_lab.training.assets import shipped
from tests.cli.conftest import Done

SHIPPED = shipped("data/results")


@pytest.fixture
def command(lora_lab, tmp_path, monkeypatch) -> Callable[..., Done]:
    """`command("train", "--rank", "0")`: the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lora_lab


@pytest.fixture
def opinions(tmp_path_factory) -> str:
    """A small task of one's own, so that scoring takes a moment."""
    file = tmp_path_factory.mktemp("task") / "opinions.csv"
    rows = [f"opinion number {n} is {('bad', 'good')[n % 2]},{n % 2}" for n in range(40)]
    file.write_text("\n".join(["text,label", *rows]))
    return str(file)


def process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in a process of its own."""
    return subprocess.run([sys.executable, "-m", "lora_lab", *arguments], capture_output=True, text=True, cwd=folder)


BAD = {
    "unknown command": (["trian"], "No such command 'trian'"),
    "unknown option": (["train", "--rnak", "4"], "No such option"),
    "a word for a number": (["train", "--steps", "many"], "'many' is not a valid integer"),
    "a port that is none": (["lab", "--port", "70000"], "70000 is not in the range"),
    "rank 0": (["train", "--rank", "0"], "rank must be a whole number of at least 1, not 0"),
    "a rank above the layer": (["train", "--rank", "385"], "rank 385 is above what bert.encoder.layer.0"),
    "alpha 0": (["train", "--alpha", "0"], "alpha must be a number above 0"),
    "alpha not a number": (["train", "--alpha", "nan"], "alpha must be a number above 0"),
    "a target that matches nothing": (["train", "--targets", "querry"], "'querry' matches no layer of this model"),
    "a target that matches in part": (["train", "--targets", "q,gate"], "'gate' matches no layer of this model"),
    "no target": (["train", "--targets", ","], "targets is empty"),
    "dropout 1": (["train", "--lora-dropout", "1"], "dropout must be at least 0 and below 1"),
    "unknown init": (["train", "--init", "xavier"], "init must be one of kaiming, gaussian"),
    "two starts": (["train", "--init", "pissa", "--dora"], "leave one of them out"),
    "a ratio of nothing": (["train", "--lr-ratio", "0"], "lr_ratio must be a number above 0"),
    "a variant on an embedding": (["train", "--freeze-a", "--targets", "q,embed"], "freeze_a is for linear layers"),
    "unknown method": (["train", "--method", "lroa"], "unknown method 'lroa'; known: lora"),
    "rate 0": (["train", "--lr", "0"], "lr must be above 0"),
    "a rate that is no number": (["train", "--lr", "nan"], "lr must be a number"),
    "no steps": (["train", "--steps", "0"], "steps must be a whole number of at least 1"),
    "no batch": (["train", "--batch", "-2"], "batch must be a whole number of at least 1"),
    "a negative seed": (["train", "--seed", "-1"], "seed must be a whole number of at least 0"),
    "negative clipping": (["train", "--clip", "-1"], "clip must be a number from 0"),
    "unknown model": (["train", "--model", "minilmm"], "no model 'minilmm' on this machine; give a bundled one"),
    "a folder without a model": (["train", "--model", "."], "the folder . holds no model"),
    "unknown task": (["train", "--task", "rtt"], "no task or file 'rtt'; give rt, imdb"),
    "an encoder for a language": (["train", "--task", "kjv"], "needs a causal model such as smollm2"),
    "texts too long": (["train", "--max-length", "513"], "max_length 513 is above the 512 tokens"),
    "texts of nothing": (["train", "--max-length", "1"], "max_length must be at least 4"),
    "unknown device": (["train", "--device", "tpu"], "device must be one of cuda, mps, cpu"),
    "unknown dtype": (["train", "--dtype", "fp8"], "dtype must be one of fp32, bf16, fp16"),
    "unknown attention": (["train", "--attention", "flash"], "attention must be one of eager, sdpa"),
    "a store that cannot be": (["train", "--steps", "1", "--out", "/dev/null/runs"], "cannot write into /dev/null"),
    "no adapter given": (["evaluate"], "Missing argument 'ADAPTER'"),
    "no adapter there": (["evaluate", "nowhere"], "nowhere is not an adapter: it holds no adapter_config.json"),
    "a folder of adapters": (["inspect", f"{SHIPPED}/rank_one"], "such as "),
    "a classifier": (["evaluate", f"{SHIPPED}/minilm-rt-r8", "--task", "kjv"], "is a classifier"),
    "no steps in the demo": (["demo", "--steps", "0"], "steps must be a whole number"),
    "nowhere to fetch from": (["fetch", "--from", "nowhere"], "there is no folder"),
    "nothing to collect": (["collect", "."], "there are no runs below .: give the folders"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_on_stderr_exit_2_and_nothing_written(command, tmp_path, arguments, sentence):
    for extra in ([], ["--json"]) if arguments[0] == "train" and "--rank" in arguments else ([],):
        answer = command(*arguments, *extra)
        assert sentence in answer.stderr
        assert answer.stderr.startswith("lora-lab: ")
        assert answer.stderr.count("\n") == 1
        assert (answer.returncode, answer.stdout) == (2, "")
        assert list(tmp_path.iterdir()) == []


def test_a_missing_asset_is_one_sentence_that_names_the_command(command, monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    answer = command("train")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "lora-lab: the asset 'reviews' is missing; run: lora-lab fetch\n"


def test_verifying_an_empty_home_fails_and_names_the_command(command, monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    answer = command("fetch", "--check")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "minilm is missing" in answer.stderr
    assert "kjv is missing" in answer.stderr
    assert "run: lora-lab fetch" in answer.stderr
    assert "tweets" not in answer.stderr  # opt-in


def test_fetching_what_is_there_does_nothing(command):
    answer = command("fetch")
    assert (answer.returncode, answer.stdout) == (0, "")
    assert answer.stderr.startswith("0 fetched, 5 already present")


def test_what_fails_on_the_way_is_exit_1(command, tmp_path, opinions):
    answer = command("train", "--task", opinions, "--lr", "1e30", "--steps", "3", "--json")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "lower the rate (lr was 1e+30)" in answer.stderr
    (record,) = (tmp_path / "runs").glob("*.json")
    assert json.loads(record.read_text())["status"] == "failed"


def test_an_interrupt_says_so_and_exits_as_shells_expect(command, monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workbench, "examine", interrupted)
    answer = command("doctor")
    assert (answer.returncode, answer.stdout, answer.stderr.strip()) == (130, "", "stopped")


def test_an_error_of_ours_is_one_line_that_says_how_to_see_more(command, monkeypatch):
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(workbench, "examine", broken)
    answer = command("doctor")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "lora-lab: RuntimeError: a bug (LORA_LAB_DEBUG=1 shows where)\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_and_version_go_to_stdout(command, arguments):
    answer = command(*arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert (__version__ if arguments == ["--version"] else "Usage: ") in answer.stdout


def test_doctor_prints_the_contracts_keys_as_one_json_object(tmp_path):
    answer = process("doctor", "--json", folder=tmp_path)
    facts = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert {"python", "torch", "device", "dtype", "attention", "threads", "memory_bytes", "assets"} <= facts.keys()
    assert facts["memory_bytes"] > 2**30
    assert {name for name, asset in facts["assets"].items() if asset["ok"]} >= {"minilm", "smollm2", "reviews"}


def test_doctor_says_the_same_for_a_person(command):
    answer = command("doctor")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "trains on" in answer.stdout
    assert "minilm" in answer.stdout


def test_train_prints_a_run_as_one_json_object_and_evaluate_agrees(tmp_path, command, opinions):
    options = "--model minilm --method lora --rank 8 --alpha 16 --targets q,v --lr 2e-3 --steps 3 --batch 16 --seed 0"
    answer = process("train", *options.split(), "--task", opinions, "--out", "store", "--json", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    run = json.loads(answer.stdout)  # one object and nothing else
    assert answer.stdout.count("\n") == 1
    wanted = "recipe metrics history adapter_parameters head_parameters trainable total seconds peak_bytes adapter"
    assert {*wanted.split(), "environment"} <= run.keys()
    assert (run["adapter_parameters"], run["head_parameters"], run["trainable"]) == (73_728, 770, 74_498)
    assert run["history"]["step"] == [1, 2, 3]
    assert run["recipe"]["method"] == {**run["recipe"]["method"], "name": "lora", "rank": 8, "targets": ["q", "v"]}
    assert (tmp_path / run["adapter"] / "adapter_model.safetensors").is_file()
    again = command("evaluate", run["adapter"], "--task", opinions, "--json")
    assert json.loads(again.stdout)["metrics"] == pytest.approx(run["metrics"])


@pytest.mark.parametrize(
    ("words", "trains"), [("--dora --lr-ratio 4", 73_728 + 12 * 384), ("--init pissa", 73_728), ("--freeze-a", 36_864)]
)
def test_a_variant_of_lora_trains_and_its_adapter_scores_the_same(command, opinions, words, trains):
    options = ["--steps", "2", "--validations", "1", "--task", opinions, "--out", "store", "--json"]
    run = json.loads(command("train", *words.split(), *options).stdout)
    assert run["adapter_parameters"] == trains
    again = command("evaluate", run["adapter"], "--task", opinions, "--json")
    assert json.loads(again.stdout)["metrics"] == pytest.approx(run["metrics"])
