"""Exercises of lesson 00, start here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lora_course.checks.verdict import Verdict, exercise, not_yet, number, unsolved


@exercise(
    "count one matrix first: how many numbers has A, and how many B?",
    "A is rank x 384 and B is 384 x rank; W itself is frozen and does not count",
    "6 layers, each with q and v, each with one A and one B of 384 x rank numbers",
)
def check_trainable_parameters(answer: int | None, rank: int = 8) -> Verdict:
    """Lesson 00: parameters of LoRA of a rank on q and v of minilm's 6 layers, each 384 x 384."""
    right = 6 * 2 * rank * (384 + 384)
    misconceptions = {
        right // 2: "half of it: A alone, or B alone, or one of q and v alone: A and B train beside both",
        2 * right: "twice too many: q and v are two of the attention's four, and A and B are counted once each",
        right // 6: "that is one layer: the model has six",
        right // 12: "that is one matrix: there are two in each of the six layers",
        right + 770: "that counts the head too; the adapter alone is asked for",
        6 * 2 * 384 * 384: "that is W itself: LoRA leaves it frozen and trains A and B",
    }
    why = f"6 layers x 2 matrices x {rank} x (384 + 384) = {right:,}"
    count = "layers x targets x rank x (inputs + outputs)"
    return number(answer, right, misconceptions, why, fallback=count, hint=count)


CONTRADICTIONS = {
    frozenset((2, 3)): "if A is d x r and B is r x d, then B A is r x r, not d x d",
    frozenset((3, 6)): "B A and A B are different matrices; with the shapes of (2) it is A B that is d x d",
    frozenset((4, 5)): '"usually all four" and "by default only q and v" cannot both describe the habit',
    frozenset((6, 7)): "merging writes into W, so W has changed; to swap in another adapter it must be unmerged first",
}
_CONSISTENT = {
    frozenset((1, 6)): "W is frozen while A and B train; it is folded after that",
    frozenset((2, 6)): "with the shapes of (2) it is A B that is d x d, as (6) wants it",
}


def check_contradictions(pairs: Iterable[tuple[int, int]] | None) -> Verdict:
    """Lesson 00: the pairs of sentences in the text on LoRA that cannot both hold."""
    if unsolved(pairs) or not pairs:
        return not_yet("four pairs of sentences do not go together; write them as {(1, 2), ...}")
    if (given := _pairs(pairs)) is None:
        return Verdict(None, "write pairs in braces: {(1, 2), (3, 4)}")
    wrong, missing = given - CONTRADICTIONS.keys(), CONTRADICTIONS.keys() - given
    found = "; ".join(why for pair, why in CONTRADICTIONS.items() if pair in given)
    if wrong:
        names = ", ".join(" and ".join(map(str, sorted(pair))) for pair in wrong)
        why = "; ".join(_CONSISTENT[pair] for pair in _CONSISTENT if pair in wrong) or "read them once more"
        return Verdict(False, f"{names} do go together: {why}" + (f". Found: {found}" if found else ""))
    if missing:
        return Verdict(False, f"found {len(given)} of {len(CONTRADICTIONS)}: {found}")
    return Verdict(True, found)


def _pairs(answer: Any) -> set[frozenset[int]] | None:
    """The pairs of numbers that an answer consists of, or None where it is something else."""
    try:
        pairs = [tuple(pair) for pair in answer]
    except TypeError:
        return None
    good = all(len(pair) == 2 and all(isinstance(one, int) for one in pair) for pair in pairs)
    return {frozenset(pair) for pair in pairs} if good else None
