"""Exercises for lesson 18 (reproducing it): judge runs by a rule, and say what a published pair can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, parts, texts
from lora_course.paper import table
from lora_course.paper.reproduce import Kept, item

OUTCOMES = ("holds", "fails", "undecided", "not tested")
ITEMS = ("table2", "table5", "table6")
PASS = 377  # steps that show every training row of these items once
INTERVALS = {  # in points, for each verdict with a margin of 1.5
    "better": (1.2, 3.9),
    "equivalent": (-1.1, 0.6),
    "worse": (-2.9, -0.2),
    "much worse": (-4.4, -1.8),
    "undecided": (-3.1, 0.9),
}
RUNS = {  # for each item: steps, and the verdicts on its pairs
    "table2": ((500, ("worse",)), (90, ("much worse",)), (400, ("equivalent",))),
    "table5": ((400, ("better", "equivalent")), (400, ("better", "much worse")), (200, ("better", "better"))),
    "table6": ((380, ("equivalent", "better")), (240, ("equivalent", "much worse")), (400, ("equivalent", "worse"))),
}


def runs(name: str) -> dict[str, dict[str, Any]]:
    """Return three made-up reruns of an item, A to C: steps, and the verdict on each of its pairs."""
    pairs = item(name).pairs
    reruns = {}
    for letter, (steps, labels) in zip("ABC", RUNS[name], strict=True):
        words = {pair: _verdict(label)["words"] for pair, label in zip(pairs, labels, strict=True)}
        reruns[letter] = {"steps": steps, **words}
    return reruns


def outcomes(name: str) -> dict[str, str]:
    """Return the outcome of each of an item's reruns, according to the item's own rule."""
    rerun, standings = item(name), dict[str, str]()
    rows = {row: [80.0, 81.0] for row in (rerun.learned or {})["rows"]} | {"head": [67.0]}
    for letter, (steps, labels) in zip("ABC", RUNS[name], strict=True):
        verdicts = dict(zip(rerun.pairs, map(_verdict, labels), strict=True))
        standings[letter] = rerun.judged(Kept(rows, {"steps": steps}, verdicts)).standing
    return standings


def _verdict(label: str) -> dict[str, Any]:
    low, high = INTERVALS[label]
    outcome = label.split()[-1]
    words = f"{outcome} ({90 if outcome == 'equivalent' else 95}% interval {low} to {high} points)"
    return {"outcome": outcome, "low": low / 100, "high": high / 100, "margin": 0.015, "words": words}


WHY, MISSED = texts("reproducing")["rerun"], texts("reproducing")["pair"]  # {right word: reply to a wrong one}


@exercise
def check_judge(words: Mapping[str, Any] | None, name: str) -> Verdict:
    """Lesson 18: check the outcome of runs A to C of this item, as {"A": "holds", ...}."""
    given = words if isinstance(words, Mapping) else {}
    right = {letter: Choice([word], dict.fromkeys(OUTCOMES, WHY[word])) for letter, word in outcomes(name).items()}
    why = "a rule that was written before the run leaves nothing to argue about"
    return parts(right, [*map(given.get, right)], f"give a word for each of A, B and C: {', '.join(OUTCOMES)}", why)


# ---- a published pair

RTE = 277  # dev rows, according to GLUE's dataset card
PAIRS = {  # two rows of table 2 to compare on RTE, and what the pair shows
    "large": (("RoBERTa-large", "LoRA", "", "0.8M"), ("RoBERTa-large", "FT", "*", "355.0M"), "noise"),
    "base": (("RoBERTa-base", "LoRA", "", "0.3M"), ("RoBERTa-base", "FT", "*", "125.0M"), "unlike starts"),
    "dagger": (("RoBERTa-large", "LoRA", "†", "0.8M"), ("RoBERTa-large", "AdapterH", "†", "0.8M"), "a gap"),
}
SHOWN = ("noise", "unlike starts", "a gap")


def published(name: str) -> tuple[float, float]:
    """Return a pair's two published accuracies on RTE, in percent."""
    keys = ("model", "method", "mark", "trainable")
    first, second = (table("table2").row(**dict(zip(keys, row, strict=True)))["RTE"] for row in PAIRS[name][:2])
    return first, second


@exercise
def check_published(error: Any, points: Any, word: Any, name: str) -> Verdict:
    """Lesson 18: check a published gap's standard error and the gap needed, in points, and what the pair shows."""
    a, b = (accuracy / 100 for accuracy in published(name))
    variance = a * (1 - a) + b * (1 - b)
    exact = 100 * math.sqrt(variance / RTE)
    right_error = Number(exact, {
        100 * math.sqrt(variance / RTE / 5): "five seeds on the same rows aren't five times the rows",
        **{100 * math.sqrt(p * (1 - p) / RTE): "that is for one accuracy; the variances of two add up" for p in (a, b)},
        exact / 100: "that is a fraction; give points",
        1.96 * exact: "that is 1.96 standard errors, which is the second answer",
    }, "", 0.02)  # fmt: skip
    power = "2.8 standard errors are for detecting a gap with 80% power; here, take 1.96"
    right_points = Number(
        1.96 * exact, {exact: "that is one standard error", 2.8 * exact: power}, "", 0.03, "1.96 standard errors"
    )
    shown = PAIRS[name][2]
    right = {
        "error": right_error,
        "points": right_points,
        "word": Choice((shown,), dict.fromkeys(SHOWN, MISSED[shown])),
    }
    why = f"on {RTE} rows, a gap below {right_points.right:.1f} points can be luck"
    return parts(right, (error, points, word), "replace the ... with two numbers and a word", why)
