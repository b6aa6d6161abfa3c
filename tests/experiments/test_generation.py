"""A model's answers scored: before and after training on a tiny model, and from the command line."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from lora_lab import LoRA, load_model, load_task, save_adapter
from lora_lab.cli import commands
from lora_lab.errors import BadValue
from lora_lab.experiments.generation import score_answers
from lora_lab.experiments.text_scores import NAMES


def test_a_task_without_meanings_is_refused(opinions):
    with pytest.raises(BadValue, match="has no meanings to put into sentences"):
        score_answers(None, None, load_task(opinions))
    with pytest.raises(BadValue, match="prompts must be at least 1"):
        score_answers(None, None, load_task("restaurants"), prompts=0)


def test_evaluate_prints_slot_errors_beside_perplexity(tiny_causal, tmp_path):
    model = load_model(tiny_causal)
    LoRA(rank=2).attach(model)
    save_adapter(model, tmp_path / "adapter")
    (tmp_path / "test.txt").write_text("name : Quince | area : riverside||Quince is by the river .\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("name : Fable | food : Thai||Fable is Thai .\n", encoding="utf-8")
    plain = ["--model", tiny_causal, "--dtype", "fp32", "--attention", "eager", "--device", "cpu", "--prompts", "2"]
    found = CliRunner().invoke(
        commands, ["evaluate", str(tmp_path / "adapter"), "--task", str(tmp_path), *plain, "--json"],
        catch_exceptions=False, standalone_mode=False,
    )  # fmt: skip
    metrics = json.loads(found.stdout)["metrics"]
    assert set(metrics) == {"perplexity", "loss", "n", "slot_errors", *NAMES}
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["n"] == 1
    assert metrics["slot_errors"] >= 1
