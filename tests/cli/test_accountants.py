import json
import os
import re
import subprocess
import sys
from functools import cache

import pytest
from click.testing import CliRunner

from lora_lab.cli import commands
from tests.accounting.conftest import small_config


def run(*words: str) -> str:
    return CliRunner().invoke(commands, words, catch_exceptions=False).stdout


@cache
def memory(words: str) -> dict:
    return json.loads(run("memory", *words.split(), "--json"))


def test_json_terms_sum_to_the_peak_and_a_trace_has_the_same_fields():
    words = "minilm --dtype fp32 --batch 2 --seq 32 --gpu-gb 8 --device cpu"
    found, traced = memory(words), memory(f"{words} --trace")
    assert (found["mode"], found["setup"]["device"], found["fits"]) == ("predicted", "cpu", True)
    assert sum(found["categories"].values()) == sum(term["bytes"] for term in found["terms"]) == found["peak_bytes"]
    assert all(set(term) == {"category", "where", "formula", "bytes"} for term in found["terms"])
    assert max(found["moments"].values()) == found["moments"]["backward"] == found["peak_bytes"]
    assert found["at"].startswith("backward of ")
    assert found["reserved_bytes"] is None  # only a trace simulates the allocator
    assert traced["reserved_bytes"] > traced["peak_bytes"] == pytest.approx(found["peak_bytes"], rel=0.001)
    assert set(traced) == set(found)
    assert {term["formula"] for term in traced["terms"]} == {None}
    assert len(set(found["notes"])) == len(found["notes"]) > 2
    assert all(traced[name] == found[name] for name in ("notes", "max_batch"))


def test_default_length_leaves_positions_for_a_prompt():
    assert memory("minilm --method prompt")["setup"]["seq"] == 512 - 20


def test_70b_with_qlora_needs_more_than_24_gb():
    words = "llama-2-70b --method qlora --targets q,v --checkpointing"
    small, large = memory(f"{words} --gpu-gb 24"), memory(f"{words} --gpu A6000")
    assert (small["fits"], small["max_batch"], small["max_seq"]) == (False, 0, 0)
    assert large["fits"]
    assert large["seconds"] > 0
    assert small["seconds"] is None  # only the memory of such a card is known


def test_table_has_units_and_the_peak():
    table = run("memory", "llama-2-7b", "--gpu", "t4")
    assert "llama-2-7b, lora, 1 x 512 tokens, bf16, adamw: 14.9 GiB during the loss (predicted)" in table
    assert "does not fit on T4 16 GB (13.4 GiB usable); not even batch 1 fits" in table
    assert "model.layers.*.mlp" in table
    assert re.search(r"the loss +\d+ MiB  = 384,000 · S", table)  # 12 bytes per token of the vocabulary
    assert "<- the peak" in table
    assert "compile, autocast" in table
    assert "TFLOP" in table


def test_generation_needs_weights_cache_and_logits(tiny_causal):
    found = memory(f"{tiny_causal} --inference --seq 1024 --batch 4 --gpu-gb 24")
    assert found["at"] == "generation"
    assert found["categories"]["cache"] == 2 * 2 * 32 * 2 * 4 * 1024  # keys and values, layers, width, bf16, rows, seq
    assert found["fits"]
    assert "optimizer" not in found["categories"]


def test_no_length_is_searched_if_each_needs_a_trace(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(small_config("t5")))
    found = memory(f"{tmp_path} --rank 2 --seq 16 --gpu-gb 4")
    assert (found["mode"], found["max_seq"]) == ("traced", None)
    assert found["max_batch"] > 1
    assert any("the largest seq is unknown: this model's steps cannot" in note for note in found["notes"])


def test_option_increases_the_peak(tiny_causal):
    for words, option in (
        ("", "--padded"),
        ("", "--outputs-kept"),
        ("--method qlora", "--no-double-quant"),
        ("--freeze-a", "--no-freeze-a"),
        ("--method full", "--master-weights"),
        ("--method full --shard fsdp:8", "--shard fsdp:2"),
        ("", "--dora"),
        ("--adapter-dtype bf16", "--adapter-dtype fp32"),
        ("--method bottleneck --size 8 --adapter-dtype bf16", "--adapter-dtype auto"),
        ("--optimizer sgd", "--optimizer adamw"),
    ):
        command = f"{tiny_causal} --trace --batch 2 --seq 64 {words}"
        assert memory(command)["peak_bytes"] < memory(f"{command} {option}")["peak_bytes"]


def test_params_counts_modules(lora_lab):
    counted = json.loads(lora_lab("params", "roberta-base", "--method", "lora", "--targets", "q,v", "--json").stdout)
    assert (counted["total"], counted["trainable"]) == (124_645_632, 294_912)
    assert counted["fraction"] == pytest.approx(294_912 / 124_645_632)
    rows = [row for row in counted["modules"] if row["trained"]]
    keys = ("role", "count", "trained", "break_even_rank")
    assert [[row[key] for key in keys] for row in rows] == [[role, 12, 147_456, 384] for role in "qv"]
    assert "lora trains 294,912 parameters" in lora_lab("params", "roberta-base").stdout
    latent = lora_lab("params", "deepseek-v3", "--json")
    assert "q_b_proj,kv_b_proj" in latent.stderr
    trained = {row["name"].rsplit(".", 1)[-1] for row in json.loads(latent.stdout)["modules"] if row["trained"]}
    assert trained == {"q_b_proj", "kv_b_proj"}


def test_answers_take_less_than_a_second_without_torch():
    for words, loaded in ((["params", "deepseek-v3"], []), (["memory", "llama-3-8b", "--gpu", "h200"], ["numpy"])):
        code = f"import sys; from lora_lab.cli import commands; commands({words}, standalone_mode=False);"
        code += "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == str(loaded)
        assert os.times().children_user - before.children_user < 1  # about 0.15 s
