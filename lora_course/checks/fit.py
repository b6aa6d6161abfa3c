"""Exercises for lesson 04 (will it fit?): a formula for the peak, and the longest text that fits a card."""

from collections.abc import Callable
from dataclasses import replace

from lora_course.checks.verdict import Function, Verdict, exercise, plain, texts, unsolved
from lora_lab.accounting.gpus import card as card_of
from lora_lab.accounting.gpus import usable
from lora_lab.accounting.memory import Estimate, estimate, largest
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import binary
from lora_lab.methods.base import one_of

V, L, H = 128_256, 32, 4096  # Llama 3 8B: vocabulary size, layers, hidden size
SHORTEST = 32  # tokens; the stored estimates of memory start at this length
NEAR = 0.95  # a text with at least this fraction of the longest possible length is long enough
ALMOST = 0.02  # a step almost fits if its excess is below this fraction of the card's usable memory
HINTS = texts("hints")["longest_row"]
TEXTS, PARTS = texts("fit"), ("weights", "logits", "activations")
ROW = TEXTS["row"]


def step(method: str, setup: Setup) -> Estimate:
    """Estimate a step of Llama 3 8B with one of the panel's methods, at rank 8. Raises: BadValue for other methods."""
    from lora_lab.widgets.memory_panel import METHODS

    one_of("method", method, tuple(METHODS))
    return estimate("llama-3-8b", METHODS[method], replace(setup, quantized="nf4" if method == "QLoRA" else "none"))


@exercise
def check_peak(peak: Callable[[int], float]) -> Verdict:
    """Lesson 04: check f(tokens), the peak bytes of QLoRA with checkpointing on Llama 3 8B for one text."""
    sizes = step("QLoRA", Setup(checkpointing=True)).categories
    fixed, inputs, tables = sizes["weights"] + sizes["optimizer"], 2 * L * H, 12 * V
    near: dict[str, Callable[[int], float]] = {
        "that is one table of logits: the loss holds three at once": lambda t: fixed + t * (inputs + tables / 3),
        "the loss is computed in fp32: scores take 4 bytes in each table": lambda t: fixed + t * (inputs + tables / 2),
        "that is `fixed` and the logits: each of the 32 layers also saves its input": lambda t: fixed + t * tables,
        "those are the logits alone: add the saved inputs, and `fixed`": lambda t: t * tables,
        "that is `fixed` and the saved inputs: the logits are missing": lambda t: fixed + t * inputs,
        "the layers compute in bf16: 2 bytes per number, not 4": lambda t: fixed + t * (2 * inputs + tables),
        "weights and optimizer are missing: even a short text needs both": lambda t: t * (inputs + tables),
        "the optimizer is missing: 2 numbers per parameter": lambda t: sizes["weights"] + t * (inputs + tables),
        "that is for one token: multiply by `tokens`, and add `fixed`": lambda t: inputs + tables,
        "that is the same for every length: multiply by `tokens`": lambda t: fixed + inputs + tables,
        "a number that a layer saves takes 2 bytes": lambda t: fixed + t * (inputs / 2 + tables),
        "those are GB: a GiB has 2**30 bytes": lambda t: fixed * 1e9 / 2**30 + t * (inputs + tables),
        "those are the weights of LoRA on q, v: choose QLoRA": lambda t: 15.025 * 2**30 + t * (inputs + tables),
        "token vectors and the head stay in 16 bits: 5.4 GiB": lambda t: 3.86 * 2**30 + t * (inputs + tables),
        "those are GiB: multiply by 2**30": lambda t: (fixed + t * (inputs + tables)) / 2**30,
    }
    why = f"a token costs {(inputs + tables) / 1e6:.2f} MB, and {tables / (inputs + tables):.0%} of that is logits"
    wrong = "start with `fixed` in bytes (1 GiB is 2**30); per token, add what the layers save and what the loss holds"
    cases = [(512,), (2048,), (8192,)]
    return Function(cases, lambda t: fixed + t * (inputs + tables), why, near, wrong, within=0.015).judge(peak)


@exercise
def check_longest_row(
    method: str, checkpointing: bool, optimizer: str, batch: int, seq: int, card: str = "T4 16 GB"
) -> Verdict:
    """Lesson 04: check that a step of Llama 3 8B fits on the card, with a text within 5% of the longest that fits."""
    if any(map(unsolved, (method, checkpointing, optimizer, batch, seq))):
        return Verdict(None, f"choose a method, checkpointing, an optimizer, batch and seq for a {card}")
    method = {"full fine-tuning": "full", "prompt tuning": "prompt"}.get(str(method), method)  # as in the panel
    if not isinstance(checkpointing := plain(checkpointing), bool):
        return Verdict(False, f"checkpointing is True or False, not {checkpointing!r}")
    batch, seq = (int(n) if isinstance(n, float) and n.is_integer() else n for n in map(plain, (batch, seq)))
    setup = Setup(checkpointing=checkpointing, optimizer=optimizer, batch=batch, seq=seq)
    if seq < SHORTEST:
        return Verdict(False, f"seq must be at least {SHORTEST} tokens, not {seq}", HINTS["seq"])
    needed, room = step(method, setup), usable(card_of(card))
    values, free = {"size": binary(needed.peak), "at": needed.at, "card": card}, room - needed.peak
    part = wrong_part(method, setup)
    if free < 0:
        why = ROW["left_out"] if part == "seq" and -free < ALMOST * room else over(method, needed, room)
        return Verdict(False, ROW["over"].format(**values, more=binary(-free), why=why), HINTS[part])
    if seq >= NEAR * (best := longest("QLoRA", Setup(checkpointing=True, optimizer="sgd"), card)):
        return Verdict(True, ROW["fits"].format(**values, seq=f"{seq:,}", free=binary(free)))
    why = str(TEXTS["short"][part]).format(batch=setup.batch)
    return Verdict(False, ROW["short"].format(**values, times=f"{best / seq:.1f}", why=why), HINTS[part])


def wrong_part(method: str, setup: Setup) -> str:
    """For a wrong choice, return the first setting that prevents long texts, or "seq" if the others are right."""
    if method != "QLoRA":
        return "method"
    return "checkpointing" if not setup.checkpointing else "seq" if setup.batch == 1 else "batch"


def longest(method: str, setup: Setup, card: str) -> int:
    """Return the length in tokens of the longest text that fits on the card; 0 if none does."""
    return largest("seq", setup, lambda candidate: step(method, candidate), usable(card_of(card))) or 0


def over(method: str, needed: Estimate, room: int) -> str:
    """Return what fills the card, or why no text fits with this method."""
    if method == "full":
        return "full fine-tuning trains every weight, and each weight has a gradient"
    size = needed.categories
    if size["weights"] > room:
        return f"the frozen weights alone take {binary(size['weights'])}: no text is short enough"
    return ROW["holds"].format(parts=", ".join(f"{name} {binary(size[name])}" for name in PARTS if name in size))
