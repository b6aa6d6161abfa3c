"""Exercises for lesson 05 (as good as full?): the equivalence rule, and a verdict to defend (also in lesson 13)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from lora_course.checks.verdict import Choice, Function, Verdict, exercise, letters, plain, texts, unsolved
from lora_course.receipts import CURRENT
from lora_lab.experiments.statistics import LEVEL, verdict
from lora_lab.training.assets import shipped

TEXTS, HINTS = texts("comparing"), texts("hints")["defense"]
PAIRS = TEXTS["pairs"]
LEAST, MOST = 0.1, 5  # limits of a margin, in points
BUT = " but within the margin"
WORDS = ("better", "worse", "equivalent", "undecided", f"better{BUT}", f"worse{BUT}")
ENDS = [(-0.01, 0.01), (-0.02, 0.01), (-0.01, 0.02), (0.0005, 0.012), (-0.1, 0.1), (0.02, 0.03), (-0.03, -0.02)]
ENDS += [(0.005, 0.02), (-0.02, -0.005)]  # narrower than twice the margin, with the midpoint inside the margin


def _inside(low: float, high: float, margin: float) -> bool:
    return -margin < low and high < margin


EQUIVALENCE = Function(
    [*((low, high, 0.015) for low, high in ENDS), (-0.03, 0.03, 0.05)],
    _inside,
    "both ends are inside the margin. Whether 0 is inside the 95% interval is another question",
    {
        "zero in the interval says only that no difference was found: a wide interval contains zero, too": (
            lambda low, high, margin: low < 0 < high
        ),
        "the middle doesn't say how sure the estimate is: both ends count": lambda low, high, margin: (
            abs(low + high) / 2 < margin
        ),
        "that checks only the upper end: the lower end may be far below": lambda low, high, margin: high < margin,
        "that checks only the lower end: the upper end may be far above": lambda low, high, margin: low > -margin,
        "even if its middle is inside the margin, an end may be outside: both ends count": lambda low, high, margin: (
            high - low < 2 * margin and abs(low + high) / 2 < margin
        ),
        "an interval narrower than the margin may still lie beyond it": lambda low, high, margin: high - low < margin,
        "that is reversed: the interval must be inside": lambda low, high, margin: not _inside(low, high, margin),
    },
    "try low = -0.02, high = 0.01 and a margin of 0.015 by hand: the lower end is outside",
)


@exercise
def check_equivalence_rule(rule: Callable[[float, float, float], bool]) -> Verdict:
    """Lesson 05: check f(low, high, margin), which says whether an interval shows equivalence within a margin."""
    return EQUIVALENCE.judge(rule)


@exercise
def check_defense(margin: Any, word: Any, sentence: Any, pair: str = "3 bits against 16") -> Verdict:
    """Lesson 05: for an unseen pair of models, check a margin in points, the verdict, and a matching sentence.

    Each answer shows the next question's data. The first margin is kept for the receipt; any later one is refused.
    """
    if unsolved(margin):
        return Verdict(None, asked(pair))
    if not isinstance(margin := plain(margin), Real):
        return Verdict(False, f"a margin is a number of points, not {type(margin).__name__}")
    margin = float(margin)
    problem = "none" if not margin > 0 else "little" if margin < LEAST else "much" if margin > MOST else ""
    if problem:
        return Verdict(False, str(TEXTS["margins"][problem]).format(margin=f"{margin:g}"))
    # The grader judges many notebooks in one process, which has started no lesson and keeps no receipt.
    sealed = CURRENT.notes.setdefault(f"margin, {pair}", margin / 100) if CURRENT.lesson else margin / 100
    if margin / 100 != sealed:
        return Verdict(False, f"your margin was {100 * sealed:g} when you saw the interval: don't change it afterwards")
    right = defense(pair, margin)
    return defended(right, TEXTS["sealed"].format(margin=f"{margin:g}", seen=right.seen), word, sentence)


@dataclass(frozen=True)
class Defense:
    """What the data say about a pair of models at a given margin, and replies to four sentences in the order shown."""

    seen: str
    word: str
    sentence: str
    replies: dict[str, str]


def defended(right: Defense, told: str, word: Any, sentence: Any) -> Verdict:
    """Judge the student's verdict (a word) and sentence; `told` is shown before the question about the verdict."""
    if unsolved(word):
        return Verdict(None, f"{told}\nThe words: {', '.join(WORDS)}")
    if (word := letters(str(word))) != right.word:
        return Verdict(False, f"{why_not(word, right.word)}. {right.seen}", HINTS["word"])
    if unsolved(sentence):
        options = "".join(f"\n  {letter}: {text}" for letter, text in zip("abcd", right.replies, strict=True))
        return Verdict(None, f"{TEXTS['which'].format(word=word, seen=right.seen)}{options}")
    replies = dict(zip("abcd", right.replies.values(), strict=True))
    letter = "abcd"[[*right.replies].index(right.sentence)]
    judged = Choice([letter], replies, replies[letter]).judge(sentence)
    return judged if judged.passed else replace(judged, hint=HINTS["sentence"])


