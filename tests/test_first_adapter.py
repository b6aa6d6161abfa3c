"""The command of the README, as a user types it: a real adapter, good enough, and the same in PEFT."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel

from lora_lab import load_adapter, load_model, load_task, load_tokenizer
from lora_lab.training.batches import encode
from lora_lab.training.evaluate import evaluate

OPTIONS = [
    "--model", "minilm", "--task", "rt", "--method", "lora", "--rank", "8", "--alpha", "16", "--targets", "q,v",
    "--lr", "2e-3", "--steps", "400",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What `lora-lab train ... --json` prints."""
    out = tmp_path_factory.mktemp("store")
    command = [sys.executable, "-m", "lora_lab", "train", *OPTIONS, "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_it_reaches_79_per_cent_on_held_out_sentences_with_73728_parameters(run: dict):
    assert run["metrics"]["accuracy"] >= 0.79
    assert run["adapter_parameters"] == 73_728
    assert run["head_parameters"] == 770
    assert run["trainable"] == 74_498
    assert run["status"] == "done"
    assert run["peak_bytes"] > 0
    start, *_, end = run["history"]["validation"]
    assert start["step"] == 0
    assert start["accuracy"] < 0.6 < end["accuracy"]


def test_the_saved_adapter_has_the_same_accuracy_in_peft(run: dict):
    """Both on an fp32 base, where both compute the same: every row's logits agree, and so does the accuracy."""
    task, tokenizer = load_task("rt"), load_tokenizer("minilm")
    rows = encode(task.test, task, tokenizer)
    theirs = PeftModel.from_pretrained(load_model("minilm", num_labels=2), run["adapter"]).eval()
    ours = load_model("minilm", num_labels=2)
    load_adapter(ours, run["adapter"])
    score, own = (evaluate(model, rows, tokenizer.pad_token_id) for model in (theirs, ours))
    assert np.allclose(score.by_row, own.by_row, atol=1e-5)
    assert score.metrics["accuracy"] == own.metrics["accuracy"]
    # The run was scored on the base's dtype of this machine: on bf16 a row on the fence may fall to the other side.
    assert abs(score.metrics["accuracy"] - run["metrics"]["accuracy"]) * len(task.test) <= 6


def test_evaluate_finds_the_same_accuracy_again(run: dict):
    command = [sys.executable, "-m", "lora_lab", "evaluate", run["adapter"], "--task", "rt", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"metrics": run["metrics"]}
    assert Path(run["adapter"], "adapter_config.json").is_file()
