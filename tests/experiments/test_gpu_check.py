import pytest

from lora_lab.experiments import gpu_check as module
from lora_lab.experiments.gpu_check import gpu_check, memory_rows
from lora_lab.training import device
from tests.conftest import assert_raises


def test_parts_measure_and_a_failing_part_ends_alone(monkeypatch, tiny_encoder, opinions):
    case = "QLoRA, checkpointing"
    small = {"MODELS": (tiny_encoder,), "BATCH": 2, "SEQ": 64, "CASES": {case: module.CASES[case]}, "REPEATS": 1}
    for name, value in {**small, "TIMED": ("minilm",), "PACKS": (2,), "TASK": opinions, "STEPS": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "compare", lambda *_, **__: 1 / 0)
    messages: list[str] = []
    found = gpu_check("cpu", messages.append)
    assert [row["case"] for row in found["memory"]] == [case]
    assert 0.98 < found["memory"][0]["ratio"] < 1.02
    (step,) = found["step"]
    assert step["ratio"] == pytest.approx(step["ours"] / step["peft"], abs=0.01)  # in this order
    assert [(row["runs"], row["failed"]) for row in found["packs"]] == [(2, 0)]
    assert [row.get("what", "error") for row in found["runs"]] == ["train", "error"]
    assert found["environment"]["device"] == "cpu"
    assert len(messages) == sum(len(found[part]) for part in ("memory", "step", "packs", "runs"))


def test_models_that_do_not_fit_are_left_out_and_a_missing_gpu_is_refused(monkeypatch, tiny_encoder):
    for name, value in {"free_bytes": lambda where: 2**16, "MODELS": (tiny_encoder,), "SEQ": 64}.items():
        monkeypatch.setattr(module, name, value)
    assert {row["left out"] for row in memory_rows("cpu")} == {"not enough free memory"}
    monkeypatch.setattr(device, "available_devices", lambda: ["cpu"])
    assert_raises("no cuda device", gpu_check)
