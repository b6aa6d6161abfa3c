"""Exercises for lesson 09 (Monday): change one premise to flip a claim, and plan a job with evidence for each line."""

import math
from collections.abc import Mapping
from functools import cache
from itertools import chain
from typing import Any

from lora_course.checks.verdict import Choice, Verdict, exercise, plain, texts, unsolved
from lora_course.claims.cards import judge

FLIPPED, TO = "less_memory", "true"
TEXTS = texts("planning")
BRIEFS, EVIDENCE, SUPPORT = TEXTS["briefs"], TEXTS["evidence"], TEXTS["support"]
ROWS = (100, 400, 800, 1600, 10_000)


@exercise
def check_flip(changes: Mapping[str, Any] | None) -> Verdict:
    """Lesson 09: check that one changed premise makes claim 3 (a third of the memory) true."""
    if unsolved(changes):
        return Verdict(None, 'write a premise and its new value, such as {"seq": 512}')
    if not isinstance(changes, Mapping) or len(changes) != 1 or not all(isinstance(name, str) for name in changes):
        return Verdict(False, 'change one premise, and write it as {"name": value}')
    (name,) = changes
    if name in ("times", "of", "store"):
        return Verdict(False, TEXTS["still"].get(name, f"'{name}' isn't a premise of this claim"))
    claim = judge(FLIPPED, **{name: plain(changes[name])})
    verb = "stays" if claim.words == judge(FLIPPED).words else "is now"
    still = f'the claim {verb} "{claim.words}": {TEXTS["still"].get(name, "")}'
    alone = "\nOnly one case is left: name it whenever you quote the claim" if len(claim.cases) == 1 else ""
    return Verdict(True, f"{claim}{alone}") if claim.word == TO else Verdict(False, still)


@cache
def needed_and_usable(number: int) -> tuple[dict[str, float], float]:
    """Return a brief's peak memory by method, and the memory that is usable on its card, in GiB."""
    from lora_lab import FullFineTuning, LoRA, memory
    from lora_lab.accounting.gpus import card, usable

    brief, wide = BRIEFS[number], LoRA(16, targets=("all-linear",))
    steps = {"full": (FullFineTuning(), "none"), "LoRA": (wide, "none"), "QLoRA": (wide, "nf4")}
    setup = {"batch": 1, "seq": brief["tokens"], "checkpointing": True}
    peaks = {name: memory(brief["model"], of, quantised=bits, **setup).peak for name, (of, bits) in steps.items()}
    return {name: peak / 2**30 for name, peak in peaks.items()}, usable(card(brief["card"])) / 2**30


def evidence(number: int) -> dict[str, str]:
    """Return the evidence for a brief's lines, with the peaks of its methods."""
    needs, room = needed_and_usable(number)
    peaks = ", ".join(f"{name} {gib:.1f}" for name, gib in needs.items())
    return EVIDENCE | {"peak": EVIDENCE["peak"].format(peaks=peaks, room=f"{room:.1f}")}


def lines(number: int) -> dict[str, Choice]:
    """Return the five lines of a brief's plan: for each, the right choice, and a reply to every other choice."""
    brief, (needs, room) = BRIEFS[number], needed_and_usable(number)
    over = {name: f"with checkpointing, it needs {gib:.0f} GiB; {room:.1f} is usable" for name, gib in needs.items()}
    method = "LoRA" if needs["LoRA"] <= room else "QLoRA"
    spare = "QLoRA would fit, but LoRA in bf16 fits too, and doesn't have to dequantize at every step"
    needed = math.ceil(1.96**2 * 0.16 / (brief["points"] / 100) ** 2)
    rows = next(n for n in ROWS if n >= needed)
    widths = {n: f"at 80% accuracy, {n:,} rows give ±{196 * math.sqrt(0.16 / n):.1f} points" for n in ROWS}
    return {
        "method": Choice([method], {**over, "QLoRA": spare}, f"{needs[method]:.0f} of {room:.1f} GiB if checkpointed"),
        "rate": Choice(**TEXTS["rate"]),
        "serve": Choice(**TEXTS["serve"][brief["several"]]),
        "facts": Choice(**TEXTS["facts"][brief["facts"]]),
        "rows": Choice([f"{rows:,}"], {
            f"{n:,}": f"{widths[n]}; you need ±{brief['points']:g}" if n < needed else f"{widths[n]}: fewer are enough"
            for n in ROWS
        }, widths[rows]),
    }  # fmt: skip


def brief(number: int) -> str:
    """Return a brief with the choices for its five lines, and the evidence to choose from."""
    choices = [f"  {name:7} {' | '.join(line.replies)}" for name, line in lines(number).items()]
    support = [f"  {name:8} {text}" for name, text in evidence(number).items()]
    return "\n".join([BRIEFS[number]["text"], "", "Choose:", *choices, "", "Evidence:", *support])


def evidence_of(name: str) -> Choice:
    """Return the evidence that decides a line, and a reply to every other piece of evidence."""
    return Choice(
        [SUPPORT[name]], dict.fromkeys(EVIDENCE, "it doesn't decide this line") | TEXTS["instead"].get(name, {})
    )


@exercise
def check_brief(plan: Mapping[str, Any] | None, number: int = 0) -> Verdict:
    """Lesson 09: check the plan for a brief, {"method": ("LoRA", "peak"), ...}: choices and their evidence."""
    right, told = lines(number), plan.items() if isinstance(plan, Mapping) else ()
    given = {name: line if isinstance(line, tuple | list) else [line] for name, line in told}
    if unsolved(plan) or any(map(unsolved, chain(*given.values()))):
        return Verdict(None, "for each line, give a choice and the evidence for it")
    if set(given) != set(right):
        return Verdict(False, f"a plan has the lines {', '.join(right)}")
    wrong = []
    for name, choice in right.items():
        if len(given[name]) != 2:
            return Verdict(False, f'{name}: write a choice and its evidence, such as ("LoRA", "peak")')
        for answer, expected in zip(given[name], (choice, evidence_of(name)), strict=True):
            if (verdict := expected.judge(str(answer))).passed is False:
                wrong.append(f"{name}, {answer}: {verdict.words}")
    if wrong:
        return Verdict(False, "; ".join(wrong), f"Entries to change: {len(wrong)}.")
    return Verdict(True, "; ".join(f"{name}: {choice.right[0]} ({choice.why})" for name, choice in right.items()))
