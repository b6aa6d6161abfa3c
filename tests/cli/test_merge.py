"""`lora-lab merge` as others' scripts use it."""

from __future__ import annotations

import json

import pytest

from lora_lab import LoRA, save_adapter
from lora_lab.training.models import load_model
from tests.conftest import randomise, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def adapter(tmp_path) -> list[str]:
    """The first words of a command that merges a tiny adapter."""
    tiny("bert").save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"), 3)
    LoRA(rank=4).attach(model)
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    return ["merge", str(tmp_path / "adapter"), "--base", str(tmp_path / "base")]


def test_json_is_one_object_with_what_rounding_took(adapter, tmp_path, lora_lab):
    out = str(tmp_path / "out")
    done = lora_lab(*adapter, "--out", out, "--dtype", "bf16", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["out"] == out
    assert answer["loads_as"] == "AutoModelForSequenceClassification"
    assert answer["dtype"] == "bf16"
    assert answer["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert answer["merged"]["rounding"] > 0
    assert len(answer["merged"]["tensors"]) == 4
    assert "merge in fp32 to keep them" in answer["words"]


def test_in_words_it_says_how_to_load_it(adapter, tmp_path, lora_lab):
    done = lora_lab(*adapter, "--out", str(tmp_path / "out"))
    assert done.returncode == 0
    assert "rounds nothing beyond the sum itself" in done.stdout
    assert f'AutoModelForSequenceClassification.from_pretrained("{tmp_path / "out"}")' in done.stdout


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(["--out", "."], "is not empty"), ([], "Missing option '--out'"), (["--out", "x", "--dtype", "int5"], "int5")],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(adapter, more, sentence, tmp_path, monkeypatch, lora_lab):
    monkeypatch.chdir(tmp_path)
    done = lora_lab(*adapter, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
