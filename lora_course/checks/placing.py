"""Exercises for lesson 13 (placement): ranks at equal budgets, and a plan and verdict for an unseen pair."""

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from lora_course.checks.comparing import PAIRS, defended, defense, scores
from lora_course.checks.verdict import Number, Verdict, exercise, parts, unsolved
from lora_lab import LoRA, params

RANK, BUDGET = 32, ("q", "v")  # the first exercise's budget: LoRA's parameter count at this rank on q,v
PLACES = {"attention": ("q", "k", "v", "o"), "everything": ("all-linear",)}
WHY = f"{{}} cost no more than rank {RANK} on q,v"
GAP, PILOT = 1.5, 3  # points; seeds
HINT = f"Hint: multiply the standard deviation by (1.96 + 0.84), divide by {GAP}, square the result, and round up"


@exercise
def check_ranks(attention: Any, everything: Any, model: str = "llama-3-8b") -> Verdict:
    """Lesson 13: check the highest ranks on q,k,v,o and on all linear layers within the budget of rank 32 on q,v."""
    right, cost = {}, params(model, LoRA(1, targets=BUDGET)).trainable
    for name, targets in PLACES.items():
        exact = RANK * cost / params(model, LoRA(1, targets=targets)).trainable
        near = {
            exact: f"{exact:.2f} is exact, but a rank is a whole number: which one stays within the budget?",
            math.ceil(exact): "that rank goes over the budget: round down",
            RANK: "that is the rank on q,v: more matrices at the same rank train more parameters",
        }
        hint = "divide the budget by what rank 1 costs on all these matrices together, not by their number"
        right[name] = Number(math.floor(exact), near, f"rank {math.floor(exact)} on {','.join(targets)}", fallback=hint)
    return parts(right, (attention, everything), why=WHY.format(" and ".join(rank.why for rank in right.values())))


def seeds_of(pair: str) -> tuple[str, Number]:
    """Return what a pilot of three seeds shows about a pair, and how many seeds can detect a gap of 1.5 points."""
    gaps = 100 * np.subtract(*(answers.mean(1) for answers in scores(pair)))  # in points, paired by seed
    spreads = [round(float(np.std(some, ddof=1)), 2) for some in (*combinations(gaps, PILOT), gaps)]
    needed, *others, of_all = (max(2, math.ceil((2.8 * spread / GAP) ** 2)) for spread in spreads)
    spread, exact = spreads[0], (2.8 * spreads[0] / GAP) ** 2
    question = (
        f"{' minus '.join(PAIRS[pair]['names'])}, {PILOT} seeds: {', '.join(f'{g:.2f}' for g in gaps[:PILOT])} points, "
        f"standard deviation {spread:.2f}. How many seeds detect a true gap of {GAP} points with 80% power?"
    )
    near = {
        exact: (part := "you can't train a part of a seed: round up"),
        math.floor(exact): part,
        2 * exact: "that is twice as many as you need: two runs with the same seed are a pair and give one difference",
        2.8 * spread / GAP: "square it: for half the gap, you need four times as many seeds",
        (1.96 * spread / GAP) ** 2: "with 1.96 alone you'd miss a true gap half the time: add the 0.84",
        (2.8 * spread) ** 2: f"that is for a gap of one point, not {GAP}",
    }
    why = (
        f"{exact:.1f}, rounded up. But {PILOT} seeds estimate the deviation badly: with all {len(gaps)} of ours, "
        f"you'd need {of_all}; with other sets of {PILOT}, {min(others)} to {max(others)}. Test sentences vary, too"
    )
    return question, Number(needed, near, why, fallback=f"n grows with the square of {spread:.2f} / {GAP}")


@exercise
def check_plan(seeds: Any, word: Any, sentence: Any, pair: str = "q against q,k,v,o") -> Verdict:
    """Lesson 13: check the seeds needed for an unseen pair, the verdict at a margin of 1.5 points, and a sentence."""
    question, needed = seeds_of(pair)
    if unsolved(seeds):
        return Verdict(None, question)
    planned = needed.judge(seeds)
    if not planned.passed:
        return replace(planned, hint=HINT)
    right = defense(pair, GAP)
    return defended(right, f"{planned.words}. The margin is {GAP} points. {right.seen}", word, sentence)
