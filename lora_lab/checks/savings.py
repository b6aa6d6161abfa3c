"""Exercises of lesson 03, what LoRA saves."""

from __future__ import annotations

import math
from collections.abc import Callable

from lora_lab.checks.verdict import Verdict, matched, not_yet, number, unsolved, values_of

_GB = 10**9


def check_break_even_rank(rank: Callable[[int, int], float]) -> Verdict:
    """Lesson 03: the rank at which A and B hold as many numbers as W, as a function of (d_in, d_out)."""
    cases = [(4096, 4096), (8192, 1024), (384, 1536), (1000, 10)]
    values = values_of(rank, cases)
    if isinstance(values, Verdict):
        return values
    right = [i * o / (i + o) for i, o in cases]
    why = "r (d_in + d_out) = d_in d_out, solved for r; where d_in = d_out = d that is d / 2"
    whole = "as a whole number: it need not be one, so do not round or cut it off"
    square = "is right for square weights only: write r (d_in + d_out) = d_in d_out and solve for r"
    near: dict[str, list[float]] = {
        f"nearly, but cut off {whole}": [i * o // (i + o) for i, o in cases],
        f"nearly, but rounded {whole}": [round(i * o / (i + o)) for i, o in cases],
        f"nearly, but rounded up {whole}": [math.ceil(i * o / (i + o)) for i, o in cases],
        f"d_in / 2 {square}": [i / 2 for i, o in cases],
        f"d_out / 2 {square}": [o / 2 for i, o in cases],
        f"half the smaller side {square}": [min(i, o) / 2 for i, o in cases],
        f"half the larger side {square}": [max(i, o) / 2 for i, o in cases],
        f"a quarter of d_in + d_out {square}": [(i + o) / 4 for i, o in cases],
        f"half the root of d_in d_out {square}": [math.sqrt(i * o) / 2 for i, o in cases],
        "that is the largest rank a weight can have; A and B outgrow W earlier": [min(i, o) for i, o in cases],
        "the other way round: the size of W goes on top": [(i + o) / (i * o) for i, o in cases],
        "that is the mean of the two sides: write r (d_in + d_out) = d_in d_out and solve for r": [
            (i + o) / 2 for i, o in cases
        ],
        "twice it: A has r d_in numbers and B has r d_out, so nothing is doubled": [
            2 * i * o / (i + o) for i, o in cases
        ],
        "half of it: A has r d_in numbers and B has r d_out, so no 2 is left over": [
            i * o / (2 * (i + o)) for i, o in cases
        ],
    }
    wrong = "try 1000 x 10 by hand: W has 10,000 numbers, each rank costs 1,010, so it is a little below 10"
    return matched(values, right, why, near, wrong)


def check_qv_count(answer: float | None) -> Verdict:
    """Lesson 03: parameters of LoRA of rank 8 on q (8192 -> 8192) and v (8192 -> 1024) of llama-2-70b's 80 layers."""
    q, v = 8192 + 8192, 8192 + 1024
    right = 80 * 8 * (q + v)
    if unsolved(answer):
        return not_yet("put your number in place of ...")
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
    return number(answer, right, hints, why, fallback=fallback)


def check_times_fewer(answer: float | None) -> Verdict:
    """Lesson 03: RoBERTa-base with a head of 3 classes: all trained numbers, full over LoRA, head in both."""
    full, head, lora = 124_647_939, 592_899, 294_912  # the first with the head, without the pooler
    right = full / (lora + head)
    if unsolved(answer):
        return not_yet("put your number in place of ...")
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
    return number(answer, right, hints, why, 0.01, fallback)  # with or without the pooler's numbers on top


def check_file_size(mb: float | None, mib: float | None) -> Verdict:
    """Lesson 03: 207,093,760 numbers in bf16, in MB (10^6 bytes) and in MiB (2^20 bytes)."""
    if unsolved(mb) or unsolved(mib):
        return not_yet("put two numbers in place of the ...")
    try:
        given = [float(mb), float(mib)]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Verdict(False, "two numbers are wanted")
    numbers = 207_093_760

    def sizes(size: float) -> list[float]:
        return [numbers * size / 10**6, numbers * size / 2**20]

    why = f"{sizes(2)[0]:.0f} MB and {sizes(2)[1]:.0f} MiB are the same bytes, 4.9 % apart in name"
    near: dict[str, list[float]] = {
        "the other way round: 2^20 is larger than 10^6, so a size has fewer MiB than MB": sizes(2)[::-1],
        "that is fp32, 4 bytes a number; bf16 has 2": sizes(4),
        "those are millions of numbers; in bf16 each has 2 bytes": sizes(1),
        "those are bits; a byte has 8 of them": sizes(16),
        "both are MB: for MiB divide by 2**20 = 1,048,576": [sizes(2)[0]] * 2,
        "both are MiB: for MB divide by 10**6": [sizes(2)[1]] * 2,
        "those are bytes: divide them by 10**6 and by 2**20": [numbers * 2.0] * 2,
        "those are GB and GiB: M stands for 10**6, and Mi for 2**20": [numbers * 2 / 10**9, numbers * 2 / 2**30],
    }
    wrong = f"{numbers:,} numbers x 2 bytes = {2 * numbers:,} bytes; divide by 10**6 and by 2**20"
    return matched(given, sizes(2), why, near, wrong, 0.004)  # MiB beside MB must show


def check_storage(total: Callable[[int, float, float], float]) -> Verdict:
    """Lesson 03: bytes on disk for n tasks, as a function of (n, bytes of the base, bytes of one adapter)."""
    cases = [(100, 350 * _GB, 35 * 10**6), (7, 16 * _GB, 84 * 10**6), (1, 45 * 10**6, 301_776)]
    values = values_of(total, cases)
    if isinstance(values, Verdict):
        return values
    right = [b + n * a for n, b, a in cases]
    why = "one base and n adapters: for GPT-3 and 100 tasks 353.5 GB, where 100 models are 35,000 GB"
    near: dict[str, list[float]] = {
        "the base is stored once, whatever the number of tasks": [n * (b + a) for n, b, a in cases],
        "those are n whole models: the base is shared": [n * b for n, b, a in cases],
        "the base is missing: an adapter alone says nothing": [n * a for n, b, a in cases],
        "that is one task: there are n adapters": [b + a for n, b, a in cases],
        "that is how many adapters one base is worth; asked is the space that all of it takes": [
            b / a for n, b, a in cases
        ],
    }
    wrong = "one base, and an adapter for each task, added up"
    return matched(values, right, why, near, wrong, 1e-5)  # an adapter beside its base must show
