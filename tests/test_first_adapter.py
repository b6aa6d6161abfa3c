import json
import subprocess
import sys

import numpy as np
import pytest
from peft import PeftModel

from lora_lab import load_adapter, load_model, load_task, load_tokenizer
from lora_lab.training.batches import encode
from lora_lab.training.evaluate import evaluate

OPTIONS = "--model minilm --task rt --method lora --rank 8 --alpha 16 --targets q,v --lr 2e-3 --steps 400 --batch 16"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The output of `lora-lab train ... --json`. Validation is off, because it would take a third of the time."""
    command = [sys.executable, "-m", "lora_lab", "train", *OPTIONS.split(), "--validations", "0", "--json", "--out"]
    result = subprocess.run([*command, tmp_path_factory.mktemp("store")], capture_output=True, text=True, check=True)
    assert result.stdout.count("\n") == 1  # one object and nothing else
    return json.loads(result.stdout)


def test_training_reaches_79_percent_with_73728_adapter_parameters(run: dict):
    assert run.keys() >= {"adapter", "total", "seconds", "environment"}
    assert run["recipe"]["method"].items() >= {"name": "lora", "rank": 8, "targets": ["q", "v"]}.items()
    assert run["metrics"]["accuracy"] >= 0.79
    assert (run["adapter_parameters"], run["head_parameters"], run["trainable"]) == (73_728, 770, 74_498)
    assert run["status"] == "done"
    assert run["peak_bytes"] > 0
    assert run["history"]["step"] == list(range(1, 401))


def test_saved_adapter_gives_the_same_answers_in_peft(run: dict):
    task, tokenizer = load_task("rt"), load_tokenizer("minilm")
    in_peft = PeftModel.from_pretrained(load_model("minilm", num_labels=2), run["adapter"]).eval()
    in_lab = load_model("minilm", num_labels=2)
    load_adapter(in_lab, run["adapter"])
    rows = encode(task.test.at(range(100)), task, tokenizer)
    expected, actual = (evaluate(model, rows, tokenizer.pad_token_id) for model in (in_peft, in_lab))
    assert np.allclose(actual.by_row, expected.by_row, atol=1e-5)  # on an fp32 base