def asked(pair: str) -> str:
    """Return the question that asks for a margin."""
    return str(TEXTS["asked"]).format(names=" against ".join(PAIRS[pair]["names"]), terms=PAIRS[pair]["terms"])


def defense(pair: str, margin: float) -> Defense:
    """Return the right word and sentence for a pair at a given margin in points."""
    (a, b), terms = PAIRS[pair]["names"], PAIRS[pair]["terms"]
    first, second = scores(pair)
    result = verdict(first, second, margin / 100)
    side, differ = "better" if result.difference > 0 else "worse", result.p_difference < LEVEL
    seen = (
        f"{a} minus {b}, {len(first)} seeds x {first.shape[1]:,} sentences, in points: {100 * result.difference:.2f}; "
        f"95% interval {100 * result.low95:.2f} to {100 * result.high95:.2f}; "
        f"90% interval {100 * result.low:.2f} to {100 * result.high:.2f}"
    )
    size = f"{margin:g} point{'s' * (margin != 1)}"
    claim = {
        "equivalent": f"is equivalent to {b} within {size}",
        "undecided": f"could not be distinguished from {b} at a margin of {size}",
    }.get(result.word, f"did {side} than {b}" + f", by less than {size}" * (BUT in result.word))
    fitted = 100 * max(abs(result.low), abs(result.high)) + 0.1
    fitted += 0.3 * (abs(fitted - margin) < 0.2)
    p_claim = "differ significantly: a new study will agree" if differ else "don't differ significantly: they're equal"
    right = f"for MiniLM on rt, {a} {claim}"
    replies = {
        right: f"{result.word}, for this model, this task and the margin that was set first. {seen}. "
        f"You can write: {right} ({terms})",
        f"for MiniLM on rt, {a} and {b} {p_claim}": f"{'' if differ else 'not '}significant doesn't mean "
        f"{'certain' if differ else 'equal'}: significance only says how rare such data would be without a difference",
        f"for MiniLM on rt, {a} is equivalent to {b} within {fitted:.1f} points": "that margin was chosen to fit the "
        "interval that had already been seen: some margin always fits",
        f"for language models, {a} {claim}": "one model and one task were tried, but the sentence is about all models",
    }
    first = PAIRS[pair]["first"]  # not drawn from the student's name, which the grader doesn't know
    order = [*replies][first:] + [*replies][:first]
    return Defense(seen, result.word, right, {sentence: replies[sentence] for sentence in order})


def why_not(word: Any, right: str) -> str:
    """Return the reply to a wrong answer: what was overlooked."""
    if word not in WORDS:
        return f"the words are {', '.join(WORDS)}"
    if BUT in right and word in ("equivalent", right.removesuffix(BUT)):
        return "true, but only half the answer: the 95% interval excludes 0, and the 90% interval is inside the margin"
    if {word, right} == {"equivalent", "undecided"}:
        inside = "inside" if right == "equivalent" else "not inside"
        return f"whether 0 is in an interval says nothing about equality: the 90% interval is {inside} the margin"
    if right in ("equivalent", "undecided"):
        return "0 is inside the 95% interval, so no difference is shown"
    if word in ("equivalent", "undecided"):
        return "0 is outside the 95% interval, so a difference is shown"
    return "the gap is on the other side of 0" if word[0] != right[0] else "the 90% interval is not inside the margin"


@cache
def scores(pair: str) -> list[np.ndarray]:
    """Return the scores (seeds, sentences) of both models, each at the rate with its best validation accuracy."""
    from lora_lab.experiments.results import from_store

    chosen, both = PAIRS[pair], []
    runs = from_store(shipped(f"data/results/sweeps/{chosen['sweep']}.zip"))
    for value in chosen["values"]:
        own = runs.at(**{chosen["column"]: value})
        if own.frame.lr.nunique() > 1:
            own = own.at(lr=own.frame.groupby("lr").validation_accuracy.mean().idxmax())
        both.append(own.scores)
    return both
