import re
import runpy

import pandas as pd
import pytest

from lora_course.monday import KINDS, plan
from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped


def rows_for(kind, folder):
    """Write 60 rows for this kind of model: a CSV as Excel saves it, or JSON Lines for a language model."""
    rows = [(f"row {n} is {('bad', 'good')[n % 2]}", ("no", "yes")[n % 2]) for n in range(60)]
    data = pd.DataFrame(rows, columns=KINDS.get(kind, ("prompt", "response")))
    if kind == "classifier":
        data.to_csv(folder / "rows.csv", index=False, encoding="utf-8-sig")
        return folder / "rows.csv"
    (data.assign(response=5) if kind == "number" else data).to_json(folder / "rows.jsonl", orient="records", lines=True)
    return folder / "rows.jsonl"


@pytest.mark.parametrize("kind", KINDS)
def test_script_trains_saves_and_checks_an_adapter(kind, tmp_path, tiny_encoder, tiny_causal, monkeypatch, capsys):
    job = plan(tiny_encoder if kind == "classifier" else tiny_causal, rows_for(kind, tmp_path), gpu_gb=16)
    job.settings["RATES"] = [1e-3, 4e-3, 1.6e-2]  # two layers of random weights learn slowly
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(job.write(tmp_path / "train.py")), run_name="__main__")
    output = capsys.readouterr().out
    assert output.count("validation loss") == 3
    assert "B is not zero, the base's output changes" in output
    assert ("always one label" if kind == "classifier" else "without the adapter") in output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    if kind == "language model":
        tuned, base = map(float, re.findall(r"perplexity ([\d.]+), without the adapter ([\d.]+)", output)[0])
        assert tuned < base


def test_plan_cites_existing_lessons_and_fits_card_size_and_kind(tmp_path):
    (data := tmp_path / "rows.csv").write_text("prompt,completion\n" + "why?,because\n" * 60)
    job = plan("llama-3-8b", data, gpu_gb=16)
    lessons = {path.name[:2] for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    assert all(lesson and set(re.findall(r"\d\d", lesson)) <= lessons for *_, lesson in job.lines)
    assert "FOUR_BITS = True  #" in job.script()
    assert not plan("llama-3-8b", data, gpu_gb=24).settings["FOUR_BITS"]
    assert plan("smollm2", rows_for("language model", tmp_path), gpu_gb=8).settings["RATES"] == [1e-3, 2e-3, 4e-3]
    assert plan("minilm", rows_for("classifier", tmp_path), gpu_gb=8).settings["RATES"] == [5e-4, 1e-3, 2e-3]


def test_no_answer_loses_its_end_and_a_short_limit_is_reported(tmp_path, capsys):
    file = plan("smollm2", shipped("data/styles/captain.jsonl"), gpu_gb=24).write(tmp_path / "train.py")
    tokenizer = (script := runpy.run_path(str(file)))["AutoTokenizer"].from_pretrained(script["MODEL"])
    encoded = [script["encode"](row, tokenizer, []) for row in script["read"]()[0]]
    assert {row["input_ids"][-1] for row in encoded} == {tokenizer.eos_token_id}
    script["main"].__globals__.update(MAX_TOKENS=64, RATES=[])
    with pytest.raises(ValueError, match="empty"):  # no rates: nothing is trained
        script["main"]()
    cut = sum(len(row["input_ids"]) > 64 for row in encoded)
    assert f"{cut} of {len(encoded)} rows reach MAX_TOKENS: their ends are cut off" in capsys.readouterr().out


def test_impossible_job_is_refused(tmp_path):
    for model, kind, message in (
        ("minilm", "language model", "cannot write responses"),
        ("llama-2-70b", "classifier", "even QLoRA"),
        ("smollm2", "number", "each row needs"),
    ):
        with pytest.raises(BadValue, match=message):
            plan(model, rows_for(kind, tmp_path), gpu_gb=16)
