"""Tests of the plan for a fine-tuning job: its lessons and settings, and its script on tiny random models."""

import csv
import gc
import re
import runpy

import pytest

from lora_course.monday import KINDS, plan
from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped


@pytest.fixture
def write_csv(tmp_path):
    """`write_csv("classifier")`: a CSV with 60 rows for this kind of model, as Excel saves it."""

    def write(kind):
        with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            writer.writerow(KINDS[kind])
            writer.writerows((f"row {n} is {('bad', 'good')[n % 2]}", ("no", "yes")[n % 2]) for n in range(60))
        return tmp_path / "rows.csv"

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_script_trains_saves_and_checks_an_adapter(
    kind, write_csv, tmp_path, tiny_encoder, tiny_causal, monkeypatch, capsys
):
    model = tiny_encoder if kind == "classifier" else tiny_causal
    job = plan(model, write_csv(kind), gpu_gb=16, out=str(tmp_path / "adapter"))
    job.settings["RATES"] = [1e-3, 4e-3, 1.6e-2]  # two layers of random weights learn slowly
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # accelerate calls it after each training; it takes half of the time
    runpy.run_path(str(job.write(tmp_path / "train.py")), run_name="__main__")
    output = capsys.readouterr().out
    assert output.count("validation loss") == 3
    assert "B is not zero, answers change" in output
    assert ("always one label" if kind == "classifier" else "without the adapter") in output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    if kind == "language model":
        tuned, base = map(float, re.findall(r"perplexity ([\d.]+), without the adapter ([\d.]+)", output)[0])
        assert tuned < base


def test_plan_cites_existing_lessons_and_fits_the_card(write_csv):
    data = write_csv("language model")
    job = plan("llama-3-8b", data, gpu_gb=16)
    lessons = {path.name[:2] for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    assert all(lesson and set(re.findall(r"\d\d", lesson)) <= lessons for *_, lesson in job.lines)
    assert job.settings["FOUR_BITS"]
    assert "FOUR_BITS = True  #" in job.script()
    assert not plan("llama-3-8b", data, gpu_gb=24).settings["FOUR_BITS"]


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [("minilm", "language model", "cannot write completions"), ("llama-2-70b", "classifier", "even QLoRA")],
)
def test_impossible_job_is_refused(model, kind, message, write_csv):
    with pytest.raises(BadValue, match=message):
        plan(model, write_csv(kind), gpu_gb=16)
