"""`lora-lab params`: the contract's keys, a readable table, one sentence for what is wrong, and no wait."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest


def test_json_holds_the_contracts_keys(lora_lab):
    done = lora_lab("params", "roberta-base", "--method", "lora", "--rank", "8", "--targets", "q,v", "--json")
    counted = json.loads(done.stdout)
    assert {"total", "trainable", "fraction", "adapter_bytes", "modules"} <= set(counted)
    assert (counted["total"], counted["trainable"]) == (124_645_632, 294_912)
    rows = [row for row in counted["modules"] if row["trained"]]
    assert [(row["role"], row["count"], row["trained"], row["break_even_rank"]) for row in rows] == [
        ("q", 12, 147_456, 384),
        ("v", 12, 147_456, 384),
    ]


def test_the_table_reads(lora_lab):
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lama-3-8b"], "llama-3-8b"),
        (["gpt2", "--method", "ful"], "known: full"),
        (["gpt2", "--rank", "0"], "rank must be"),
        (["gpt2", "--rank", "769"], "at most 768"),
        (["gpt2", "--targets", "gate"], "matches no layer"),
        (["gpt2", "--rank-pattern", "q"], "target=rank"),
        (["gpt2", "--method", "full", "--rank", "2"], "no option 'rank'"),
        (["gpt2", "--method", "bitfit", "--dora"], "no option 'dora'"),
        (["gpt2", "--dora"], "dora takes a fused layer as a whole: name c_attn"),
        (["gpt2", "--lr-ratio", "0"], "lr_ratio must be a number above 0"),
        (["gpt2", "--num-labels", "-1"], "num_labels"),
        (["gpt2", "--rank", "many"], "rank"),
    ],
)
def test_bad_input_is_one_sentence(lora_lab, words, said):
    done = lora_lab("params", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("model", ["llama-3.1-405b", "deepseek-v3", "gpt-oss-120b"])
def test_the_largest_answer_at_once(model):
    words = [sys.executable, "-m", "lora_lab", "params", model]
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 1.5  # about 0.15 s on a quiet machine


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
