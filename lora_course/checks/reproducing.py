"""Exercises of lesson 18, reproduce the paper: judge runs by a rule, and say what a published pair can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, not_yet, parts, unsolved
from lora_course.paper import table
from lora_course.paper.reproduce import item
from lora_course.paper.reproduce.base import Kept

OUTCOMES = ("holds", "fails", "undecided", "not tested")
ITEMS = ("table2", "table5", "table6")
PASS = 377  # steps in which these items see every training row once
SAID = {  # what an interval in points says with a margin of 1.5
    "better": (1.2, 3.9),
    "equivalent": (-1.1, 0.6),
    "worse": (-2.9, -0.2),
    "much worse": (-4.4, -1.8),
    "undecided": (-3.1, 0.9),
}
RUNS = {  # of each item: steps, and what is said of its pairs
    "table2": ((500, ("worse",)), (90, ("much worse",)), (400, ("equivalent",))),
    "table5": ((400, ("better", "equivalent")), (400, ("better", "much worse")), (200, ("better", "better"))),
    "table6": ((380, ("equivalent", "better")), (240, ("equivalent", "much worse")), (400, ("equivalent", "worse"))),
}


def runs(name: str) -> dict[str, dict[str, Any]]:
    """Three made-up reruns of an item, A to C: steps, and the verdict on each of its pairs."""
    pairs = item(name).pairs
    made = {}
    for letter, (steps, said) in zip("ABC", RUNS[name], strict=True):
        verdicts = {pair: _verdict(outcome) for pair, outcome in zip(pairs, said, strict=True)}
        made[letter] = {"steps": steps, **{pair: one["words"] for pair, one in verdicts.items()}}
    return made


def outcomes(name: str) -> dict[str, str]:
    """What the item's own rule says of each of these runs."""
    one, found = item(name), dict[str, str]()
    rows = {row: [80.0, 81.0] for row in (one.learned or {})["rows"]} | {"head": [67.0]}
    for letter, (steps, said) in zip("ABC", RUNS[name], strict=True):
        verdicts = dict(zip(one.pairs, map(_verdict, said), strict=True))
        found[letter] = one.judged(Kept(rows, {"steps": steps}, verdicts)).standing
    return found


def _verdict(said: str) -> dict[str, Any]:
    low, high = SAID[said]
    outcome = said.split()[-1]
    words = f"{outcome} ({90 if outcome == 'equivalent' else 95} % interval {low} to {high} points)"
    return {"outcome": outcome, "low": low / 100, "high": high / 100, "margin": 0.015, "words": words}


WHY = {  # what the wrong word misses, by the right one
    "not tested": f"it took fewer than {PASS} steps, so it never saw every row: look at the steps first",
    "undecided": "fails needs the WHOLE interval beyond the margin, and holds needs every part",
    "fails": "one whole interval lies below -1.5, and one part is enough",
    "holds": "it was long enough, and every part is better or equivalent",
}


@exercise(
    "first the steps: was every training row seen?",
    "then each interval: is it wholly beyond the margin of 1.5 points?",
    "'worse', but not wholly beyond the margin, is undecided; so is equivalent where better is asked",
)
def check_judge(words: Mapping[str, Any] | None, name: str) -> Verdict:
    """Lesson 18: the outcome of runs A to C of this item, as {"A": "holds", ...}."""
    if not isinstance(words, Mapping) or any(unsolved(words.get(letter)) for letter in "ABC"):
        return not_yet(f"a word for A, B and C: {', '.join(OUTCOMES)}")
    for letter, right in outcomes(name).items():
        given = str(words[letter]).strip().lower()
        if given not in OUTCOMES:
            return Verdict(False, f"{letter}: say one of {', '.join(OUTCOMES)}, not {words[letter]!r}")
        if given != right:
            return Verdict(False, f"{letter}: not '{given}': {WHY[right]}")
    return Verdict(True, "a rule that was written before the run leaves nothing to argue about")


# ---- a published pair

RTE = 277  # dev rows, by GLUE's data set card
PAIRS = {  # rows of table 2: whose RTE is compared, and what the pair shows
    "large": (("RoBERTa-large", "LoRA", "", "0.8M"), ("RoBERTa-large", "FT", "*", "355.0M"), "noise"),
    "base": (("RoBERTa-base", "LoRA", "", "0.3M"), ("RoBERTa-base", "FT", "*", "125.0M"), "unlike starts"),
    "dagger": (("RoBERTa-large", "LoRA", "†", "0.8M"), ("RoBERTa-large", "AdapterH", "†", "0.8M"), "a gap"),
}
SHOWN = ("noise", "unlike starts", "a gap")
MISSED = {
    "noise": "is the gap smaller than the one you need? Then the rows alone can make it",
    "unlike starts": "the gap is more than noise, but look at the marks: which of the two began from MNLI?",
    "a gap": "the gap is larger than you need, and † stands at both: neither began from MNLI",
}


def published(name: str) -> tuple[float, float]:
    """The two printed accuracies on RTE, in percent."""
    keys = ("model", "method", "mark", "trainable")
    first, second = (table("table2").row(**dict(zip(keys, row, strict=True)))["RTE"] for row in PAIRS[name][:2])
    return first, second


def pair(name: str) -> tuple[Number, Number, Choice]:
    """What the three answers are checked against: the gap's standard error, the gap needed (points), and a word."""
    a, b = (one / 100 for one in published(name))
    both = a * (1 - a) + b * (1 - b)
    error = 100 * math.sqrt(both / RTE)
    one = Number(error, {
        100 * math.sqrt(both / RTE / 5): "five seeds on the same rows aren't five times the rows",
        100 * math.sqrt(a * (1 - a) / RTE): "that is one accuracy's; a gap has two, and their variances add",
        100 * math.sqrt(b * (1 - b) / RTE): "that is one accuracy's; a gap has two, and their variances add",
        error / 100: "that is a share; give points",
        1.96 * error: "that is 1.96 of them: the second answer",
    }, "", 0.02)  # fmt: skip
    power = "2.8 is for finding it in 80 of 100 studies; here 1.96"
    two = Number(1.96 * error, {error: "that is one error", 2.8 * error: power}, "", 0.03, "1.96 standard errors")
    right = PAIRS[name][2]
    return one, two, Choice((right,), dict.fromkeys(SHOWN, MISSED[right]), "")


@exercise(
    "one accuracy p on n rows has variance p (1 - p) / n; the variances of two add up",
    "error = 100 * ((p * (1 - p) + q * (1 - q)) / 277) ** 0.5, and the gap needed is 1.96 of them",
    "compare the printed gap with it; then ask whether both runs began alike",
)
def check_published(error: Any, points: Any, word: Any, name: str) -> Verdict:
    """Lesson 18: the standard error of a published gap, the gap needed, both in points, and what the pair shows."""
    one, two, three = pair(name)
    given = word.strip().lower() if isinstance(word, str) else word
    answers: dict[str, tuple[Any, Any]] = {"error": (one, error), "points": (two, points), "word": (three, given)}
    said = parts(answers, "put two numbers and a word in place of the ...")
    return Verdict(True, f"on {RTE} rows, a gap below {two.right:.1f} points can be luck") if said.passed else said
