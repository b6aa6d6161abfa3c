import json
from pathlib import Path

import pytest

from lora_lab.cli.compare import describe
from lora_lab.experiments import compare as module


@pytest.fixture
def compare(lora_lab, tiny_encoder, opinions, tmp_path):
    """`compare("lora,full", "--steps", "4")` runs the command on the tiny encoder, with `tmp_path` for its runs."""
    fields = "--batch 4 --rates 2 --growth 0 --seeds 2 --dtype fp32 --attention eager"
    words = ["--model", tiny_encoder, "--task", opinions, "--out", str(tmp_path), *fields.split()]
    return lambda methods, *more: lora_lab("compare", *words, "--methods", methods, *more)


def test_json_is_on_stdout_and_progress_on_stderr(compare, tmp_path):
    done = compare("lora,lora:rank=1:targets=q+v+k,prompt:tokens=40", "--steps", "4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(Path(tmp_path, "comparison.json").read_text())
    *trained, failed = found["methods"]
    assert [row["label"] for row in trained] == ["LoRA r8 q,v", "LoRA r1 q,k,v"]
    assert all(row["accuracy"]["n"] == 2 and row["edge"] for row in trained)
    assert "LoRA r8 q,v: tuning lr over 0.001, 0.002" in done.stderr
    table, row = describe(found), found["methods"][0]
    assert f"{row['lr']:g} (edge)" in table
    assert " ".join(f"{100 * value:.1f}" for value in row["accuracy"]["each"]) in table
    assert "4 steps of 4 rows. Rates were tuned on validation with seed 1000" in table
    (dashes,) = [line for line in table.splitlines() if line.startswith("prompt") and ":" not in line]
    assert set(dashes.removeprefix(failed["label"]).split()) == {"-"}
    assert f"{failed['label']}: {failed['error']}" in table
    failed["forgetting"] = {"task": "shakespeare", "before": 9.0, "after": {"each": []}}
    assert "shakespeare" not in describe(found)


def test_minutes_become_steps(compare, monkeypatch):
    monkeypatch.setattr(module, "pack_timed", lambda *_: module.Timing(0.0, 1.0, 0.0))  # a second per step
    done = compare("lora", "--minutes", "1")
    assert done.returncode == 0, done.stderr
    assert "12 steps per run, about 1 minutes in total" in done.stderr
    assert "12 steps of 4 rows" in done.stdout
    done = compare("lora", "--minutes", "0.5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "0.5 minutes is too short: 10 steps take about 1 minutes" in done.stderr


def test_failing_and_impossible_methods_have_exit_codes(compare, tmp_path):
    for method, code, message in (
        ("lora:alpha=1e30", 1, "every method failed"),
        ("lora:rank=33", 2, "rank 33 is above"),
        ("prompt:tokens=40", 2, "max_length 128 exceeds the 88 tokens that this model can read after 40 virtual"),
    ):
        done = compare(method, "--steps", "2", "--json")
        assert done.returncode == code
        assert message in done.stderr
        assert not (tmp_path / "comparison.json").exists()
