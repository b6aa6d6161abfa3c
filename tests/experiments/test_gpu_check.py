"""Tests of `lora-lab gpu-check` on a CPU: every part measures something, and an error ends only its part."""

import pytest

from lora_lab import BadValue
from lora_lab.experiments import gpu_check as module
from lora_lab.experiments.gpu_check import gpu_check, memory_rows, step_rows
from lora_lab.training import device

CASE = "QLoRA, checkpointing"


def test_parts_measure_and_a_failing_part_ends_alone(monkeypatch, tiny_encoder, opinions):
    monkeypatch.setattr(module, "CASES", {CASE: module.CASES[CASE]})
    monkeypatch.setattr(module, "memory_rows", lambda where, _: memory_rows(where, [tiny_encoder], batch=2, seq=64))
    monkeypatch.setattr(module, "step_rows", lambda where, names: step_rows(where, names, repeats=1))
    monkeypatch.setattr(module, "compare", lambda *_, **__: 1 / 0)
    messages: list[str] = []
    found = gpu_check("cpu", models=("minilm",), packs=(1, 2), steps=2, task=opinions, say=messages.append)
    assert [row["case"] for row in found["memory"]] == [CASE]
    assert 0.98 < found["memory"][0]["ratio"] < 1.02
    assert found["step"][0]["ratio"] > 0
    assert [(row["runs"], row["failed"]) for row in found["packs"]] == [(1, 0), (2, 0)]
    assert [row.get("what", "error") for row in found["runs"]] == ["train", "error"]
    assert found["environment"]["device"] == "cpu"
    assert len(messages) == sum(len(found[part]) for part in ("memory", "step", "packs", "runs"))


def test_models_that_do_not_fit_are_left_out(monkeypatch, tiny_encoder):
    monkeypatch.setattr(module, "free_bytes", lambda where: 2**16)
    assert {row["left out"] for row in memory_rows("cpu", [tiny_encoder], seq=64)} == {"not enough free memory"}


def test_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(device, "available_devices", lambda: ["cpu"])
    with pytest.raises(BadValue, match="no cuda device"):
        gpu_check()
