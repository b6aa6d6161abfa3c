"""Exercises for lesson 16 (variants): rsLoRA written as plain LoRA, and the rate at which a variant looks best."""

from collections.abc import Callable
from math import sqrt
from numbers import Real
from typing import Any

from lora_course.checks.verdict import Choice, Function, Number, Verdict, exercise, parts, plain, texts
from lora_course.claims.evidence import PLAIN, TUNED, VARIANTS, comparison

NINE = (*VARIANTS.values(), "ia3")
LABELS = {name: label for name, label in VARIANTS.items() if label.startswith(PLAIN)}  # tried at plain LoRA's rates

AS_PLAIN = Function(
    cases=[(64, 64), (16, 8), (8, 4), (32, 1)],
    right=lambda alpha, rank: alpha * sqrt(rank),
    why="",
    near={
        "that is rsLoRA's scaling: which alpha, divided by the rank, gives the same?": lambda a, r: a / sqrt(r),
        "with the same alpha, plain LoRA's scaling is sqrt(rank) times smaller": lambda a, r: a,
        "sqrt(rank), not rank: rsLoRA divides by the root": lambda a, r: a * r,
        "the other way around: rsLoRA scales by more than plain LoRA": lambda a, r: a / r,
    },
    fallback="set alpha / sqrt(rank) equal to x / rank, and solve for x",
)
DIVIDE = "alpha 45 is 2.8 times LoRA's 16: divide 0.004 by the square root of 2.8"
BEST = Choice(
    ["0.002"],
    dict.fromkeys(("0.00025", "0.0005", "0.001", "0.002"), DIVIDE)
    | dict.fromkeys(("0.004", "0.008"), "a larger alpha needs a lower rate than LoRA's 0.004"),
    "0.004 divided by sqrt(2.8) is 0.0024, and 0.002 is the nearest. Does the picture agree?",
)


@exercise
def check_as_plain(alpha_of_plain: Callable[[float, int], float], rate: Any) -> Verdict:
    """Lesson 16: check f(alpha, rank), the alpha at which LoRA equals rsLoRA, and rsLoRA's best rate at rank 8."""
    right, unanswered = {"alpha_of_plain": AS_PLAIN, "rate": BEST}, "replace each ... with an answer"
    return parts(right, (alpha_of_plain, rate), unanswered, hints=texts("hints")["as_plain"])


def accuracies(label: str) -> dict[float, float]:
    """Return a method's validation accuracy in percent at each rate that was tried for it."""
    (tried,) = (row["tried"] for row in comparison(TUNED)["methods"] if row["label"] == label)
    return {one["lr"]: 100 * one["validation"] for one in tried}


def ahead(variant: str) -> dict[float, float]:
    """Return, for each rate, the points by which a variant leads plain LoRA on validation if both use that rate."""
    own, lora = accuracies(LABELS[variant]), accuracies(PLAIN)
    return {rate: round(own[rate] - lora[rate], 1) for rate in sorted(own.keys() & lora.keys())}


@exercise
def check_flattered(rate: Any, tuned: Any, variant: str = "LoRA+") -> Verdict:
    """Lesson 16: check the shared rate at which a variant is farthest ahead of LoRA, and its lead if both are tuned."""
    leads, (own, lora) = ahead(variant), (max(accuracies(label).values()) for label in (LABELS[variant], PLAIN))
    most, fair = max(leads, key=lambda lr: leads[lr]), round(own - lora, 1)
    replies = {f"{lr:g}": f"at that rate, the table says {lead:+.1f} for {variant}" for lr, lead in leads.items()}
    near = {leads[most]: "that is with one rate for both", -fair: "wrong sign: subtract LoRA's points"}
    near[fair / 100] = "that is a fraction; answer in points"
    why = (
        f'your abstract: "At the same rate, {variant} is {leads[most]} points better than LoRA." It doesn\'t say that '
        f"LoRA's best rate is a different one. With both tuned, {variant} is {-fair} points behind"
    )
    answers = rate, fair if isinstance(tuned := plain(tuned), Real) and round(tuned, 1) == fair else tuned
    right = {"rate": Choice([f"{most:g}"], replies), "tuned": Number(fair, near, why)}
    return parts(right, answers, hints=texts("hints")["flattered"])
