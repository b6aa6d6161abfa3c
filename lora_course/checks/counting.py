"""Exercises for lesson 11 (counting): an adapter file's rank, and LoRA's parameter count on an invented model."""

from typing import Any

from lora_course.checks.verdict import Number, Verdict, exercise, texts
from lora_lab import LoRA, params

CONFIGS = texts("counting")


def unseen(which: int = 0) -> dict[str, Any]:
    """Return the config of an invented model of type qwen3."""
    return {"model_type": "qwen3", **CONFIGS[which]}


@exercise
def check_rank_of_file(answer: int | None, targets: str = "gate,up,down", size: int = 37_868_984) -> Verdict:
    """Lesson 11: check the rank of an fp32 adapter for llama-3.2-3b, computed from the size of its file in bytes."""
    rank_one = params("llama-3.2-3b", LoRA(rank=1, targets=tuple(targets.split(",")))).trainable
    right = size // 4 // rank_one
    misconceptions = {
        4 * right: "that is for 1 byte per number: fp32 takes 4",
        2 * right: "that is for 2 bytes per number, but fp32 takes 4; or you counted A or B alone",
        28 * right: "that is one layer: the model has 28",
        size / 4 / rank_one: (whole := "almost: some bytes are tensor names, and a rank is a whole number"),
        (size - 20_000) / 4 / rank_one: whole,
    }
    names = size - 4 * rank_one * right
    why = f"rank 1 costs {rank_one:,} numbers of 4 bytes; the file is {right} times that, plus {names:,} bytes of names"
    return Number(right, misconceptions, why, hint="replace the ... with a rank").judge(answer)


@exercise
def check_audit(answer: int | None, which: int = 0, rank: int = 8) -> Verdict:
    """Lesson 11: check how many parameters LoRA trains on all linear layers of `unseen(which)`."""
    d, f, layers, heads, kv_heads, width, vocabulary = CONFIGS[which].values()
    q, kv, row = heads * width, kv_heads * width, layers * rank
    attention, mlp = 2 * (d + q) + 2 * (d + kv), 3 * (d + f)
    right = row * (attention + mlp)
    misconceptions = {
        right + rank * (d + vocabulary): "lm_head is a linear layer too, but not one of the seven: leave it out",
        row * (4 * d + 2 * (d + d * kv_heads // heads) + mlp): f"q has {heads} x {width} = {q:,} outputs, not {d:,}",
        row * (4 * (d + q) + mlp): f"k and v are narrow: {kv_heads} x {width} = {kv:,} outputs",
        row * attention: "gate, up and down are missing",
        row * mlp: "q, k, v and o are missing",
        row * (2 * d + q + kv): "that is q and v alone: there are seven matrices",
        right // layers: f"that is one layer: the model has {layers}",
        right // rank: f"that is rank 1: at rank {rank} it is {rank} times as much",
        4 * right: "those are bytes: the question is how many numbers",
        layers * (2 * d * q + 2 * d * kv + 3 * d * f): "those are the frozen weights: only A and B are trained",
    }
    why = f"{layers} x {rank} x ({attention:,} of attention + {mlp:,} of gate, up and down) = {right:,}"
    return Number(right, misconceptions, why).judge(answer)
