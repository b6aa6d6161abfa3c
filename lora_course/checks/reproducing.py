"""Exercises for lesson 18 (reproducing it): judge runs by a rule, and say what a published pair can show."""

import math
from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, parts, texts
from lora_course.paper import table
from lora_course.paper.reproduce import Kept, item

OUTCOMES = ("holds", "fails", "undecided", "not tested")
PASS = 377  # steps in which each training row of these items is seen once
RTE = 277  # dev rows, according to GLUE's dataset card
WHY = "the run that was too short also looks conclusive, but the rule, which was written in advance, excludes it"
TEXTS = texts("reproducing")
ITEMS, PAIRS = tuple(TEXTS["runs"]), TEXTS["pairs"]


def _reruns(name: str) -> dict[str, tuple[int, dict[str, dict[str, Any]]]]:
    """Return three made-up reruns of an item, A to C: steps, and the verdict on each of its pairs."""
    return {
        letter: (steps, dict(zip(item(name).pairs, map(_verdict, labels), strict=True)))
        for letter, (steps, labels) in zip("ABC", TEXTS["runs"][name], strict=True)
    }


def runs(name: str) -> dict[str, dict[str, Any]]:
    """Return an item's reruns as a student sees them: steps, and each verdict in words."""
    return {
        letter: {"steps": steps, **{pair: verdict["words"] for pair, verdict in verdicts.items()}}
        for letter, (steps, verdicts) in _reruns(name).items()
    }


def asked(name: str) -> str:
    """Return an item's rule, one line per outcome, for reruns whose accuracies are all within the item's limits."""
    wanted = {"better": "better", "no worse": "equivalent or better"}
    (needed,) = {wanted[pair[2]] for pair in item(name).pairs.values()}
    return "\n".join(
        (
            f"not tested: some training rows were never seen (one pass takes {PASS} steps)",
            f"holds: each comparison is {needed}",
            "fails: one comparison's whole 95% interval is below -1.5 points",
            "undecided: everything else",
        )
    )


def outcomes(name: str) -> dict[str, str]:
    """Return the outcome of every rerun of an item, according to the item's own rule."""
    rerun = item(name)
    rows = {row: [80.0, 81.0] for row in rerun.learned} | {"head": [67.0]}
    return {
        letter: rerun.judged(Kept(rows, {"steps": steps}, verdicts)).standing
        for letter, (steps, verdicts) in _reruns(name).items()
    }


def _verdict(label: str) -> dict[str, Any]:
    low, high = TEXTS["intervals"][label]
    outcome = label.split()[-1]
    words = f"{outcome} ({90 if outcome == 'equivalent' else 95}% interval {low} to {high} points)"
    return {"outcome": outcome, "low": low / 100, "high": high / 100, "margin": 0.015, "words": words}


@exercise
def check_judge(words: Mapping[str, Any] | None, name: str) -> Verdict:
    """Lesson 18: check the outcome of runs A to C of this item, as {"A": "holds", ...}."""
    given = words if isinstance(words, Mapping) else {}
    right = {
        letter: Choice([word], dict.fromkeys(OUTCOMES, TEXTS["rerun"][word])) for letter, word in outcomes(name).items()
    }
    return parts(right, [*map(given.get, right)], f"give a word for each of A, B and C: {', '.join(OUTCOMES)}", WHY)


def published(name: str) -> tuple[float, float]:
    """Return a pair's two published accuracies on RTE, in percent."""
    keys = ("model", "method", "mark", "trainable")
    first, second = (table("table2").row(**dict(zip(keys, row, strict=True)))["RTE"] for row in PAIRS[name][:2])
    return first, second


@exercise
def check_published(error: Any, points: Any, word: Any, name: str) -> Verdict:
    """Lesson 18: check a gap's standard error, the largest gap that luck can explain, and what the two scores show."""
    first, second = published(name)
    spreads = [math.sqrt(p / 100 * (1 - p / 100)) for p in (first, second)]
    exact = 100 * math.hypot(*spreads) / math.sqrt(RTE)
    errors = {
        exact / math.sqrt(5): "five seeds on the same rows don't give you five times as many rows",
        **{100 * s / math.sqrt(RTE): "that is for one accuracy: for a gap, add both variances" for s in spreads},
        exact / 100: "that is a fraction; answer in points",
        1.96 * exact: "that is 1.96 standard errors, which is the second answer",
    }
    power = "2.8 standard errors are for detecting a gap with 80% power; here, take 1.96"
    gaps = {exact: "that is one standard error", 2.8 * exact: power, 1.96 * exact / 100: errors[exact / 100]}
    shown = PAIRS[name][2]
    right = {
        "error": Number(exact, errors, "", 0.02),
        "points": Number(1.96 * exact, gaps, "", 0.03, "1.96 standard errors"),
        "word": Choice((shown,), dict.fromkeys(TEXTS["pair"], TEXTS["pair"][shown])),
    }
    why = f"on {RTE} rows, a gap below {1.96 * exact:.1f} points can be luck; yours is {abs(first - second):.1f}"
    return parts(right, (error, points, word), "replace the ... with two numbers and a word", why)
