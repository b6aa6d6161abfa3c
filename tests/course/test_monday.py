import os
import re
import runpy
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

from lora_course.monday import plan
from lora_lab import load_tokenizer
from lora_lab.training.assets import shipped
from tests.conftest import BERT, assert_raises, make_model


def rows_for(kind, folder):
    """Write 60 rows for this kind of model: a CSV as Excel saves it, or JSON Lines for a language model."""
    rows = [(f"row {n} is {('bad', 'good')[n % 2]}", ("no", "yes")[n % 2]) for n in range(60)]
    data = pd.DataFrame(rows, columns=("text", "label") if kind == "classifier" else ("prompt", "response"))
    if kind == "classifier":
        data.to_csv(folder / "rows.csv", index=False, encoding="utf-8-sig")
        return folder / "rows.csv"
    (data.assign(response=5) if kind == "number" else data).to_json(folder / "rows.jsonl", orient="records", lines=True)
    return folder / "rows.jsonl"


def test_script_trains_saves_and_checks_an_adapter(tmp_path, tiny_causal, monkeypatch, capsys):
    job = plan(tiny_causal, rows_for("language model", tmp_path), gpu_gb=16)
    job.settings["RATES"] = [1e-3, 4e-3, 1.6e-2]  # two layers with random weights learn slowly
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(job.write(tmp_path / "train.py")), run_name="__main__")
    output = capsys.readouterr().out
    assert output.count("validation loss") == 3
    assert "B is not zero, and the base's output changes" in output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    tuned, base = map(float, re.findall(r"perplexity ([\d.]+), without the adapter ([\d.]+)", output)[0])
    assert tuned < base


