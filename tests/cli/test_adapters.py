import json

import pytest

from lora_course.experiments.broken import patient
from lora_lab import LoRA
from lora_lab.training.assets import shipped
from tests.training.test_merged import saved

ADAPTER = str(shipped("data/results/minilm-rt-r8"))
KEYS = {"format", "rank", "alpha", "scaling", "targets", "parameters", "norms", "does_something", "problems"}


@pytest.fixture
def inspect(lora_lab):
    """`inspect(ADAPTER, "--json")`: the output of the command."""
    return lambda *words: lora_lab("inspect", *words).stdout


def test_inspect_json_describes_the_adapter(inspect):
    found = json.loads(inspect(ADAPTER, "--base", "minilm", "--json"))
    assert found.keys() >= KEYS
    assert (found["rank"], found["alpha"], found["scaling"], found["targets"]) == (8, 16, 2.0, ["query", "value"])
    assert (found["parameters"], found["head"]) == (6 * 2 * 8 * 768, 770)
    assert found["does_something"] is True
    assert found["problems"] == []
    assert len(found["norms"]) == 12
    assert all(0.05 < norm["ratio"] < 0.5 for norm in found["norms"])
    assert json.loads(inspect(ADAPTER, "--json"))["does_something"] is None  # unknown without a base


def test_inspect_reports_an_unreadable_file_as_a_problem(inspect, tmp_path):
    assert "problem: truncated file" in inspect(str(patient("D", tmp_path)), "--base", "minilm")
    found = json.loads(inspect(str(tmp_path / "D"), "--json"))
    assert found["format"] is None
    assert [problem["name"] for problem in found["problems"]] == ["truncated file"]
    assert found["problems"][0]["remedy"]


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
