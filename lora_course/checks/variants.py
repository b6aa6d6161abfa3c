"""Exercises for lesson 16 (variants): rsLoRA written as plain LoRA, and the one rate that makes a variant look best."""

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


def ahead(variant: str) -> dict[float, float]:
    """Return, for each rate, the points by which a variant leads plain LoRA on validation if both use that rate."""
    rows = {row["label"]: row["tried"] for row in comparison(TUNED)["methods"]}
    own, plain = ({tried["lr"]: tried["validation"] for tried in rows[label]} for label in (LABELS[variant], PLAIN))
    return {rate: round(100 * (own[rate] - plain[rate]), 1) for rate in sorted(own.keys() & plain.keys())}


@exercise
def check_flattered(rate: Any, points: Any, variant: str = "DoRA") -> Verdict:
    """Lesson 16: check the rate at which a variant looks best against plain LoRA, and its lead with tuned rates."""
    shared, points = ahead(variant), plain(points)
    points = round(float(points), 1) + 0.0 if isinstance(points, Real) else points  # rounded as in the printed lead
    best = max(shared, key=lambda lr: shared[lr])
    scores = scores_in(comparison(TUNED))
    fair = round(100 * verdict(scores[LABELS[variant]], scores[PLAIN]).difference, 1) + 0.0  # not -0.0
    words = "at {:g}, the lead is {:+.1f} points: another rate flatters the variant more"
    less = {lr: words.format(lr, lead) for lr, lead in shared.items() if lr != best}
    points_ahead = {shared[best]: "that is with one rate for both: use each one's own rate, and the test scores"}
    points_ahead |= {-fair: "wrong sign: subtract plain LoRA's points from the variant's"} if fair else {}
    points_ahead |= {0.0: "give points with one decimal: a fraction of 0.01 is 1 point"}
    why = f"with one rate for both, the lead is {shared[best]:+.1f} points; with each one's own rate, {fair:+.1f}"
    return parts({"rate": Number(best, less), "points": Number(fair, points_ahead, why)}, (rate, points))
