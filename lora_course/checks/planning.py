"""Exercises for lesson 09 (Monday): change one premise to flip a claim, and plan a job."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from lora_course.checks.verdict import Choice, Verdict, exercise, plain, texts, unsolved
from lora_course.claims.cards import judge

FLIPPED, TO = "less_memory", "true"
TEXTS = texts("planning")
BRIEFS = TEXTS["briefs"]
ROWS = (100, 400, 800, 1600, 10_000)


@exercise
def check_flip(changes: Mapping[str, Any] | None) -> Verdict:
    """Lesson 09: check that one changed premise makes claim 3 (a third of the memory) true."""
    if unsolved(changes) or (isinstance(changes, Mapping) and any(map(unsolved, changes.values()))):
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
    _, reason = TEXTS["flipped"].split(". ", 1)
    why = f"\n{reason}" * (name in ("seq", "batch"))
    return Verdict(True, f"{claim}{alone}{why}") if claim.word == TO else Verdict(False, still)


@cache
def needed_and_usable(number: int) -> tuple[dict[str, float], float]:
    """Return a brief's peak memory by method, and the memory that is usable on its card, in GiB."""
    from lora_lab import FullFineTuning, LoRA, memory
    from lora_lab.accounting.gpus import card, usable

    brief, wide = BRIEFS[number], LoRA(16, targets=("all-linear",))
    steps = {"full": (FullFineTuning(), "none"), "LoRA": (wide, "none"), "QLoRA": (wide, "nf4")}
    setup = {"batch": 1, "seq": brief["tokens"], "checkpointing": True}
    peaks = {name: memory(brief["model"], of, quantized=bits, **setup).peak for name, (of, bits) in steps.items()}
    return {name: peak / 2**30 for name, peak in peaks.items()}, usable(card(brief["card"])) / 2**30


def lines(number: int) -> dict[str, Choice]:
    """Return the five lines of a brief's plan: for each, the right choice, and what every other choice leads to."""
    brief, (needs, room), (over, spare, fits) = BRIEFS[number], needed_and_usable(number), TEXTS["method"].values()
    sizes = {name: {"need": f"{gib:.0f}", "room": f"{room:.1f}"} for name, gib in needs.items()}
    method = "LoRA" if needs["LoRA"] <= room else "QLoRA"
    replies = {name: over.format(**size) for name, size in sizes.items()} | {"QLoRA": spare}
    needed = math.ceil(1.96**2 * 0.16 / (brief["points"] / 100) ** 2)
    rows = next(n for n in ROWS if n >= needed)
    got = {n: {"got": f"±{196 * math.sqrt(0.16 / n):.1f} points", "points": brief["points"]} for n in ROWS}
    few, many, enough = TEXTS["rows"].values()
    return {
        "method": Choice([method], replies, fits.format(**sizes[method])),
        "rate": Choice(**TEXTS["rate"]),
        "serve": Choice(**TEXTS["serve"][brief["several"]]),
        "facts": Choice(**TEXTS["facts"][brief["facts"]]),
        "rows": Choice(
            [f"{rows:,}"],
            {f"{n:,}": (few if n < needed else many).format(**words) for n, words in got.items()},
            enough.format(**got[rows]),
        ),
    }


def job(number: int) -> str:
    """Return a brief's text, with the size of the model's weights."""
    from lora_lab.accounting.models import architecture_of

    weights = 2 * architecture_of(BRIEFS[number]["model"]).total / 2**30
    return str(TEXTS["terms"]).format(**BRIEFS[number], weights=weights)


def brief(number: int) -> str:
    """Return a brief with the questions for its five lines, and their choices."""
    asked = TEXTS["questions"]
    questions = (f"{name}: {asked[name]} {' | '.join(line.replies)}" for name, line in lines(number).items())
    return "\n- ".join([job(number), *questions])


@exercise
def check_brief(plan: Mapping[str, Any] | None, number: int = 0) -> Verdict:
    """Lesson 09: check the plan for a brief, {"method": "LoRA", ...}, and say what each wrong choice leads to."""
    right, given = lines(number), plan if isinstance(plan, Mapping) else {}
    if unsolved(plan) or any(map(unsolved, given.values())):
        return Verdict(None, "make a choice for each line")
    if set(given) != set(right):
        return Verdict(False, f"a plan has the lines {', '.join(right)}")
    replies = {name: choice.judge(given[name]) for name, choice in right.items()}
    wrong = [f"{name}, {given[name]}: {reply.words}" for name, reply in replies.items() if not reply.passed]
    if wrong:
        return Verdict(False, "\n".join(wrong), f"Lines to change: {len(wrong)}.")
    return Verdict(True, "\n".join(f"{name}, {choice.right[0]}: {choice.why}" for name, choice in right.items()))
