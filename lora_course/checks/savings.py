"""Exercises of lesson 03, what LoRA saves."""

from __future__ import annotations

import math
from collections.abc import Callable

from lora_course.checks.verdict import Verdict, function, number, numbers

_GB = 10**9
_HINT = "put your number in place of ..."


def check_break_even_rank(rank: Callable[[int, int], float]) -> Verdict:
    """Lesson 03: the rank at which A and B hold as many numbers as W, as a function of (d_in, d_out)."""
    cases = [(4096, 4096), (8192, 1024), (384, 1536), (1000, 10)]
    why = "r (d_in + d_out) = d_in d_out, solved for r; where d_in = d_out = d that is d / 2"
    whole = "as a whole number: it need not be one, so do not round or cut it off"
    solve = "write r (d_in + d_out) = d_in d_out and solve for r"
    square = f"is right for square weights only: {solve}"
    near: dict[str, Callable[[int, int], float]] = {
        f"nearly, but cut off {whole}": lambda i, o: i * o // (i + o),
        f"nearly, but rounded {whole}": lambda i, o: round(i * o / (i + o)),
        f"nearly, but rounded up {whole}": lambda i, o: math.ceil(i * o / (i + o)),
        f"d_in / 2 {square}": lambda i, o: i / 2,
        f"d_out / 2 {square}": lambda i, o: o / 2,
        f"half the smaller side {square}": lambda i, o: min(i, o) / 2,
        f"half the larger side {square}": lambda i, o: max(i, o) / 2,
        f"a quarter of d_in + d_out {square}": lambda i, o: (i + o) / 4,
        f"half the root of d_in d_out {square}": lambda i, o: math.sqrt(i * o) / 2,
        "that is the largest rank a weight can have; A and B outgrow W earlier": min,
        "the other way round: the size of W goes on top": lambda i, o: (i + o) / (i * o),
        f"that is the mean of the two sides: {solve}": lambda i, o: (i + o) / 2,
        "twice it: A has r d_in numbers and B has r d_out, so nothing is doubled": lambda i, o: 2 * i * o / (i + o),
        "half of it: A has r d_in numbers and B has r d_out, so no 2 is left over": lambda i, o: i * o / (2 * (i + o)),
    }
    wrong = "try 1000 x 10 by hand: W has 10,000 numbers, each rank costs 1,010, so it is a little below 10"
    return function(rank, cases, lambda i, o: i * o / (i + o), why, near, wrong)


def check_qv_count(answer: float | None) -> Verdict:
    """Lesson 03: parameters of LoRA of rank 8 on q (8192 -> 8192) and v (8192 -> 1024) of llama-2-70b's 80 layers."""
    q, v = 8192 + 8192, 8192 + 1024
    right = 80 * 8 * (q + v)
    hints = {
        right: "nearly: that is rounded; give every digit, or write the product and let Python multiply",
        right // 80: "that is one layer: the model has 80",
        right // 8: "that is rank 1: each rank costs as much again",
        80 * 2 * 8 * q: "you took v for a square: it has 8,192 inputs and 1,024 outputs",
        80 * 8 * q: "that is q without v; or A without B, which on these shapes is as many",
        80 * 8 * v: "that is v without q; or B without A, which on these shapes is as many",
        80 * (8192 * 8192 + 8192 * 1024): "those are the frozen weights; LoRA trains A and B beside them",
        2 * right: "twice too many: A has r d_in numbers and B has r d_out; nothing is doubled after that",
        80 * 8 * (8192 + 1024 + 1024): "q has 8,192 outputs; only k and v are narrow",
        80 * 2 * 8 * (8192 + 8192 + 1024): "inputs and outputs are added for each layer: q has 8,192 + 8,192, v 8,192 "
        "+ 1,024; no 2 on top",
        80 * 8 * (8192 * 8192 + 8192 * 1024): "the rank times the weights: but A has r x inputs numbers, B "
        "outputs x r; inputs and outputs are added",
    }
    fallback = "layers x rank x (inputs + outputs of q, and inputs + outputs of v)"
    why = f"80 layers x 8 x (8192 + 8192 + 8192 + 1024) = {right:,}"
    return number(answer, right, hints, why, fallback=fallback, hint=_HINT)


