"""Exercises for lesson 09 (Monday): flip a claim with one premise, and plan a job with evidence for each line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lora_course.checks.verdict import Choice, Verdict, exercise, not_yet, unsolved
from lora_course.claims.cards import judge
from lora_lab.errors import LabError

FLIPPED, TO = "less_memory", "true"
STILL = {
    "times": "that changes what is claimed, not what it rests on: leave times at 3",
    "rank": "what trains is a small part already, so the rank hardly moves the peak",
    "targets": "more adapters add activations: the peak of LoRA grows",
    "seq": "longer rows add activations, which both methods keep: the ratio falls",
    "batch": "more rows add activations, which both methods keep: the ratio falls",
    "checkpointing": "that helps some models more than others; look at each dot",
    "models": "with this model the ratio stays below 3",
}


@exercise(
    "in the panel: which dots are left of the line, and what do they have in common?",
    "activations are the same for both methods: what makes them a smaller part?",
    'a larger model, or shorter rows: {"models": "llama-2-70b"}',
)
def check_flip(changes: Mapping[str, Any] | None) -> Verdict:
    """Lesson 09: check that one changed premise makes claim 3 (three times less memory) true."""
    if unsolved(changes):
        return not_yet('a premise and its new value: {"seq": 64}')
    if not isinstance(changes, Mapping) or len(changes) != 1 or not all(isinstance(name, str) for name in changes):
        return Verdict(False, 'change one premise, and write it as {"name": value}')
    (name,) = changes
    if name == "times":
        return Verdict(False, STILL[name])
    try:
        claim = judge(FLIPPED, **{name: changes[name]}) if name not in ("of", "store") else None
    except LabError as error:
        return Verdict(False, str(error))
    if claim is not None and claim.word == TO:
        return Verdict(True, str(claim))
    return Verdict(False, f"it's still {claim.words}: {STILL.get(name, '')}" if claim else f"'{name}' isn't a premise")


@dataclass(frozen=True)
class Brief:
    """A job: what is asked for, and the numbers that decide its plan."""

    text: str
    model: str
    gpu_gb: float
    tokens: int
    several: bool  # whether one server must use several adapters at once
    facts: bool  # whether it's about facts that change
    points: float  # half the accuracy's interval, as requested


BRIEFS = (
    Brief(
        "A 40 GB card and Llama 3 8B. 2,000 rows of 600 tokens, in three customers' own tones; one server must answer "
        "all three at once. The test should be good to ±2 points.", "llama-3-8b", 40, 600, True, False, 2,
    ),
    Brief(
        "A 16 GB card and Llama 3 8B. 3,000 rows of 500 tokens: turn e-mails into a fixed JSON form, for one customer, "
        "as fast as possible. The test should be good to ±5 points.", "llama-3-8b", 16, 500, False, False, 5,
    ),
    Brief(
        "A 24 GB card and Llama 2 13B. A shop wants its price list, new every week, in the answers: 1,000 rows of 400 "
        "tokens, one customer, as fast as possible. The test should be good to ±4 points.", "llama-2-13b", 24, 400,
        False, True, 4,
    ),
    Brief(
        "A 24 GB card and Llama 3.2 3B. 5,000 rows of 300 tokens: forty clubs, each in its own voice, on one server at "
        "the same time. The test should be good to ±3 points.", "llama-3.2-3b", 24, 300, True, False, 3,
    ),
)  # fmt: skip
EVIDENCE = {
    "peak": "04: the peak of one training step, predicted",
    "share": "00: under 1% of the numbers train",
    "rates": "03: start LoRA at about ten times full fine-tuning's rate; 2e-4 is published for 7B",
    "loss": "07: the loss fell and there was no error",
    "batch": "08: merged, it's one model; kept apart, each row of a batch has its own adapter",
    "file": "08: an adapter's file is small",
    "strings": "06: it learned a form, and facts mostly as strings",
    "root": "02: ±1.96 √(p (1 − p) / n)",
    "rank": "03: 8 and 32 are equivalent",
}
SUPPORT = {"method": "peak", "rate": "rates", "serve": "batch", "facts": "strings", "rows": "root"}
INSTEAD = {  # replies to tempting but wrong evidence
    ("method", "share"): "what trains is small, but the frozen weights and the activations have to fit too",
    ("serve", "file"): "a small file is cheap to store; it doesn't say who can be answered at once",
    ("facts", "loss"): "a falling loss shows that it repeats the rows, not that it knows them",
    ("rate", "loss"): "a falling loss doesn't say that another rate isn't better",
    ("rows", "rank"): "that verdict needed many rows; it doesn't say how many you need",
}
ROWS = (100, 400, 800, 1600, 10_000)


@cache
def lines(number: int) -> dict[str, Choice]:
    """Return the five lines of a brief's plan: the right choice, and a reply to each other one."""
    from lora_lab.accounting.gpus import of_size, usable
    from lora_lab.accounting.memory import memory
    from lora_lab.methods.full import FullFineTuning
    from lora_lab.methods.lora import LoRA

    brief = BRIEFS[number]
    room = usable(of_size(brief.gpu_gb)) / 2**30
    needs = {
        name: memory(brief.model, method, batch=1, seq=brief.tokens, checkpointing=True, quantised=bits).peak / 2**30
        for name, method, bits in (
            ("full", FullFineTuning(), "none"), ("LoRA", LoRA(16, targets=("all-linear",)), "none"),
            ("QLoRA", LoRA(16, targets=("all-linear",)), "nf4"),
        )
    }  # fmt: skip
    over = {name: f"one row needs {gib:.0f} GiB, and {room:.0f} is free" for name, gib in needs.items()}
    method = "LoRA" if needs["LoRA"] <= room else "QLoRA"
    spare = "it would fit, but LoRA in bf16 fits too, and doesn't have to dequantize at every step"
    needed = math.ceil(1.96**2 * 0.16 / (brief.points / 100) ** 2)
    rows = next(n for n in ROWS if n >= needed)
    widths = {n: f"at 80% that gives ±{196 * math.sqrt(0.16 / n):.1f} points" for n in ROWS}
    return {
        "method": Choice(
            [method], {**over, "QLoRA": spare}, f"{needs[method]:.0f} GiB of {room:.0f}"
        ),
        "rate": Choice(["2e-4"], {
            "2e-5": "that's near full fine-tuning's rate: LoRA needs about ten times that",
            "2e-4": "", "2e-3": "that was best for a model of 23M; large models need less",
        }, "and try half and double, on validation"),
        "serve": Choice(["beside" if brief.several else "merge"], {
            "merge": "merged, one model has one adapter: no batch can mix them",
            "beside": "it works, but one adapter alone is faster merged",
        }, "several at once" if brief.several else "one adapter, no extra products"),
        "facts": Choice(["in the prompt" if brief.facts else "none to learn"], {
            "in the prompt": "nobody asks for facts here: a tone or a form is what LoRA learns well",
            "in the weights": "it would repeat strings, and be out of date next week" if brief.facts
            else "nobody asks for facts here; an adapter learns a form",
            "none to learn": "a price list is facts, and they change",
        }, "look them up" if brief.facts else "a form or a tone"),
        "rows": Choice([f"{rows:,}"], {
            f"{n:,}": f"{widths[n]}; you need ±{brief.points:g}" if n < needed else f"{widths[n]}: fewer are enough"
            for n in ROWS
        }, widths[rows]),
    }  # fmt: skip


