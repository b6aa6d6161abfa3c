"""Exercises of lesson 05, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from lora_lab.checks.verdict import Verdict, matched, not_yet, unsolved

_GIB, _GB, _MB, _MIB = 2**30, 10**9, 10**6, 2**20
_LLAMA_3_8B = 8_030_261_248  # parameters
_LINEAR, _OTHER = 68_451_041_280, 525_606_912  # of Llama-2-70B: inside the layers; embeddings, norms and head


def check_adam_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB of weights, gradients and Adam's state of Llama-3-8B, all in fp32."""
    n = _LLAMA_3_8B
    if unsolved(answer):
        return not_yet("put a formula in place of ...")
    hints = {
        16 * n / _GB: "those are GB, of 10^9 bytes; GiB are of 2^30 and 7 % larger, so there are fewer of them",
        12 * n / _GIB: "4 bytes a parameter are missing: Adam keeps two moments, and the gradient counts as well",
        8 * n / _GIB: "that is 8 bytes a parameter, four times bf16 weights: here each of the four numbers has 4 bytes",
        4 * n / _GIB: "that is the weights alone: each has a gradient and Adam's two moments as well",
        2 * n / _GIB: "that is the weights alone, and in bf16: 4 bytes a number here, and four numbers a parameter",
        128 * n / _GIB: "those are gibibits: 8 bits make a byte",
        4 * n: "that is a number of parameters or bytes: divide by 2^30",
        16 * n: "those are bytes: divide by 2^30",
    }
    right = 16 * n / _GIB
    return _close(answer, right, hints, f"4 + 4 + 8 = 16 bytes a parameter: {right:.1f} GiB before any activation")


def check_nf4_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB of Llama-2-70B's weights: its layers' matrices at 4.127 bits, the rest in bf16."""
    if unsolved(answer):
        return not_yet("put a formula in place of ...")
    layers, rest = _LINEAR * 4.127 / 8, 2 * _OTHER
    hints = {
        (layers + rest) / _GB: "those are GB, of 10^9 bytes: divide by 2^30",
        (_LINEAR * 4.127 + rest) / _GIB: "4.127 are bits, and 8 bits make a byte",
        (layers + 2 * _OTHER / 8) / _GIB: "the rest is in bf16: 2 bytes a number, not 2 bits",
        layers / _GIB: "embeddings and head are missing (about a GiB), or the scales: 4.127 bits a number, not 4",
        (_LINEAR * 4 / 8 + rest) / _GIB: "4 bits are the codes alone: each block has a scale, 0.127 bits a number more",
        (_LINEAR + _OTHER) * 4.127 / 8 / _GIB: "embeddings, norms and head are not quantised: 2 bytes a number",
        (_LINEAR + _OTHER) * 4 / 8 / _GIB: "a scale for each block comes on top, and embeddings and head stay in bf16",
        (_LINEAR + _OTHER) * 2 / _GIB: "that is bf16 throughout; the layers' matrices have 4.127 bits a number",
        (layers + 4 * _OTHER) / _GIB: "the rest is in bf16: 2 bytes a number, not 4",
    }
    right = (layers + rest) / _GIB
    why = f"{right:.1f} GiB: more than any 24 GB card has, with nothing trained yet"
    return _close(answer, right, hints, why, within=4e-4)


def check_logits_mb(answer: float | None) -> Verdict:
    """Lesson 05: MB (10^6 bytes) of one fp32 table of logits of GPT-2: 8 rows of 512 tokens, 50,257 words."""
    right = 8 * 512 * 50257 * 4 / _MB
    if unsolved(answer):
        return not_yet("put a formula in place of ...")
    hints = {
        right * _MB / _MIB: "those are MiB, of 2^20 bytes; asked is MB, of 10^6",
        right / 1000: "those are GB; asked is MB, of 10^6 bytes",
        right / 8: "that is one row: there are eight",
        right / 512: "a score is made at every token, not at the last one only: 512 a row",
        right / 2: "that is bf16: cross-entropy works in fp32, 4 bytes",
        right / 4: "those are numbers: each has 4 bytes",
        right * 8: "those are bits: 4 bytes a number, not 32",
        right * 3: "that is all three copies: one is asked for",
        right * _MB: "those are bytes: divide by 10^6",
    }
    return _close(answer, right, hints, f"{right:,.0f} MB, and the loss holds three such tables for a moment")


def check_down_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB that adapters on `down` make Llama-3-8B keep: 1,000 tokens in bf16, f = 14,336, 32 layers."""
    right = 1000 * 14336 * 2 * 32 / _GIB
    if unsolved(answer):
        return not_yet("put a formula in place of ...")
    hints = {
        right * _GIB / _GB: "those are GB, of 10^9 bytes: divide by 2^30",
        right / 32: "that is one layer: there are 32",
        right * 4096 / 14336: "the input of down has f = 14,336 numbers; d = 4,096 is its output",
        right * 2: "that is fp32: in bf16 a number has 2 bytes",
        right / 2: "those are numbers: each has 2 bytes",
        right * 8: "those are bits: 2 bytes a number, not 16",
        4096 * 14336 * 2 * 32 / _GIB: "those are the weights of down, there anyway; asked is what forward keeps",
        (right * _GIB + 1000 * 4096 * 2 * 32) / _GIB: "only the input is kept, not the output",
        2 * 8 * (14336 + 4096) * 32 / _GIB: "that is the adapters themselves; asked is what they make forward keep",
        right * _GIB: "those are bytes: divide by 2^30",
    }
    return _close(answer, right, hints, f"{right:.2f} GiB, more than a hundred times what the adapters themselves hold")


