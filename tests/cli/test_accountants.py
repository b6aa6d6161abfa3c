"""`lora-lab params` and `memory`: the contract's keys, reference figures, tables, and one sentence for mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_lab.cli import commands

GIB = 2**30
CONTRACT = {"mode", "peak_bytes", "at", "categories", "terms", "fits", "max_batch", "notes"}


def run(*words: str) -> Result:
    """The command in this process; what it raises is raised here."""
    return CliRunner().invoke(commands, ["memory", *words], catch_exceptions=False)


def answer(*words: str) -> dict:
    return json.loads(run(*words, "--json").stdout)


# GiB, traced for bf16 over two steps with bf16 adapters (PEFT: with fp32 ones), foreach for full; memory.md.
BF16, PEFT, FULL = ["--adapter-dtype", "bf16"], ["--adapter-dtype", "fp32"], ["--method", "full"]
GPT2 = ["gpt2", "--seq", "1024", "--targets", "c_attn"]
L7, L8, L70 = ["llama-2-7b"], ["llama-3-8b", "--batch", "2", "--seq", "2048"], ["llama-2-70b", "--seq", "2048"]
CKPT, FOREACH = ["--checkpointing"], ["--optimizer", "adamw-foreach"]
QLORA = ["--method", "qlora", *BF16]
REFERENCE = [
    ([*GPT2, *BF16], 1.21),
    ([*GPT2, *BF16, *CKPT], 0.83),
    ([*GPT2, *PEFT], 1.23),
    ([*GPT2[:3], *FULL, *FOREACH], 1.77),
    ([*L7, *BF16], 14.89),
    ([*L7, *BF16, *CKPT], 12.89),
    ([*L7, *PEFT], 15.29),
    ([*L7, *FULL, *FOREACH], 62.76),
    ([*L8, *BF16], 38.87),
    ([*L8, *BF16, *CKPT], 21.91),
    ([*L8, *PEFT], 41.89),
    ([*L8, *FULL, *FOREACH], 75.39),
    ([*L70, *BF16], 173.7),
    ([*L70, *BF16, *CKPT], 132.0),
    ([*L70, *PEFT], 181.3),
    ([*L70, *FULL, *FOREACH], 642.4),
    ([*L7, *QLORA], 6.49),
    ([*L8, *QLORA, *CKPT], 12.36),
    ([*L8, *QLORA, "--targets", "q,v"], 29.22),
    ([*L70, *QLORA, *CKPT], 38.22),
    (["llama-3-8b", "--seq", "2048", *FULL, "--shard", "fsdp:8"], 23.23),
]


@pytest.mark.parametrize(("words", "gib"), REFERENCE, ids=lambda value: str(value).strip("[]").replace("'", ""))
def test_the_reference_figures(words: list[str], gib: float):
    assert answer(*words)["peak_bytes"] / GIB == pytest.approx(gib, rel=0.01)


def test_json_holds_the_contracts_keys_and_sums():
    found = answer("minilm", "--dtype", "fp32", "--batch", "8", "--seq", "128")
    assert set(found) >= CONTRACT
    assert (found["mode"], found["fits"], found["max_batch"]) == ("predicted", None, None)
    assert sum(found["categories"].values()) == sum(term["bytes"] for term in found["terms"]) == found["peak_bytes"]
    assert all(set(term) == {"category", "where", "formula", "bytes"} for term in found["terms"])
    assert max(found["moments"].values()) == found["moments"]["backward"] == found["peak_bytes"]
    assert found["at"].startswith("backward of ")
    assert found["reserved_bytes"] is None  # a trace simulates the allocator


def test_a_card_says_whether_it_fits_and_the_largest_batch():
    found = answer("llama-2-7b", "--gpu-gb", "24")
    assert found["fits"] is True
    assert found["max_batch"] >= 1
    top = answer("llama-2-7b", "--gpu-gb", "24", "--batch", str(found["max_batch"]))
    above = answer("llama-2-7b", "--gpu-gb", "24", "--batch", str(found["max_batch"] + 1))
    assert (top["fits"], above["fits"]) == (True, False)


def test_70b_with_qlora_does_not_fit_24_gb_but_48():
    words = ("llama-2-70b", "--method", "qlora", "--targets", "q,v", "--checkpointing")
    small, large = answer(*words, "--gpu-gb", "24"), answer(*words, "--gpu", "A6000")
    assert (small["fits"], small["max_batch"], small["max_seq"]) == (False, 0, 0)
    assert large["fits"]
    assert large["seconds"] > 0
    assert small["seconds"] is None  # nothing but the memory is known of such a card
    assert small["peak_bytes"] / GIB == pytest.approx(35.5, rel=0.01)


def test_the_table_reads_in_words_with_units():
    words = run("llama-2-7b", "--gpu", "t4").stdout
    assert "llama-2-7b, lora, 1 x 512 tokens, bf16, adamw: 14.9 GiB during backward of the loss (predicted)" in words
    assert "does not fit on T4 16 GB (13.4 GiB usable); not even batch 1" in words
    assert "model.layers.*.mlp" in words
    assert re.search(r"the loss +\d+ MiB  = 384,000 · S", words)  # 12 bytes for each word of the vocabulary
    assert "<- the peak" in words
    assert "compile, autocast" in words
    assert "TFLOP" in words


def test_rows_longer_than_the_model_was_trained_for_are_told():
    told = "20,000 tokens per row are more than the 8,192 that llama-3-8b was trained for"
    assert told in answer("llama-3-8b", "--seq", "20000")["notes"]


def test_without_a_card_every_card_is_named_on_one_side():
    lines = run("llama-2-7b").stdout.splitlines()
    fitting, failing = (next(line for line in lines if line.startswith(word)) for word in ("fits", "does not fit"))
    assert "RTX 4090 24 GB" in fitting
    assert "RTX 3060 12 GB" in failing


def test_generation_needs_weights_cache_and_logits():
    found = answer("llama-3-8b", "--inference", "--seq", "8192", "--batch", "4", "--gpu", "4090")
    assert found["at"] == "generation"
    assert found["categories"]["cache"] == 2 * 32 * 8 * 128 * 2 * 4 * 8192
    assert found["fits"]
    assert "optimizer" not in found["categories"]


def test_a_laptops_processor_has_its_own_kernels():
    found = answer("minilm", "--dtype", "fp32", "--gpu", "8 gb laptop cpu")
    assert (found["setup"]["device"], found["fits"]) == ("cpu", True)


def test_a_trace_answers_in_the_same_shape():
    words = ("minilm", "--dtype", "fp32", "--batch", "2", "--seq", "16", "--gpu-gb", "8")
    traced, predicted = answer(*words, "--trace"), answer(*words)
    assert (traced["mode"], predicted["mode"]) == ("traced", "predicted")
    assert set(traced) == set(predicted)
    assert traced["reserved_bytes"] > traced["peak_bytes"]
    assert {term["formula"] for term in traced["terms"]} == {None}
    assert traced["notes"] == predicted["notes"]
    assert len(set(traced["notes"])) == len(traced["notes"]) > 2
    assert traced["peak_bytes"] == pytest.approx(predicted["peak_bytes"], rel=0.001)
    assert traced["max_batch"] == predicted["max_batch"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["memory", "lama-3-8b"], "llama-3-8b"),
        (["memory", "gpt2", "--batch", "-1"], "batch must be"),
        (["memory", "gpt2", "--seq", "0"], "seq must be"),
        (["memory", "gpt2", "--seq", "1025"], "above the 1024 tokens"),
        (["memory", "roberta-base", "--seq", "513"], "above the 512 tokens"),
        (["memory", "gpt2", "--method", "prompt", "--tokens", "20", "--seq", "1010"], "above the 1004 tokens"),
        (["memory", "gpt2", "--rank", "769"], "at most 768"),
        (
            ["memory", "gpt2", "--dtype", "nf4"],
            "dtype must be one of fp32, bf16, fp16, not 'nf4': for a 4-bit base use --method qlora",
        ),
        (["memory", "gpt2", "--no-double-quant"], "--double-quant is for --method qlora, not lora"),
        (
            ["memory", "gpt2", "--shard", "ddp:8"],
            "the kind of shard must be one of zero1, zero2, zero3, fsdp, not 'ddp'",
        ),
        (["memory", "gpt2", "--optimizer", "adam"], "adamw"),
        (["memory", "gpt2", "--shard", "fsdp"], "fsdp:8"),
        (["memory", "gpt2", "--gpu", "4091"], "no card '4091'"),
        (["memory", "gpt2", "--gpu", "a100"], "A100 40 GB or A100 80 GB"),
        (["memory", "gpt2", "--shard", "fsdp:²"], "fsdp:8"),
        (["memory", "gpt2", "--gpu-gb", "-3"], "above 0 GB"),
        (["memory", "gpt2", "--gpu-gb", "1e308"], "at most 1,000,000"),
        (["memory", "gpt2", "--gpu-gb", "24", "--gpu", "4090"], "not both"),
        (["memory", "gpt2", "--method", "full", "--lora-dropout", "0.1"], "no option 'dropout'"),
        (["memory", "gpt2", "--num-labels", "2"], "omit --num-labels"),
        (["memory", "bert-base", "--inference"], "is not a causal language model"),
        (["memory", "gpt2", "--inference", "--trace"], "omit --trace or --inference"),
        (["params", "lama-3-8b"], "llama-3-8b"),
        (["params", "gpt2", "--method", "ful"], "known: full"),
        (["params", "gpt2", "--rank", "0"], "rank must be"),
        (["params", "gpt2", "--rank", "769"], "at most 768"),
        (["params", "gpt2", "--targets", "gate"], "matches no layer"),
        (["params", "gpt2", "--rank-pattern", "q"], "target=rank"),
        (["params", "gpt2", "--method", "full", "--rank", "2"], "no option 'rank'"),
        (["params", "gpt2", "--method", "bitfit", "--dora"], "no option 'dora'"),
        (["params", "gpt2", "--dora"], "dora adapts a fused layer as a whole: use c_attn"),
        (["params", "gpt2", "--lr-ratio", "0"], "lr_ratio must be a number above 0"),
        (["params", "gpt2", "--num-labels", "-1"], "num_labels"),
        (["params", "gpt2", "--rank", "many"], "rank"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(words: list[str], said: str, lora_lab: Callable):
    done = lora_lab(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "preceiver", "d_model": 4}, "perceiver"),
        ({"model_type": "llama", "hidden_size": "2"}, "hidden_size"),
        ({"hidden_size": 2}, "model_type"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path: Path, fields: dict, said: str, lora_lab: Callable):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    done = lora_lab("memory", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_it_answers_without_torch_in_well_under_a_second():
    words = ["memory", "llama-3-8b", "--json", "--gpu", "h200"]
    script = (
        "import sys; from lora_lab.cli import commands; "
        f"commands({words}, standalone_mode=False); assert 'torch' not in sys.modules"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.times().children_user - before.children_user < 1  # not the clock: other programs may be busy; about 0.25


@pytest.mark.parametrize("more", [[], ["--optimizer", "adamw-8bit"], ["--shard", "fsdp:4"]], ids=str)
def test_a_trace_knows_every_option_and_agrees_to_the_byte(more: list[str]):
    words = ["minilm", "--method", "full", "--batch", "2", "--seq", "64", *more]
    traced, predicted = answer(*words, "--trace"), answer(*words)
    assert traced["peak_bytes"] == predicted["peak_bytes"]
    assert traced["at"] == predicted["at"]


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([], ["--padded"]),
        ([], ["--outputs-kept"]),
        (["--method", "qlora"], ["--no-double-quant"]),
        (["--freeze-a"], ["--no-freeze-a"]),
        (["--method", "full", "--trace"], ["--master-weights"]),
        (["--trace"], ["--dora"]),
        (["--trace"], ["--init", "pissa"]),
    ],
    ids=str,
)
def test_an_option_that_needs_memory_says_so(words: list[str], more: list[str]):
    words = ["minilm", "--batch", "2", "--seq", "64", *words]
    assert answer(*words)["peak_bytes"] < answer(*words, *more)["peak_bytes"]


# ---- params


def test_params_has_the_contracts_keys(lora_lab):
    done = lora_lab("params", "roberta-base", "--method", "lora", "--rank", "8", "--targets", "q,v", "--json")
    counted = json.loads(done.stdout)
    assert {"total", "trainable", "fraction", "adapter_bytes", "modules"} <= set(counted)
    assert (counted["total"], counted["trainable"]) == (124_645_632, 294_912)
    rows = [row for row in counted["modules"] if row["trained"]]
    assert [(row["role"], row["count"], row["trained"], row["break_even_rank"]) for row in rows] == [
        ("q", 12, 147_456, 384),
        ("v", 12, 147_456, 384),
    ]


def test_the_table_of_params_reads(lora_lab):
    words = lora_lab("params", "gpt2-medium", "--rank", "4").stdout
    assert "gpt2-medium: 354,823,168 parameters" in words
    assert "lora trains 393,216 parameters" in words
    assert "MiB" in words
    assert "transformer.h.*.attn.c_attn[q]" in words


@pytest.mark.parametrize(
    ("words", "trained"),
    [
        (["roberta-base", "--method", "bitfit", "--num-labels", "3"], 102_144),
        (["gpt3-175b", "--method", "prompt", "--tokens", "264"], 3_244_032),
        (["gpt2-medium", "--method", "bottleneck", "--size", "6", "--placement", "lin"], 368_784),
        (["gpt2", "--rank", "4", "--rank-pattern", "q=2"], 12 * (2 + 4) * 2 * 768),
        (["llama-3.2-3b", "--method", "ia3"], 286_720),
        (["roberta-base", "--dora", "--lr-ratio", "16"], 294_912 + 24 * 768),
        (["roberta-base", "--freeze-a"], 294_912 // 2),
        (["roberta-base", "--init", "pissa"], 294_912),
        (["gpt3-175b", "--method", "prompt", "--tokens", "264", "--init", "random"], 3_244_032),
    ],
)
def test_every_method_counts(lora_lab, words, trained):
    assert json.loads(lora_lab("params", *words, "--json").stdout)["trainable"] == trained


@pytest.mark.parametrize("model", ["llama-3.1-405b", "deepseek-v3", "gpt-oss-120b"])
def test_the_largest_answer_at_once(model):
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "lora_lab", "params", model], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert os.times().children_user - before.children_user < 1  # about 0.15 s


def test_counting_needs_no_torch():
    code = (
        "import sys; from lora_lab import LoRA, params; params('llama-3.1-405b', LoRA());"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_where_a_latent_stands_between_the_command_says_what_it_counts(lora_lab):
    done = lora_lab("params", "deepseek-v3", "--json")
    assert "q_b_proj,kv_b_proj" in done.stderr
    trained = {row["name"].rsplit(".", 1)[-1] for row in json.loads(done.stdout)["modules"] if row["trained"]}
    assert trained == {"q_b_proj", "kv_b_proj"}