def brief(number: int) -> str:
    """Return a brief with the choices for its five lines, and the evidence to choose from."""
    choices = [f"  {name:7} {' | '.join(line.replies)}" for name, line in lines(number).items()]
    return "\n".join([BRIEFS[number].text, "", "Choose:", *choices, "", "Evidence:", *(
        f"  {name:8} {text}" for name, text in EVIDENCE.items()
    )])  # fmt: skip


def evidence_of(name: str) -> Choice:
    """Return the evidence for a line, and a reply to each other piece."""
    replies = {key: INSTEAD.get((name, key), f"that doesn't decide the line '{name}'") for key in EVIDENCE}
    return Choice([SUPPORT[name]], replies, "")


@exercise()
def check_brief(plan: Mapping[str, Any] | None, number: int = 0) -> Verdict:
    """Lesson 09: check the plan for a brief, {"method": ("LoRA", "peak"), ...}: choices and their evidence."""
    right = lines(number)
    if unsolved(plan) or (isinstance(plan, Mapping) and any(map(_open, plan.values()))):
        return not_yet("for each line a choice and the evidence for it")
    if not isinstance(plan, Mapping) or set(plan) != set(right):
        return Verdict(False, f"a plan has the lines {', '.join(right)}")
    wrong = []
    for name, choice in right.items():
        if not (isinstance(plan[name], tuple | list) and len(plan[name]) == 2):
            return Verdict(
                False, f'{name}: write a choice and its evidence, such as ("{next(iter(choice.replies))}", "peak")'
            )
        for given, expected in zip(plan[name], (choice, evidence_of(name)), strict=True):
            if (verdict := expected.judge(str(given))).passed is False:
                wrong.append(f"{name}, {given}: {verdict.words}")
    if wrong:
        return Verdict(False, "; ".join(wrong), f"{len(wrong)} to change.")
    return Verdict(True, "; ".join(f"{name}: {choice.right[0]} ({choice.why})" for name, choice in right.items()))


def _open(line: Any) -> bool:
    return unsolved(line) or (isinstance(line, tuple | list) and any(map(unsolved, line)))