def check_recompute(full: float | None, lora: float | None) -> Verdict:
    """Lesson 05: how many times the arithmetic of a step checkpointing takes, for full fine-tuning and for LoRA."""
    if unsolved(full) or unsolved(lora):
        return not_yet("put a number in place of each ...")
    if not isinstance(full, Real) or not isinstance(lora, Real):
        return Verdict(False, "two numbers are wanted, such as 1.1 and 1.2")
    near = {
        "the other way round: full fine-tuning already does three forwards' worth, LoRA two": (3 / 2, 4 / 3),
        "LoRA's backward makes no gradients of frozen weights: its step is 2 forwards' worth, not 3": (4 / 3, 4 / 3),
        "full fine-tuning's backward costs two forwards, so its step is worth three": (3 / 2, 3 / 2),
        "those are forwards' worth in all: divide by those of the step without checkpointing": (4, 3),
        "only forward is run again, not the whole step": (2, 2),
        "that is what is added: 1 + that is the factor": (1 / 3, 1 / 2),
        "factors, not per cent: 1 + a share": (100 / 3, 50),
    }
    wrong = "count in forwards what a step costs, and what it costs with one forward more; divide"
    return matched((full, lora), (4 / 3, 3 / 2), "3 -> 4 and 2 -> 3: LoRA pays the larger share", near, wrong, 0.02)


def _close(answer: Any, right: float, hints: Mapping[float, str], why: str, within: float = 2e-3) -> Verdict:
    """Right within the rounding of a student's answer; else the hint of the nearest known mistake."""
    if not isinstance(answer, Real):
        return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
    given = float(answer)
    if math.isclose(given, right, rel_tol=within) or math.isclose(given, right, abs_tol=_rounding(given)):
        return Verdict(True, why)
    best = min(hints, key=lambda value: abs(given - value) / value)
    known = math.isclose(given, best, rel_tol=5e-3)
    return Verdict(False, hints[best] if known else _rough(given, right))


def _rounding(given: float) -> float:
    """Half a unit of the last decimal of an answer that was rounded to one or two decimals; at least three figures."""
    return next((0.5 * 10**-n for n in (1, 2) if given == round(given, n) and given * 10**n >= 100), 0.0)


def _rough(given: float, right: float) -> str:
    factor = given / right
    if not math.isfinite(factor) or factor <= 0:
        return "not that: it is a size, above zero"
    if 0.97 < factor < 1.03:
        return "nearly: give one more digit, or write the formula and let Python compute"
    words = f"{factor:,.3g} times too large" if factor > 1 else f"{1 / factor:,.3g} times too small"
    return f"not that: it is {words}"
