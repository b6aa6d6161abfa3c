"""`lora-lab params` and `memory`: the contract's keys, reference figures, tables, and one sentence for mistakes."""

import json
import os
import re
import subprocess
import sys

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


def test_the_reference_figures():
    """As traced in full for bf16. These predictions ship; others would be fitted first, which takes seconds."""
    for words, gib in (
        ("llama-2-7b --method full --optimizer adamw-foreach", 62.76),
        ("llama-3-8b --method full --seq 2048 --shard fsdp:8", 23.23),
        ("llama-2-70b --method qlora --targets q,v --checkpointing", 35.5),
    ):
        assert answer(*words.split())["peak_bytes"] / GIB == pytest.approx(gib, rel=0.01), words


def test_json_holds_the_contracts_keys_and_sums():
    found = answer("minilm", "--dtype", "fp32", "--batch", "8", "--seq", "128", "--gpu", "8 gb laptop cpu")
    assert set(found) >= CONTRACT
    assert (found["mode"], found["setup"]["device"], found["fits"]) == ("predicted", "cpu", True)
    assert sum(found["categories"].values()) == sum(term["bytes"] for term in found["terms"]) == found["peak_bytes"]
    assert all(set(term) == {"category", "where", "formula", "bytes"} for term in found["terms"])
    assert max(found["moments"].values()) == found["moments"]["backward"] == found["peak_bytes"]
    assert found["at"].startswith("backward of ")
    assert found["reserved_bytes"] is None  # a trace simulates the allocator


def test_70b_with_qlora_does_not_fit_24_gb_but_48():
    words = ("llama-2-70b", "--method", "qlora", "--targets", "q,v", "--checkpointing")
    small, large = answer(*words, "--gpu-gb", "24"), answer(*words, "--gpu", "A6000")
    assert (small["fits"], small["max_batch"], small["max_seq"]) == (False, 0, 0)
    assert large["fits"]
    assert large["seconds"] > 0
    assert small["seconds"] is None  # nothing but the memory is known of such a card


def test_the_table_reads_in_words_with_units():
    words = run("llama-2-7b", "--gpu", "t4").stdout
    assert "llama-2-7b, lora, 1 x 512 tokens, bf16, adamw: 14.9 GiB during backward of the loss (predicted)" in words
    assert "does not fit on T4 16 GB (13.4 GiB usable); not even batch 1" in words
    assert "model.layers.*.mlp" in words
    assert re.search(r"the loss +\d+ MiB  = 384,000 · S", words)  # 12 bytes for each word of the vocabulary
    assert "<- the peak" in words
    assert "compile, autocast" in words
    assert "TFLOP" in words


def test_generation_needs_weights_cache_and_logits():
    found = answer("llama-3-8b", "--inference", "--seq", "8192", "--batch", "4", "--gpu", "4090")
    assert found["at"] == "generation"
    assert found["categories"]["cache"] == 2 * 32 * 8 * 128 * 2 * 4 * 8192
    assert found["fits"]
    assert "optimizer" not in found["categories"]


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


def test_an_option_that_needs_memory_says_so():
    for words, more in (
        ("", "--padded"),
        ("", "--outputs-kept"),
        ("--method qlora", "--no-double-quant"),
        ("--freeze-a", "--no-freeze-a"),
        ("--method full", "--master-weights"),
        ("", "--dora"),
        ("--adapter-dtype bf16", "--adapter-dtype fp32"),
        ("--optimizer sgd", "--optimizer adamw"),
    ):
        given = ["minilm", "--trace", "--batch", "2", "--seq", "64", *words.split()]
        assert answer(*given)["peak_bytes"] < answer(*given, *more.split())["peak_bytes"], more


# ---- params


def test_params_has_the_contracts_keys(lora_lab):
    done = lora_lab("params", "roberta-base", "--method", "lora", "--rank", "8", "--targets", "q,v", "--json")
    counted = json.loads(done.stdout)
    assert {"total", "trainable", "fraction", "adapter_bytes", "modules"} <= set(counted)
    assert "lora trains 294,912 parameters" in lora_lab("params", "roberta-base").stdout
    assert (counted["total"], counted["trainable"]) == (124_645_632, 294_912)
    rows = [row for row in counted["modules"] if row["trained"]]
    assert [(row["role"], row["count"], row["trained"], row["break_even_rank"]) for row in rows] == [
        ("q", 12, 147_456, 384),
        ("v", 12, 147_456, 384),
    ]


@pytest.mark.parametrize(
    ("words", "loaded"), [(["params", "deepseek-v3"], []), (["memory", "llama-3-8b", "--gpu", "h200"], ["numpy"])]
)
def test_it_answers_at_once_and_without_torch(words, loaded):
    code = (
        f"import sys; from lora_lab.cli import commands; commands({words}, standalone_mode=False);"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(loaded)
    assert os.times().children_user - before.children_user < 1  # about 0.15 s


def test_where_a_latent_stands_between_the_command_says_what_it_counts(lora_lab):
    done = lora_lab("params", "deepseek-v3", "--json")
    assert "q_b_proj,kv_b_proj" in done.stderr
    trained = {row["name"].rsplit(".", 1)[-1] for row in json.loads(done.stdout)["modules"] if row["trained"]}
    assert trained == {"q_b_proj", "kv_b_proj"}
