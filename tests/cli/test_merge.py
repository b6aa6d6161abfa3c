"""`lora-lab merge` as others' scripts use it."""

from __future__ import annotations

import json
import sys

import pytest

from lora_lab import LoRA, cli, save_adapter
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


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["lora-lab", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return (done.value.code or 0, *capsys.readouterr())


def test_json_is_one_object_with_what_rounding_took(adapter, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "out")
    code, printed, _ = run(monkeypatch, capsys, *adapter, "--out", out, "--dtype", "bf16", "--json")
    answer = json.loads(printed)
    assert code == 0
    assert answer["out"] == out
    assert answer["loads_as"] == "AutoModelForSequenceClassification"
    assert answer["dtype"] == "bf16"
    assert answer["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert answer["merged"]["rounding"] > 0
    assert len(answer["merged"]["tensors"]) == 4
    assert "merge in fp32 to keep them" in answer["words"]


def test_in_words_it_says_how_to_load_it(adapter, tmp_path, monkeypatch, capsys):
    code, printed, _ = run(monkeypatch, capsys, *adapter, "--out", str(tmp_path / "out"))
    assert code == 0
    assert "rounds nothing beyond the sum itself" in printed
    assert f'AutoModelForSequenceClassification.from_pretrained("{tmp_path / "out"}")' in printed


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(["--out", "."], "is not empty"), ([], "Missing option '--out'"), (["--out", "x", "--dtype", "int5"], "int5")],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(adapter, more, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, printed, said = run(monkeypatch, capsys, *adapter, *more)
    assert (code, printed) == (2, "")
    assert sentence in said
    assert said.count("\n") == 1
