"""Exercises for lesson 18 (reproducing it): judge runs by a rule, and say what a published pair can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, parts
from lora_course.paper import table
from lora_course.paper.reproduce import item
from lora_course.paper.reproduce.base import Kept

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
    """Return the outcome of each of these runs by the item's own rule."""
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


WHY = {  # {right word: what a wrong one misses}
    "not tested": f"it took fewer than {PASS} steps, so it never saw every row: look at the steps first",
    "undecided": "fails needs the WHOLE interval beyond the margin, and holds needs every part",
    "fails": "one whole interval lies below -1.5, and one part is enough",
    "holds": "it was long enough, and every part is better or equivalent",
}


@exercise(
    "first the steps: was every training row seen?",
    "then each interval: is it wholly beyond the margin of 1.5 points?",
    "'worse', but not wholly beyond the margin, is undecided; so is 'equivalent' where 'better' is required",
)
def check_judge(words: Mapping[str, Any] | None, name: str) -> Verdict:
    """Lesson 18: check the outcome of runs A to C of this item, as {"A": "holds", ...}."""
    given = words if isinstance(words, Mapping) else {}
    answers: dict[str, Any] = {
        letter: (Choice([right], dict.fromkeys(OUTCOMES, WHY[right])), given.get(letter))
        for letter, right in outcomes(name).items()
    }
    why = "a rule that was written before the run leaves nothing to argue about"
    return parts(answers, f"a word for A, B and C: {', '.join(OUTCOMES)}", why)


# ---- a published pair

RTE = 277  # dev rows, according to GLUE's dataset card
PAIRS = {  # two rows of table 2 to compare on RTE, and what the pair shows
    "large": (("RoBERTa-large", "LoRA", "", "0.8M"), ("RoBERTa-large", "FT", "*", "355.0M"), "noise"),
    "base": (("RoBERTa-base", "LoRA", "", "0.3M"), ("RoBERTa-base", "FT", "*", "125.0M"), "unlike starts"),
    "dagger": (("RoBERTa-large", "LoRA", "†", "0.8M"), ("RoBERTa-large", "AdapterH", "†", "0.8M"), "a gap"),
}
SHOWN = ("noise", "unlike starts", "a gap")
MISSED = {
    "noise": "is the gap smaller than the one you need? Then the choice of rows alone can explain it",
    "unlike starts": "the gap is more than noise, but look at the marks: which of the two started from MNLI?",
    "a gap": "the gap is larger than you need, and † stands at both: neither started from MNLI",
}


def published(name: str) -> tuple[float, float]:
    """Return a pair's two published accuracies on RTE, in percent."""
    keys = ("model", "method", "mark", "trainable")
    first, second = (table("table2").row(**dict(zip(keys, row, strict=True)))["RTE"] for row in PAIRS[name][:2])
    return first, second


def pair(name: str) -> tuple[Number, Number, Choice]:
    """Return the three right answers: the gap's standard error, the gap needed (both in points), and a word."""
    a, b = (accuracy / 100 for accuracy in published(name))
    variance = a * (1 - a) + b * (1 - b)
    error = 100 * math.sqrt(variance / RTE)
    right_error = Number(error, {
        100 * math.sqrt(variance / RTE / 5): "five seeds on the same rows aren't five times the rows",
        **{100 * math.sqrt(p * (1 - p) / RTE): "that is one accuracy's; the variances of two add up" for p in (a, b)},
        error / 100: "that is a share; give points",
        1.96 * error: "that is 1.96 of them: the second answer",
    }, "", 0.02)  # fmt: skip
    power = "2.8 is for finding it in 80 of 100 studies; here 1.96"
    points = Number(1.96 * error, {error: "that is one error", 2.8 * error: power}, "", 0.03, "1.96 standard errors")
    word = PAIRS[name][2]
    return right_error, points, Choice((word,), dict.fromkeys(SHOWN, MISSED[word]), "")


@exercise(
    "one accuracy p on n rows has variance p (1 - p) / n; the variances of two add up",
    "error = 100 * ((p * (1 - p) + q * (1 - q)) / 277) ** 0.5, and the gap needed is 1.96 of them",
    "compare the printed gap with it; then ask whether both runs started alike",
)
def check_published(error: Any, points: Any, word: Any, name: str) -> Verdict:
    """Lesson 18: check a published gap's standard error, the gap needed, both in points, and what the pair shows."""
    right = pair(name)
    answers: dict[str, Any] = {"error": (right[0], error), "points": (right[1], points), "word": (right[2], word)}
    why = f"on {RTE} rows, a gap below {right[1].right:.1f} points can be luck"
    return parts(answers, "replace the ... with two numbers and a word", why)
