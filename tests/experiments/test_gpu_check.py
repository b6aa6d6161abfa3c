"""`lora-lab gpu-check`, as far as a CPU can do it: every part measures something, and an error ends only its part."""

from functools import partial

import pytest

from lora_lab import BadValue
from lora_lab.experiments import gpu_check as module
from lora_lab.experiments.gpu_check import gpu_check, memory_rows
from lora_lab.training import device


@pytest.fixture(autouse=True)
def one_case(monkeypatch):
    monkeypatch.setattr(module, "CASES", {name: module.CASES[name] for name in ("QLoRA, checkpointing",)})


def test_every_part_measures_and_one_that_fails_ends_alone(monkeypatch, opinions):
    monkeypatch.setattr(module, "compare", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(module, "step_rows", partial(module.step_rows, repeats=1))
    monkeypatch.setattr(module, "memory_rows", partial(memory_rows, batch=2, seq=64))
    said: list[str] = []
    found = gpu_check("cpu", models=("minilm",), packs=(1, 2), steps=2, task=opinions, say=said.append)
    assert [row["case"] for row in found["memory"]] == list(module.CASES)
    assert all(0.98 < row["ratio"] < 1.02 for row in found["memory"])
    assert found["step"][0]["ratio"] > 0
    assert [(row["runs"], row["failed"]) for row in found["packs"]] == [(1, 0), (2, 0)]
    assert [row.get("what", "error") for row in found["runs"]] == ["train", "error"]
    assert found["environment"]["device"] == "cpu"
    assert len(said) == sum(len(found[part]) for part in ("memory", "step", "packs", "runs"))


def test_what_does_not_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda where: 2**20)
    assert {row["left out"] for row in memory_rows("cpu", ["minilm"])} == {"not enough free memory"}


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(device, "available_devices", lambda: ["cpu"])
    with pytest.raises(BadValue, match="no cuda device"):
        gpu_check()
