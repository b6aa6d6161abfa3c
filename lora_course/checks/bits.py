"""Exercises for lesson 12 (QLoRA): quantize a block to NF4 by hand, and find what fits on a card."""

from collections.abc import Sequence
from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, matched, parts, texts, unsolved
from lora_lab import LoRA, memory, params
from lora_lab.accounting.gpus import card, usable
from lora_lab.lazy import torch
from lora_lab.methods.targets import bits_per_weight

SMALL, T4 = "RTX 3060 12 GB", "T4 16 GB"
CASES = (
    ("llama-3-8b", SMALL, 2800), ("mistral-7b", T4, 2048), ("gemma-2-9b", T4, 2048), ("llama-2-13b", SMALL, 4096),
    ("qwen2.5-7b", "L4 24 GB", 2048),
)  # fmt: skip
BITS = {"16 bits": 16.0, "4.5 bits": bits_per_weight("nf4-single"), "4.127 bits": bits_per_weight("nf4")}
GIB = 2**30
PAGE = texts("pages")["block"]
PARTS = {name: Number(**PAGE[name]) for name in ("index", "weight read back")}  # for pages without Python


@exercise
def check_block(absmax: Any, index: Any, back: Any, block: Any) -> Verdict:
    """Lesson 12: check a block's absmax, each number's level index (64,), and the dequantized block (64,)."""
    from lora_lab.methods.quant import levels_of

    if any(map(unsolved, (absmax, index, back))):
        return Verdict(None, "replace each ... with an expression")
    try:
        absmax, index, back = (torch.as_tensor(answer).detach().float() for answer in (absmax, index, back))
    except (TypeError, ValueError, RuntimeError) as error:
        return Verdict(False, f"absmax must be a number; index and back must be tensors of 64 numbers: {error}")
    largest, levels = block.abs().max(), levels_of("nf4")
    if absmax.numel() != 1 or not torch.isclose(absmax.squeeze(), largest):
        return Verdict(False, "absmax is the largest absolute value of the 64 numbers: -0.9 counts as 0.9")
    if index.shape != block.shape or back.shape != block.shape:
        return Verdict(False, f"index and back must have {len(block)} numbers each, one for each weight")
    distance = block[:, None] / largest - levels
    nearest = distance.abs().argmin(1)
    near = {
        "those are the levels themselves: the index is the position of the level, 0 to 15": levels[nearest],
        "you compared the unscaled block: divide it by absmax first": (block[:, None] - levels).abs().argmin(1),
        "argmin finds the most negative distance: take abs() first": distance.argmin(1),
    }
    fallback = f"the first weight is {block[0]:.4f}: its index is {nearest[0]}"
    judged = matched(lambda other: torch.allclose(index, other.float()), nearest, near, "", fallback)
    if not judged.passed:
        return judged
    return matched(
        lambda other: torch.allclose(back, other), levels[nearest] * largest,
        {"those are the levels: multiply by absmax": levels[nearest]},
        "64 weights are now 64 indices of 4 bits and one absmax: 4.5 bits per weight", "back is levels[index] * absmax",
    )  # fmt: skip


def sizes(name: str, tokens: int) -> tuple[int, int, int]:
    """Return the weight counts of linear layers and of other modules, and the bytes of a step that aren't weights."""
    count = params(name, lora := LoRA(rank=8, targets=("all-linear",)))
    linear = sum(layer.full for layer in count.modules if layer.trained)
    return linear, count.total - linear, memory(name, lora, seq=tokens, checkpointing=True).peak - 2 * count.total


def in_gib(case: tuple[str, str, int]) -> list[float]:
    """Return a case's sizes: linear layers and other modules in 16 bits, the rest of the step, and usable memory."""
    linear, other, rest = sizes(case[0], case[2])
    return [size / GIB for size in (2 * linear, 2 * other, rest, usable(card(case[1])))]


@exercise
def check_card(peak: Any, fits: Any, case: Sequence[Any] = CASES[0]) -> Verdict:
    """Lesson 12: check QLoRA's peak (GiB) with double quantization, and the most bits per weight that fit."""
    name, device, tokens = case
    (linear, other, rest), room = sizes(name, tokens), usable(card(device))

    def needed(bits: float) -> float:
        return linear * bits / 8 + 2 * other + rest

    nf4 = BITS["4.127 bits"]
    peaks = {
        16.0: "that is 16 bits for every weight, but a weight in a linear layer takes 4.127",
        4.0: "those are the indices alone: absmax and its scales take 0.127 bits more",
        4.5: "that is without double quantization; with it, a weight takes 4.127 bits, not 4.5",
    }
    near = {needed(bits) / GIB: words for bits, words in peaks.items()} | {
        (needed(nf4) - rest) / GIB: "those are the weights alone: add the rest of the step",
        (linear * nf4 / 8 + rest) / GIB: "the weights outside the linear layers are missing: they take 2 bytes each",
        ((linear + other) * nf4 / 8 + rest) / GIB: "embeddings, norms and the head keep 16 bits",
        (needed(nf4) - rest + sizes(name, 2048)[2]) / GIB: f"the panel's text has 2,048 tokens; yours has {tokens:,}",
        needed(8 * nf4) / GIB: "8 bits are one byte: divide by 8",
        needed(nf4) / 1e9: "those are GB: a GiB has 2**30 bytes",
    }
    fallback = "add the weights in linear layers (4.127 bits), all other weights (16 bits), and the rest of the step"
    peak_is = Number(needed(nf4) / GIB, near, within=0.002, fallback=fallback, hint="replace each ... with a number")
    fit = next((word for word, bits in BITS.items() if needed(bits) < room), "none")
    replies = {
        word: f"with {word}, the step needs {needed(bits) / GIB:.2f} GiB, and {room / GIB:.2f} is usable: "
        + ("it fits, but more bits would fit, too" if needed(bits) < room else "that is too much")
        for word, bits in BITS.items()
    } | {"none": f"4.127 bits need {needed(nf4) / GIB:.2f} GiB, and {room / GIB:.2f} is usable"}
    reasons = {
        "16 bits": "even 16 bits fit: QLoRA isn't needed here",
        "4.5 bits": "4.5 bits fit, and double quantization would only free more memory",
        "4.127 bits": "only double quantization makes it fit: 4.5 bits are too much",
        "none": "not even 4.127 bits fit: the part that isn't quantized is too large, so shorten the text",
    }
    right = {"peak": peak_is, "fits": Choice([fit], replies, reasons[fit])}
    return parts(right, (peak, fits), "replace the first ... with a number, and the second with a word")
