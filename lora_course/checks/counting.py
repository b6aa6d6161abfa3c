"""Exercises for lesson 11 (counting): a file's rank, and the parameters that LoRA trains on an invented model."""

from __future__ import annotations

from typing import Any

from lora_course.checks.verdict import Number, Verdict, exercise
from lora_lab.accounting.params import params
from lora_lab.methods.lora import LoRA

SIZES = (  # hidden, intermediate, layers, heads, key-value heads, head_dim, vocabulary
    (1152, 3456, 18, 10, 2, 128, 50_000),
    (1536, 4096, 22, 9, 3, 256, 64_000),
    (640, 2304, 30, 6, 2, 96, 32_000),
    (2304, 6912, 26, 14, 7, 128, 100_000),
    (896, 2688, 16, 12, 4, 96, 40_000),
)
FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size",
)  # fmt: skip


def unseen(which: int = 0) -> dict[str, Any]:
    """Return the config of an invented model of type qwen3."""
    return {"model_type": "qwen3", **dict(zip(FIELDS, SIZES[which], strict=True))}


@exercise(
    "divide the bytes by 4, then by the numbers that rank 1 costs",
    "rank 1 costs layers x the sum of (inputs + outputs) of the adapted matrices",
    "d = 3,072, f = 8,192, 28 layers: q is d + d, v is d + 1,024, and gate, up and down are d + f each",
)
def check_rank_of_file(answer: int | None, targets: str = "gate,up,down", size: int = 37_868_984) -> Verdict:
    """Lesson 11: check the rank of an fp32 adapter for llama-3.2-3b, read off the size of its file in bytes."""
    return rank_of_file(targets, size).judge(answer)


def rank_of_file(targets: str = "gate,up,down", size: int = 37_868_984) -> Number:
    """Return the correct rank, and replies to wrong answers."""
    rank_one = params("llama-3.2-3b", LoRA(rank=1, targets=tuple(targets.split(",")))).trainable
    right = size // 4 // rank_one
    misconceptions = {
        4 * right: "that is for 1 byte a number: these take 4",
        2 * right: "that is for 2 bytes a number: these take 4; or it counts A or B alone",
        28 * right: "that is one layer: the model has 28",
        size / 4 / rank_one: "nearly: a few thousand bytes are names, and a rank is a whole number",
    }
    names = size - 4 * rank_one * right
    why = f"rank 1 costs {rank_one:,} numbers of 4 bytes; {right} times that, and {names:,} bytes of names"
    return Number(right, misconceptions, why, hint="replace the ... with a rank")


@exercise(
    "count inputs + outputs of the seven matrices of one layer, then multiply by the layers and the rank",
    "q has heads x head_dim outputs, k and v have key-value heads x head_dim; o has q's outputs as inputs",
    "rank x layers x (2 (d + q) + 2 (d + kv) + 3 (d + f)); lm_head is none of the seven",
)
def check_audit(answer: int | None, which: int = 0, rank: int = 8) -> Verdict:
    """Lesson 11: check how many parameters LoRA trains on all linear layers of `unseen(which)`."""
    return audit(which, rank).judge(answer)


def audit(which: int = 0, rank: int = 8) -> Number:
    """Return the correct count, and replies to wrong answers."""
    d, f, layers, heads, kv_heads, width, vocabulary = SIZES[which]
    q, kv, row = heads * width, kv_heads * width, layers * rank
    attention, mlp = 2 * (d + q) + 2 * (d + kv), 3 * (d + f)
    right = row * (attention + mlp)
    misconceptions = {
        right + rank * (d + vocabulary): "lm_head is a linear layer too, but none of the seven: leave it out",
        row * (4 * d + 2 * (d + d * kv_heads // heads) + mlp): f"q has {heads} x {width} = {q:,} outputs, not {d:,}",
        row * (4 * (d + q) + mlp): f"k and v are narrow: {kv_heads} x {width} = {kv:,} outputs",
        row * attention: "gate, up and down are missing",
        row * mlp: "q, k, v and o are missing",
        row * (2 * d + q + kv): "that is q and v alone: there are seven matrices",
        right // layers: f"that is one layer: the model has {layers}",
        right // rank: f"that is rank 1: at rank {rank} it is {rank} times as much",
        4 * right: "those are bytes: the question is how many numbers",
        layers * (2 * d * q + 2 * d * kv + 3 * d * f): "those are the frozen weights: A and B train",
    }
    why = f"{layers} x {rank} x ({attention:,} of attention + {mlp:,} of gate, up and down) = {right:,}"
    return Number(right, misconceptions, why)
