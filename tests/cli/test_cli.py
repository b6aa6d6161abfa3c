"""The command line: one sentence for every bad input, one JSON object for --json, and the contract's keys."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_lab import __version__, workbench
from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped
from tests.conftest import HOSTILE, MARK, Done, tiny

SHIPPED, README = shipped("data/results"), shipped("data/README.md")


@pytest.fixture
def command(lora_lab, tmp_path, monkeypatch) -> Callable[..., Done]:
    """`command("train", "--rank", "0")`: the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lora_lab


BAD = {
    "trian": "No such command 'trian'",
    "train --rnak 4": "No such option",
    "train --steps many": "'many' is not a valid integer",
    "train --rank 385 --json": "rank 385 is above what bert.encoder.layer.0",
    "train --targets q,gate": "'gate' matches no layer of this model",
    "train --method lroa": "unknown method 'lroa'; known: lora",
    "train --rank-pattern =4": "--rank-pattern needs target=rank",
    "train --alpha-pattern q=much": "--alpha-pattern needs target=alpha",
    "train --model minilmm": "no model 'minilmm' on this machine; pass a bundled one",
    "train --model .": "the folder . contains no model",
    "train --task rtt": "no task or file 'rtt'; pass rt, imdb",
    "train --max-length 513": "max_length 513 exceeds the 512 tokens",
    "train --max-length 1": "max_length must be an integer of at least 4",
    "train --steps 1 --out /dev/null/runs": "cannot write into /dev/null",
    "evaluate": "Missing argument 'ADAPTER'",
    "evaluate nowhere": "nowhere is not an adapter: it has no adapter_config.json",
    f"evaluate {SHIPPED}/minilm-rt-r8 --task kjv": "is a classifier",
    f"inspect {SHIPPED}/rank_one": "such as ",
    f"merge {SHIPPED}/minilm-rt-r8": "Missing option '--out'",
    f"merge {SHIPPED}/minilm-rt-r8 --out x --dtype int5": "int5",
    "sweep --rank ''": "--rank is empty",
    "sweep --rank 1,x": "'x' is not a number",
    "sweep --alpha 8 --alpha-rule rank": "not both",
    "sweep --alpha-rule cubic": "unknown alpha rule",
    "sweep --examples 9999": "training texts, not 9,999",
    "sweep --choose --validations 0": "choose needs validation",
    "sweep --method bitfit --rank 2,4": "for bitfit give rates",
    "compare --methods lora --steps 5 --minutes 5": "not both",
    "compare --methods lora --minutes inf": "not inf",
    "memory lama-3-8b": "llama-3-8b",
    "memory gpt2 --method prompt --tokens 20 --seq 1010": "exceeds the 1004 tokens",
    "memory gpt2 --method prefix --tokens 20 --seq 1010": "exceeds the 1004 tokens",
    "memory gpt2 --inference --seq 1025": "exceeds the 1024 tokens",
    "memory minilm --num-labels 0": "0 is not in the range x>=1",
    "memory gpt2 --dtype nf4": "not 'nf4': for a 4-bit base use --method qlora",
    "memory gpt2 --no-double-quant": "--double-quant is for --method qlora, not lora",
    "memory gpt2 --shard fsdp:²": "fsdp:8",
    "memory gpt2 --gpu-gb 24 --gpu 4090": "not both",
    "memory bert-base --inference": "is not a causal language model",
    "memory gpt2 --inference --trace": "omit --trace or --inference",
    "params gpt2 --rank 769": "at most 768",
    "params gpt2 --num-labels -1": "num_labels",
    "demo --steps 0": "steps must be an integer",
    "fetch --from nowhere": "there is no folder",
    f"train --task {shlex.quote(HOSTILE)}": MARK,
    f"sweep --lr {shlex.quote(HOSTILE)}": MARK,
    "collect .": "there are no runs below .: pass the folders",
    "lab --port 70000": "70000 is not in the range",
    "claims 4 --set gpu_gb": "premise=value",
    "claims --set gpu_gb=48": "name one",
    "claims 70b": "nearest",
    "class nothing.txt": "nothing.txt",
    f"class {README}": "has no readable receipt",
    "grade nowhere.ipynb": "there is no notebook in",
    f"grade {README}": "README.md is not a notebook",
    "reproduce tabel6": "nearest: table6",
    "reproduce table3 --scale paper": "--model-path",
    "reproduce table3 --scale paper --minutes 5": "--minutes belongs to --scale laptop",
    "reproduce table3 --scale paper --steps-limit 0": "'--steps-limit': 0",
    f"wheelhouse --check --out {SHIPPED}": "is not a wheelhouse",
}