def test_plan_cites_existing_lessons_and_fits_card_size_and_kind(tmp_path):
    (data := tmp_path / "rows.csv").write_text(
        "prompt,completion\n" + "".join(f"why {n}?,because\n" for n in range(60))
    )
    job = plan("llama-3-8b", data, gpu_gb=16)
    lessons = {path.name[:2] for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    assert all(lesson and set(re.findall(r"\d\d", lesson)) <= lessons for *_, lesson in job.lines)
    assert job._repr_markdown_().count("\n") == 1 + len(job.lines)  # a table
    assert "FOUR_BITS = True  #" in job.script()
    assert not plan("llama-3-8b", data, gpu_gb=24).settings["FOUR_BITS"]
    assert plan("smollm2", rows_for("language model", tmp_path), gpu_gb=8).settings["RATES"] == [1e-3, 2e-3, 4e-3]
    assert plan("minilm", rows_for("classifier", tmp_path), gpu_gb=8).settings["RATES"] == [5e-4, 1e-3, 2e-3]


def test_no_answer_loses_its_end_and_a_short_limit_is_reported(tmp_path, capsys):
    file = plan("smollm2", shipped("data/styles/captain.jsonl"), gpu_gb=24).write(tmp_path / "train.py")
    tokenizer = load_tokenizer((script := runpy.run_path(str(file)))["MODEL"])
    encoded = [script["encode"](row, tokenizer, []) for row in script["read"]()[0]]
    assert {row["input_ids"][-1] for row in encoded} == {tokenizer.eos_token_id}
    script["main"].__globals__.update(MAX_TOKENS=64, RATES=[])
    with pytest.raises(ValueError, match="empty"):  # no rates: nothing is trained
        script["main"]()
    cut = sum(len(row["input_ids"]) > 64 for row in encoded)
    assert f"{cut} of {len(encoded)} rows reach MAX_TOKENS: their ends are cut off" in capsys.readouterr().out


def test_script_needs_no_shell_to_find_the_home_folder(tmp_path, monkeypatch, tiny_encoder):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    shutil.copytree(tiny_encoder, tmp_path / "base")
    rows_for("classifier", tmp_path)
    job = plan("~/base", "~/rows.csv", gpu_gb=8, out="~/adapter")
    names = {"MODEL": "base", "DATA": "rows.csv", "OUT": "adapter"}
    assert {name: job.settings[name] for name in names} == {key: str(tmp_path / name) for key, name in names.items()}
    assert job.write("~/train.py") == tmp_path / "train.py"


def test_distinct_rows_of_the_needed_columns_count(tmp_path):
    rows = pd.DataFrame({"id": range(36), "text": [f"row {n % 12}" for n in range(36)], "label": ["a", "b", " a"] * 12})
    (data := tmp_path / "rows.csv").write_text("\n\n" + rows.to_csv(index=False).replace(",", ", ", 2) + ",,\n \n")
    job = plan("minilm", data, gpu_gb=8, out=tmp_path)
    assert job.settings["OUT"] == str(tmp_path)
    told, labels = runpy.run_path(str(job.write(tmp_path / "train.py")))["read"]()
    assert (len(told), labels) == (12, ["a", "b"])
    assert next(choice for what, choice, *_ in job.lines if what == "steps") == "3"  # ten rows, three times
    pairs = rows.rename(columns={"text": "prompt"}).assign(response="yes", label=None)
    pairs.to_json(data := tmp_path / "ROWS.JSONL", orient="records", lines=True)
    told, labels = runpy.run_path(str(plan("smollm2", data, gpu_gb=8).write(tmp_path / "train.py")))["read"]()
    assert (len(told), labels) == (12, [])
    for number in (1, 2):  # edited scripts are kept, even two with the same time
        (tmp_path / "train.py").write_text(f"# edit {number}")
        os.utime(tmp_path / "train.py", (0, 0))
        plan("smollm2", data, gpu_gb=8).write(tmp_path / "train.py")
    assert {path.read_text() for path in tmp_path.glob("train.py.*")} >= {"# edit 1", "# edit 2"}
    assert len([*tmp_path.glob("train.py*")]) == 4


HEADS = {  # class and size of the base (the data has two labels, not three), and a head besides the classifier
    "DistilBertForSequenceClassification": (
        {"dim": 64, "hidden_dim": 128, "n_layers": 1, "n_heads": 2, "num_labels": 3}, "pre_classifier"
    ),
    "BertForMaskedLM": ({**BERT, "hidden_size": 64}, "pooler"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_heads_are_trained_whole_and_saved(kind, tmp_path, monkeypatch, capsys):
    """PEFT's all-linear would put LoRA on DistilBERT's pre_classifier and BERT's pooler, which may be random."""
    (size, head), tokenizer = HEADS[kind], load_tokenizer("minilm")
    make_model(kind, size, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    job = plan(str(tmp_path / "base"), rows_for("classifier", tmp_path), gpu_gb=8)
    job.settings["RATES"] = [1e-3]
    monkeypatch.chdir(tmp_path)
    finished = runpy.run_path(str(job.write(tmp_path / "train.py")), run_name="__main__")
    assert "one label for all rows" in capsys.readouterr().out
    monkeypatch.setitem(finished["main"].__globals__, "FOUR_BITS", True)
    finished["main"]()  # 4-bit heads could not be trained
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    whole = [next(name for name in ("classifier", head) if f".{name}." in key) for key in names if "lora" not in key]
    assert {*whole} == {"classifier", head}
    assert finished["base_model"](tokenizer, ["no", "yes"])[1] == ["classifier", head]


def test_classifier_trains_the_same_on_any_card_and_its_head_in_fp32(tmp_path, monkeypatch):
    """A small GPU accumulates the gradients of small batches. The base may be in bf16."""
    tokenizer = load_tokenizer("minilm")
    size = {**BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    make_model("BertForSequenceClassification", size, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    job = plan(str(tmp_path / "base"), rows_for("classifier", tmp_path), gpu_gb=8, out=tmp_path / "out")
    script = runpy.run_path(str(job.write(tmp_path / "train.py")))
    rows, labels = script["read"]()
    data = [script["encode"](row, tokenizer, labels) for row in rows]
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def trained(**settings):
        script["main"].__globals__.update(EPOCHS=1, **settings)
        model = script["train"](1.0, data[:32], tokenizer, labels, collate)
        model.forward = type(model).forward.__get__(model)  # the Trainer left its autocast
        return model, [p.detach() for p in model.parameters() if p.requires_grad]

    settings = partial(transformers.TrainingArguments, optim="sgd")  # unlike AdamW, shows the gradients' scale
    monkeypatch.setattr(script["transformers"], "TrainingArguments", settings)  # transformers may replace its module
    (_, whole), (_, parts) = trained(BATCH=16, ACCUMULATE=1), trained(BATCH=4, ACCUMULATE=4)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)
    model, parameters = trained(DTYPE=torch.bfloat16)
    assert {p.dtype for p in parameters} == {torch.float32}
    assert 0 < script["evaluate"](model, data, collate)[0] < 1


def test_body_is_quantized_whatever_its_name(tmp_path):
    size = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 32,
            "intermediate_size": 64, "intermediate_size_mlp": 64, "num_local_experts": 1}  # fmt: skip
    make_model("Llama4ForCausalLM", size).save_pretrained(tmp_path / "base")  # its `base_model_prefix` names no part
    script = runpy.run_path(str(plan("smollm2", rows_for("language model", tmp_path), 8).write(tmp_path / "train.py")))
    script["main"].__globals__.update(MODEL=str(tmp_path / "base"), FOUR_BITS=True)
    model, whole = script["base_model"](load_tokenizer("smollm2"), [])
    assert "4bit" in type(model.model.layers[0].self_attn.q_proj).__name__
    assert whole == []


def test_impossible_job_is_refused(tmp_path):
    (one := tmp_path / "one.csv").write_text("text,label\n" + "".join(f"row {n},yes\n" for n in range(20)))
    (same := tmp_path / "same.csv").write_text("text,label\n" + "row,yes\nrow,no\n" * 20)
    for data, message in ((one, "only the label 'yes'"), (same, "2 different rows")):
        assert_raises(message, plan, "minilm", data, gpu_gb=16)
    for precision in ("2", 1e-300):
        assert_raises("precision", plan, "minilm", rows_for("classifier", tmp_path), gpu_gb=16, precision=precision)
    assert plan("minilm", rows_for("classifier", tmp_path), gpu_gb=16, precision=np.int64(2))
    assert_raises("cannot write responses", plan, "minilm", rows_for("language model", tmp_path), gpu_gb=16)
    assert_raises("even QLoRA", plan, "llama-2-70b", rows_for("classifier", tmp_path), gpu_gb=16)
    assert_raises("each row needs", plan, "smollm2", rows_for("number", tmp_path), gpu_gb=16)
    assert_raises("mixture of experts", plan, "mixtral-8x7b", rows_for("language model", tmp_path), gpu_gb=16)
    assert_raises("encoder-decoder", plan, "t5-base", rows_for("classifier", tmp_path), gpu_gb=16)