def check_times_fewer(answer: float | None) -> Verdict:
    """Lesson 03: RoBERTa-base with a head of 3 classes: all trained numbers, full over LoRA, head in both."""
    full, head, lora = 124_647_939, 592_899, 294_912  # the first with the head, without the pooler
    right = full / (lora + head)
    hints = {
        full / lora: "the head trains beside the adapter: it belongs below the line as well",
        full / head: "that is against the head alone: add the adapter",
        (lora + head) / full: "that is the share; turned over it says how many times fewer",
        100 * (lora + head) / full: "that is the share in per cent; turned over it says how many times fewer",
        lora + head: "that is what trains; divide the whole model by it",
        head / lora: "that compares the head with the adapter; the whole model goes on top",
    }
    why = f"about {right:.0f}, against {full / lora:.0f} without the head: the head is two thirds of what trains"
    fallback = "(all that trains in full fine-tuning) / (adapter + head)"
    return number(answer, right, hints, why, 0.01, fallback, _HINT)  # with or without the pooler's numbers on top


def check_file_size(mb: float | None, mib: float | None) -> Verdict:
    """Lesson 03: 207,093,760 numbers in bf16, in MB (10^6 bytes) and in MiB (2^20 bytes)."""
    count = 207_093_760

    def sizes(size: float) -> list[float]:
        return [count * size / 10**6, count * size / 2**20]

    why = f"{sizes(2)[0]:.0f} MB and {sizes(2)[1]:.0f} MiB are the same bytes, 4.9 % apart in name"
    near: dict[str, list[float]] = {
        "the other way round: 2^20 is larger than 10^6, so a size has fewer MiB than MB": sizes(2)[::-1],
        "that is fp32, 4 bytes a number; bf16 has 2": sizes(4),
        "those are millions of numbers; in bf16 each has 2 bytes": sizes(1),
        "those are bits; a byte has 8 of them": sizes(16),
        "both are MB: for MiB divide by 2**20 = 1,048,576": [sizes(2)[0]] * 2,
        "both are MiB: for MB divide by 10**6": [sizes(2)[1]] * 2,
        "those are bytes: divide them by 10**6 and by 2**20": [count * 2.0] * 2,
        "those are GB and GiB: M stands for 10**6, and Mi for 2**20": [count * 2 / 10**9, count * 2 / 2**30],
    }
    wrong = f"{count:,} numbers x 2 bytes = {2 * count:,} bytes; divide by 10**6 and by 2**20"
    hint = "put two numbers in place of the ..."
    return numbers((mb, mib), sizes(2), why, near, wrong, 0.004, hint)  # MiB beside MB must show


def check_storage(total: Callable[[int, float, float], float]) -> Verdict:
    """Lesson 03: bytes on disk for n tasks, as a function of (n, bytes of the base, bytes of one adapter)."""
    cases = [(100, 350 * _GB, 35 * 10**6), (7, 16 * _GB, 84 * 10**6), (1, 45 * 10**6, 301_776)]
    why = "one base and n adapters: for GPT-3 and 100 tasks 353.5 GB, where 100 models are 35,000 GB"
    near: dict[str, Callable[[int, float, float], float]] = {
        "the base is stored once, whatever the number of tasks": lambda n, b, a: n * (b + a),
        "those are n whole models: the base is shared": lambda n, b, a: n * b,
        "the base is missing: an adapter alone says nothing": lambda n, b, a: n * a,
        "that is one task: there are n adapters": lambda n, b, a: b + a,
        "that is how many adapters one base is worth; asked is the space that all of it takes": lambda n, b, a: b / a,
    }
    wrong = "one base, and an adapter for each task, added up"
    an_adapter_shows = 1e-5
    return function(total, cases, lambda n, b, a: b + n * a, why, near, wrong, an_adapter_shows)