@pytest.mark.parametrize("name", dict.fromkeys(words.split()[0] for words in BAD))
def test_bad_input_is_one_sentence_on_stderr_exit_2_and_nothing_written(command, tmp_path, name):
    for words, sentence in BAD.items():
        if words.split()[0] == name:
            answer = command(*shlex.split(words))
            assert re.fullmatch(f"lora-lab: [^\x1b\n]*{re.escape(sentence)}[^\x1b\n]*\n", answer.stderr), words
            assert (answer.returncode, answer.stdout) == (2, ""), words
            assert list(tmp_path.iterdir()) == [], words


def test_the_name_of_a_file_cannot_command_a_terminal(command):
    tiny("gpt2").config.save_pretrained(HOSTILE)
    Path(HOSTILE, "0123456789ab.json").write_text("{}")
    for name in ("params", "collect"):
        answer = command(name, HOSTILE)
        assert MARK in answer.stdout + answer.stderr
        assert "\x1b" not in answer.stdout + answer.stderr


def test_nor_can_an_error_in_a_notebook():
    (text,) = BadValue(HOSTILE)._render_traceback_()
    assert MARK in text
    assert "\x1b" not in text


def test_fetch_says_what_is_there_and_what_is_missing(command, monkeypatch, tmp_path):
    answer = command("fetch")
    assert (answer.returncode, answer.stdout) == (0, "")
    assert answer.stderr.startswith("0 fetched, 5 already present")
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    answer = command("fetch", "--check")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "minilm is missing" in answer.stderr
    assert "kjv is missing" in answer.stderr
    assert "run: lora-lab fetch" in answer.stderr
    assert "tweets" not in answer.stderr  # opt-in


def test_what_fails_on_the_way_is_exit_1(command, tmp_path, opinions, tiny_encoder):
    words = ["--model", tiny_encoder, "--task", opinions, "--lr", "1e30", "--steps", "9", "--clip", "0", "--json"]
    answer = command("train", *words)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "lower the rate (lr was 1e+30)" in answer.stderr
    (record,) = (tmp_path / "runs").glob("*.json")
    assert json.loads(record.read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "\nstopped\n"),  # as shells expect; click begins a line of its own
        (RuntimeError("a bug"), 1, "lora-lab: RuntimeError: a bug (LORA_LAB_DEBUG=1 shows where)\n"),
    ],
)
def test_an_interrupt_and_an_error_of_ours_are_one_line(command, monkeypatch, raised, code, said):
    monkeypatch.setattr(workbench, "examine", Mock(side_effect=raised))
    assert command("doctor") == Done(code, "", said)


def test_help_and_version_go_to_stdout(command):
    for words, said in (("--help", "Usage: "), ("train --help", "Usage: "), ("--version", __version__)):
        answer = command(*words.split())
        assert (answer.returncode, answer.stderr) == (0, "")
        assert said in answer.stdout


def test_doctor_prints_the_contracts_keys_as_one_json_object(command):
    answer = command("doctor", "--json")
    facts = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert {"python", "torch", "device", "dtype", "attention", "threads", "memory_bytes", "assets"} <= facts.keys()
    assert facts["memory_bytes"] > 2**30
    assert {name for name, asset in facts["assets"].items() if asset["ok"]} >= {"minilm", "smollm2", "reviews"}
