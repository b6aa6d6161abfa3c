import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_course.experiments.broken import patient
from lora_lab import BadValue, LoRA, Store, __version__, workbench
from lora_lab.cli.shared import say
from lora_lab.training.assets import home, shipped
from tests.conftest import BWRAP, HOSTILE, MARK, ROOT, needs_bwrap, tiny
from tests.training.test_merged import saved

SHIPPED, README = shipped("data/results"), shipped("data/README.md")


@pytest.fixture
def command(lora_lab, tmp_path, monkeypatch):
    """`command("train", "--rank", "0")` runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lora_lab


BAD = {
    "trian": "No such command 'trian'",
    "train --rnak 4": "No such option",
    "train --steps many": "'many' is not a valid integer",
    "train --rank 385 --json": "rank 385 is above what bert.encoder.layer.0",
    "train --out l\udce4ufe": "is not valid UTF-8",
    "train --method lroa": "unknown method 'lroa'; known: lora",
    "train --rank-pattern =4": "--rank-pattern takes one rank",
    "train --alpha-pattern q=much": "--alpha-pattern takes one alpha",
    "train --rank-pattern q=4,q=8": "--rank-pattern takes one rank for each target",
    "gpu-check --out .": ". is a folder: add the name of a file in it",
    "train --max-length 513": "max_length 513 exceeds the 512 tokens",
    "evaluate": "Missing argument 'ADAPTER'",
    f"evaluate {'a' * 300}": "too long",
    f"train --model {'a' * 300}": "no model 'aaa",
    "train --model ~nobody/model": "no model '~nobody/model'",
    "train --task ~nobody/texts.csv": "no task or file '~nobody/texts.csv'",
    f"evaluate {SHIPPED}/minilm-rt-r8 --task kjv": "is a classifier",
    f"evaluate {SHIPPED}/minilm-rt-r8 --prompts 0": "0 is not in the range",
    f"inspect {SHIPPED}/rank_one": "such as ",
    "inspect nowhere": "there is no folder nowhere",
    f"merge {SHIPPED}/minilm-rt-r8": "Missing option '--out'",
    f"merge {SHIPPED}/minilm-rt-r8 --out x --dtype int5": "int5",
    "sweep --seed 0,3-1": "ascending ranges, such as 0-4, not '3-1'",
    "sweep --rank 1,x": "'x' is not a number",
    "sweep --share ''": "such as 3/40, not ''",
    f"show --out {SHIPPED}/coins.csv": "is a file",
    f"doctor --preflight --dir {SHIPPED}/coins.csv": "is a file",
    "sweep --alpha 8 --alpha-rule rank": "not both",
    "sweep --alpha-rule cubic": "unknown alpha rule",
    "sweep --choose --validations 0": "choose=True needs validation",
    "sweep --method bitfit --rank 2,4": "only lora has a grid of ranks, alphas and targets, not bitfit",
    "sweep --choose --share 1/2": "--choose needs the whole grid on one machine: omit --share",
    "compare --methods lora --steps 5 --minutes 5": "not both",
    "compare --methods lora --minutes inf": "not inf",
    "memory gpt2 --method prompt --tokens 20 --seq 1010": "exceeds the 1004 tokens",
    "memory gpt2 --inference --seq 1025": "exceeds the 1024 tokens",
    "memory minilm --num-labels 0": "0 is not in the range 1<=x<=100000",
    "params minilm --num-labels 0": "0 is not in the range 1<=x<=100000",
    "memory gpt2 --dtype nf4": "not 'nf4': for a 4-bit base, use --method qlora",
    "memory gpt2 --no-double-quant": "--double-quant is for --method qlora, not lora",
    "memory gpt2 --shard fsdp:²": "fsdp:8",
    "memory gpt2 --gpu-gb 24 --gpu 4090": "not both",
    "memory gpt2 --inference --trace": "omit --trace or --inference",
    "params gpt2 --rank 769": "at most 768",
    "demo --steps 0": "steps must be an integer",
    "fetch --from nowhere": "there is no folder",
    f"train --task {shlex.quote(HOSTILE)}": MARK,
    f"sweep --lr {shlex.quote(HOSTILE)}": MARK,
    "collect .": "there are no runs below .: pass the folders",
    "--dir lessons doctor": "unexpected extra argument (doctor)",
    "lab --port 70000": "70000 is not in the range",
    "claims 4 --set gpu_gb": "premise=value",
    "claims --set gpu_gb=48": "name one",
    "claims 70b": "nearest",
    "class nothing.txt": "nothing.txt",
    f"class {README}": "has no readable receipt",
    "grade nowhere.ipynb": "there is no notebook in",
    f"grade {README}": "README.md is not a notebook",
    f"grade {README} --csv .": ". is a folder: add the name of a file in it",
    "reproduce tabel6": "nearest: table6",
    "reproduce table6 --minutes inf": "such as 30, not inf",
    "reproduce table3 --scale paper": "--model-path",
    "reproduce table3 --scale paper --minutes 5": "--minutes belongs to --scale laptop",
    "reproduce table3 --scale paper --steps-limit 0": "'--steps-limit': 0",
    f"wheelhouse --check --out {SHIPPED}": "is not a wheelhouse",
}


def test_bad_input_is_one_sentence_and_writes_nothing(command, tmp_path):
    for words, sentence in BAD.items():
        done = command(*shlex.split(words))
        assert re.fullmatch(f"lora-lab: [^\x1b\n]*{re.escape(sentence)}[^\x1b\n]*\n", done.stderr), words
        assert (done.returncode, done.stdout) == (2, ""), words
        assert list(tmp_path.iterdir()) == [], words


def test_file_names_and_errors_cannot_control_a_terminal(command):
    tiny("gpt2").config.save_pretrained(HOSTILE)
    Path(HOSTILE, "0123456789ab.json").write_text("{}")
    outputs = [done.stdout + done.stderr for done in (command("params", HOSTILE), command("collect", HOSTILE))]
    outputs += BadValue(HOSTILE)._render_traceback_()  # what a notebook shows
    assert len(outputs) == 3
    for output in outputs:
        assert MARK in output
        assert "\x1b" not in output


def test_fetch_says_what_is_missing(command, monkeypatch, tmp_path):
    done = command("fetch")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("0 fetched, 5 already present")
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    done = command("fetch", "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert "minilm is missing" in done.stderr
    assert "kjv is missing" in done.stderr
    assert "run: lora-lab fetch" in done.stderr
    assert "tweets" not in done.stderr  # fetched only on request


def test_failing_run_exits_with_1(command, tmp_path, opinions, tiny_encoder):
    words = ["--model", tiny_encoder, "--task", opinions, "--lr", "1e30", "--steps", "9", "--clip", "0"]
    done = command("train", *words, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"the loss became \w+ at step \d: lower the rate \(lr was 1e\+30\)\n$", done.stderr)
    (record,) = Store(tmp_path / "runs").runs()
    assert (record.status, record.metrics, record.adapter) == ("failed", {}, None)
    assert record.error in done.stderr
    assert 1 <= len(record.history["step"]) < 9
    done = command("sweep", *words, "--out", "swept")
    assert done.returncode == 1
    assert "every run failed" in done.stderr


def test_interrupt_and_unexpected_error_are_one_line(command, monkeypatch):
    for error, code, message in (
        (KeyboardInterrupt(), 130, "\nstopped\n"),  # as shells expect; click starts a new line
        (RuntimeError("a bug"), 1, "lora-lab: RuntimeError: a bug (set LORA_LAB_DEBUG=1 to see the traceback)\n"),
    ):
        monkeypatch.setattr(workbench, "examine", Mock(side_effect=error))
        monkeypatch.setenv("LORA_LAB_DEBUG", "0")
        result = command("doctor")
        assert (result.returncode, result.stdout, result.stderr) == (code, "", message)


def test_home_folder_is_expanded_where_a_shell_does_not(command, monkeypatch, tmp_path):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for option in (["--csv=~/1.csv"], ["--csv", "~/2.csv"]):
        assert command("predictions", *option).returncode == 0
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["home", "1.csv", "2.csv"]


def test_messages_never_reach_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)  # closed, as with 2>&-
    say("a message")
    assert capsys.readouterr().out == ""


def test_help_version_and_facts_are_on_stdout(command):
    for words, output in (("--help", "Usage: "), ("train --help", "Usage: "), ("--version", __version__)):
        done = command(*words.split())
        assert (done.returncode, done.stderr) == (0, "")
        assert output in done.stdout
    done = command("doctor", "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"python", "torch", "device", "dtype", "attention", "threads", "memory_bytes", "assets"} <= facts.keys()
    assert facts["memory_bytes"] > 2**30
    assert {name for name, asset in facts["assets"].items() if asset["ok"]} >= {"minilm", "smollm2", "reviews"}


ADAPTER = str(shipped("data/results/minilm-rt-r8"))


def test_shell_completes_the_names_of_commands(command, monkeypatch):
    for name, value in {"_LORA_LAB_COMPLETE": "bash_complete", "COMP_WORDS": "lora-lab par", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    assert command().stdout == "plain,params\n"


def test_inspect_json_describes_the_adapter_or_what_makes_it_unreadable(lora_lab, tmp_path):
    found = json.loads(lora_lab("inspect", ADAPTER, "--base", "minilm", "--json").stdout)
    assert (found["rank"], found["alpha"], found["scaling"], found["targets"]) == (8, 16, 2.0, ["query", "value"])
    assert (found["format"], found["parameters"], found["head"]) == ("lora_lab", 6 * 2 * 8 * 768, 770)
    assert found["does_something"] is True
    assert found["problems"] == []
    assert len(found["norms"]) == 12
    assert all(0.05 < norm["ratio"] < 0.5 for norm in found["norms"])
    assert json.loads(lora_lab("inspect", ADAPTER, "--json").stdout)["does_something"] is None  # unknown without a base
    truncated = str(patient("D", tmp_path))
    assert "problem: truncated file" in lora_lab("inspect", truncated, "--base", "minilm").stdout
    found = json.loads(lora_lab("inspect", truncated, "--json").stdout)
    assert found["format"] is None
    assert [(problem["name"], bool(problem["remedy"])) for problem in found["problems"]] == [("truncated file", True)]


def test_merge_json_reports_the_rounding(tmp_path, lora_lab):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=4))
    out = str(tmp_path / "out")
    done = lora_lab("merge", adapter, "--base", base, "--out", out, "--dtype", "bf16", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert (answer["out"], answer["dtype"]) == (out, "bf16")
    assert answer["loads_as"] == "AutoModelForSequenceClassification"
    assert answer["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert answer["merged"]["rounding"] > 0
    assert len(answer["merged"]["tensors"]) == 4
    assert "merge in fp32 to keep their updates" in answer["words"]


RUN_COMMANDS = """
import sys, lora_course.cli
for words in sys.argv[1:]:
    sys.argv = ["lora-lab", *words.split()]
    print(f"\\n$ {words}", file=sys.stderr)
    try:
        lora_course.cli.main()
    except SystemExit as error:
        print(f"exit {error.code}", file=sys.stderr)
