"""Exercises for lesson 16 (variants): rsLoRA written as plain LoRA, and the lead of a variant over an untuned LoRA."""

from collections.abc import Callable
from math import sqrt
from numbers import Real
from typing import Any

from lora_course.checks.verdict import Function, Number, Verdict, exercise, parts, plain
from lora_course.claims.evidence import PLAIN, TUNED, VARIANTS, comparison
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import verdict

EIGHT = tuple(VARIANTS.values())
LABELS = {name: label for name, label in VARIANTS.items() if label.startswith(PLAIN)}  # tried at plain LoRA's rates

AS_PLAIN = Function(
    cases=[(64, 64), (16, 8), (8, 4), (32, 1)],
    right=lambda alpha, rank: alpha * sqrt(rank),
    why="so rsLoRA in that table is plain LoRA with alpha 512: the table compares alpha 512 with 128, at one rate",
    near={
        "that is rsLoRA's scaling: which alpha, divided by the rank, gives the same?": lambda a, r: a / sqrt(r),
        "with the same alpha, plain LoRA's scaling is sqrt(rank) times smaller": lambda a, r: a,
        "sqrt(rank), not rank: rsLoRA divides by the root": lambda a, r: a * r,
        "the other way around: rsLoRA scales by more than plain LoRA": lambda a, r: a / r,
    },
    fallback="set alpha / sqrt(rank) equal to x / rank, and solve for x",
)


@exercise
def check_as_plain(alpha_of_plain: Callable[[float, int], float]) -> Verdict:
    """Lesson 16: check f(alpha, rank), the alpha that makes plain LoRA equal rsLoRA with the given alpha and rank."""
    return AS_PLAIN.judge(alpha_of_plain)


def accuracies(label: str) -> dict[float, float]:
    """Return a method's validation accuracy in percent at each rate that was tried for it."""
    (tried,) = (row["tried"] for row in comparison(TUNED)["methods"] if row["label"] == label)
    return {one["lr"]: 100 * one["validation"] for one in tried}


def ahead(variant: str) -> dict[float, float]:
    """Return, for each rate, the points by which a variant leads plain LoRA on validation if both use that rate."""
    own, lora = accuracies(LABELS[variant]), accuracies(PLAIN)
    return {rate: round(own[rate] - lora[rate], 1) for rate in sorted(own.keys() & lora.keys())}


@exercise
def check_flattered(untuned: Any, tuned: Any, variant: str = "DoRA", rate: float = 5e-4) -> Verdict:
    """Lesson 16: check a tuned variant's lead over LoRA at `rate` (on validation) and over tuned LoRA (on test)."""
    lora, best, scores = accuracies(PLAIN), max(accuracies(LABELS[variant]).values()), scores_in(comparison(TUNED))
    fair = 100 * verdict(scores[LABELS[variant]], scores[PLAIN]).difference
    unfair, fair, seen = (round(lead, 1) + 0.0 for lead in (best - lora[rate], fair, best - max(lora.values())))
    answers = [round(float(one), 1) + 0.0 if isinstance(one, Real) else one for one in map(plain, (untuned, tuned))]
    near = {ahead(variant)[rate]: "that is with this rate for both", seen: "that is with both tuned: LoRA isn't"}
    near_tuned = {seen: "that is on validation: use the test scores", -fair: "wrong sign: subtract LoRA's points"}
    near_tuned |= {0.0: "give points with one decimal: a fraction of 0.01 is 1 point"}
    why = f"if LoRA isn't tuned, the lead is {unfair:+.1f} points; if both are, it is {fair:+.1f}"
    return parts({"untuned": Number(unfair, near), "tuned": Number(fair, near_tuned, why)}, answers)
