"""The Monday plan names its lessons, and its script runs: on tiny random models, a classifier and a language model."""

import csv
import re
import runpy
from pathlib import Path

import pytest

from lora_course.monday import plan
from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped


def written(path: Path, kind: str, rows: int = 60) -> Path:
    heads = {"classifier": ("text", "label"), "language model": ("prompt", "completion")}[kind]
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as Excel saves it
        lines = csv.writer(file)
        lines.writerow(heads)
        for n in range(rows):
            lines.writerow((f"row {n} is {'good' if n % 2 else 'bad'}", "yes" if n % 2 else "no"))
    return path


@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_the_script_trains_saves_and_checks_an_adapter(kind, tmp_path, tiny_encoder, tiny_causal, monkeypatch, capsys):
    model = tiny_encoder if kind == "classifier" else tiny_causal
    job = plan(model, written(tmp_path / "rows.csv", kind), gpu_gb=16, out=str(tmp_path / "adapter"))
    job.settings["RATES"] = [1e-3, 4e-3, 1.6e-2]  # two layers of random weights learn slowly
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(job.write(tmp_path / "train.py")), run_name="__main__")
    said = capsys.readouterr().out
    assert said.count("validation loss") == 3
    assert "B is not zero, answers change" in said
    assert ("always the same label" if kind == "classifier" else "without the adapter") in said
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    if kind == "language model":
        tuned, base = map(float, re.findall(r"perplexity ([\d.]+), without the adapter ([\d.]+)", said)[0])
        assert tuned < base


def test_every_line_names_a_lesson_that_is_there(tmp_path):
    job = plan("llama-3-8b", written(tmp_path / "rows.csv", "language model"), gpu_gb=16)
    there = {path.name[:2] for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    assert all(set(re.findall(r"\d\d", lesson)) <= there and lesson for *_, lesson in job.lines)
    assert job.settings["FOUR_BITS"]
    assert "FOUR_BITS = True  #" in job.script()
    assert not plan("llama-3-8b", tmp_path / "rows.csv", gpu_gb=24).settings["FOUR_BITS"]


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [("minilm", "language model", "cannot write completions"), ("llama-2-70b", "classifier", "even QLoRA")],
)
def test_an_impossible_job_is_one_sentence(model, kind, words, tmp_path):
    with pytest.raises(BadValue, match=words):
        plan(model, written(tmp_path / "rows.csv", kind), gpu_gb=16)