"""


@needs_bwrap
def test_commands_answer_or_explain_where_nothing_can_be_written(tiny_encoder, opinions, tmp_path):
    work, disk, scratch = (tmp_path / name for name in ("work", "disk", "scratch"))
    for folder in (work, disk, scratch):
        folder.mkdir()
    sandbox = [*BWRAP, "--bind", scratch, scratch, "--size", "3000000", "--tmpfs", disk, "--chdir", work]
    paths = {"HOME": work, "XDG_CACHE_HOME": work, "LORA_LAB_HOME": home(), "TMPDIR": scratch, "PYTHONPATH": ROOT}
    env = os.environ | {name: str(path) for name, path in paths.items()}
    run = f"--model {tiny_encoder} --task {opinions} --steps 2 --rank 1"
    answered = ["doctor --json", "params minilm --json", "memory minilm --rank 3 --seq 77 --json"]
    refused = [f"train {run}", f"sweep {run}", f"train {run} --out {disk}"]
    command = [*sandbox, sys.executable, "-c", RUN_COMMANDS, *answered, *refused]  # one process, which imports once
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    messages = [block.splitlines()[1:] for block in done.stderr.split("\n$ ")[1:]]
    assert messages[:3] == [["exit 0"]] * 3
    assert [len(json.loads(line)) > 5 for line in done.stdout.splitlines()] == [True] * 3
    for (sentence, *rest), reason in zip(messages[3:], ("Read-only", "Read-only", "No space left"), strict=True):
        assert sentence.startswith("lora-lab: cannot write into ")
        assert reason in sentence
        assert rest == ["exit 2"]
    assert not any(work.iterdir())
