"""Exercises of lesson 00, start here."""

from __future__ import annotations

from collections.abc import Iterable

from lora_lab.checks.verdict import Verdict, not_yet, number, unsolved


def check_trainable_parameters(answer: int | None) -> Verdict:
    """Lesson 00: parameters of LoRA of rank 8 on q and v of minilm's 6 layers, each 384 x 384."""
    right = 6 * 2 * 8 * (384 + 384)
    if unsolved(answer):
        return not_yet("layers x targets x rank x (inputs + outputs)")
    hints = {
        right // 2: "that is A alone, or B alone: LoRA trains both",
        right // 6: "that is one layer: the model has six",
        right // 12: "that is one matrix: there are two in each of the six layers",
        right + 770: "that counts the head too; the adapter alone is asked for",
        6 * 2 * 384 * 384: "that is W itself: LoRA leaves it frozen and trains A and B",
    }
    return number(answer, right, hints, f"6 layers x 2 matrices x 8 x (384 + 384) = {right:,}")


_CONTRADICTIONS = {
    (2, 3): "if A is d x r and B is r x d, then B A is r x r, not d x d",
    (3, 6): "B A and A B are different matrices; with the shapes of (2) it is A B that is d x d",
    (4, 5): '"usually all four" and "by default only q and v" cannot both describe the habit',
    (6, 7): "merging writes into W, so W has changed; to swap in another adapter it must be unmerged first",
}


CONTRADICTIONS = {frozenset(pair): why for pair, why in _CONTRADICTIONS.items()}


def check_contradictions(pairs: Iterable[tuple[int, int]] | None) -> Verdict:
    """Lesson 00: the pairs of sentences in the text on LoRA that cannot both hold."""
    pairs = list(pairs or ()) if not unsolved(pairs) else []
    if any(isinstance(pair, int) for pair in pairs):
        return Verdict(None, "write pairs in braces: {(1, 2), (3, 4)}")
    if not (given := {frozenset(pair) for pair in pairs}):
        return not_yet("four pairs of sentences do not go together; write them as {(1, 2), ...}")
    wrong, missing = given - CONTRADICTIONS.keys(), CONTRADICTIONS.keys() - given
    found = "; ".join(why for pair, why in CONTRADICTIONS.items() if pair in given)
    if wrong:
        names = ", ".join(" and ".join(map(str, sorted(pair))) for pair in wrong)
        return Verdict(False, f"{names} do go together: read them once more" + (f". Found: {found}" if found else ""))
    if missing:
        return Verdict(False, f"found {len(given)} of {len(CONTRADICTIONS)}: {found}")
    return Verdict(True, found)
