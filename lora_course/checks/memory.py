"""Exercises of lesson 05, memory."""

from __future__ import annotations

from lora_course.checks.verdict import Verdict, number, numbers

_GIB, _GB, _MB, _MIB = 2**30, 10**9, 10**6, 2**20
_LLAMA_3_8B = 8_030_261_248  # parameters
_LINEAR, _OTHER = 68_451_041_280, 525_606_912  # of Llama-2-70B: inside the layers; embeddings, norms and head
_HINT = "put a formula in place of ..."


def check_adam_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB of weights, gradients and Adam's state of Llama-3-8B, all in fp32."""
    n = _LLAMA_3_8B
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
    why = f"4 + 4 + 8 = 16 bytes a parameter: {right:.1f} GiB before any activation"
    return number(answer, right, hints, why, 2e-3, hint=_HINT)


def check_nf4_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB of Llama-2-70B's weights: its layers' matrices at 4.127 bits, the rest in bf16."""
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
    return number(answer, right, hints, why, 4e-4, hint=_HINT)


def check_logits_mb(answer: float | None) -> Verdict:
    """Lesson 05: MB (10^6 bytes) of one fp32 table of logits of GPT-2: 8 rows of 512 tokens, 50,257 words."""
    right = 8 * 512 * 50257 * 4 / _MB
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
    why = f"{right:,.0f} MB, and the loss holds three such tables for a moment"
    return number(answer, right, hints, why, 2e-3, hint=_HINT)


def check_down_gib(answer: float | None) -> Verdict:
    """Lesson 05: GiB that adapters on `down` make Llama-3-8B keep: 1,000 tokens in bf16, f = 14,336, 32 layers."""
    right = 1000 * 14336 * 2 * 32 / _GIB
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
    why = f"{right:.2f} GiB, about a hundred times what the adapters themselves hold at rank 8"
    return number(answer, right, hints, why, 2e-3, hint=_HINT)


def check_recompute(full: float | None, lora: float | None) -> Verdict:
    """Lesson 05: how many times the arithmetic of a step checkpointing takes, for full fine-tuning and for LoRA."""
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
    return numbers((full, lora), (4 / 3, 3 / 2), "3 -> 4 and 2 -> 3: LoRA pays the larger share", near, wrong, 0.02)
