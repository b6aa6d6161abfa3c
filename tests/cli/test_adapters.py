"""`lora-lab inspect` and `merge`: one JSON object with the contract's fields, words for people, and exit codes."""

import json

from click.testing import CliRunner

from lora_course.experiments.broken import patient
from lora_lab import LoRA
from lora_lab.cli.adapters import inspect
from lora_lab.training.assets import shipped
from tests.training.test_merged import saved

SOUND = str(shipped("data/results/minilm-rt-r8"))
FIELDS = {"format", "rank", "alpha", "scaling", "targets", "parameters", "norms", "does_something", "problems"}


def told(*arguments: str) -> str:
    return CliRunner().invoke(inspect, arguments, catch_exceptions=False).stdout


def test_json_has_the_fields_of_the_contract():
    found = json.loads(told(SOUND, "--base", "minilm", "--json"))
    assert found.keys() >= FIELDS
    assert (found["rank"], found["alpha"], found["scaling"], found["targets"]) == (8, 16, 2.0, ["query", "value"])
    assert (found["parameters"], found["head"]) == (6 * 2 * 8 * 768, 770)
    assert found["does_something"] is True
    assert found["problems"] == []
    assert len(found["norms"]) == 12
    assert all(0.05 < norm["ratio"] < 0.5 for norm in found["norms"])
    assert json.loads(told(SOUND, "--json"))["does_something"] is None  # without a base it claims no effect


def test_a_file_that_cannot_be_read_is_an_answer_not_an_error(tmp_path):
    assert "problem: truncated file" in told(str(patient("D", tmp_path)), "--base", "minilm")
    found = json.loads(told(str(tmp_path / "D"), "--json"))
    assert found["format"] is None
    assert [problem["name"] for problem in found["problems"]] == ["truncated file"]
    assert found["problems"][0]["remedy"]


# ---- merge


def test_json_is_one_object_with_what_rounding_took(tmp_path, lora_lab):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=4))
    out = str(tmp_path / "out")
    done = lora_lab("merge", adapter, "--base", base, "--out", out, "--dtype", "bf16", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["out"] == out
    assert answer["loads_as"] == "AutoModelForSequenceClassification"
    assert answer["dtype"] == "bf16"
    assert answer["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert answer["merged"]["rounding"] > 0
    assert len(answer["merged"]["tensors"]) == 4
    assert "merge in fp32 to keep them" in answer["words"]
