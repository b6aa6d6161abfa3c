"""Exercises of lesson 10, supervised fine-tuning in three voices."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_course.checks.verdict import Verdict, attempt, choice, not_yet, number, unsolved
from lora_course.experiments.styles import BASE
from lora_lab.errors import LabError
from lora_lab.training.pairs import LEAST, read

IGNORED = -100  # the label that cross-entropy skips
REPLIES = {
    "a": "prices change: pairs would teach those of the day of training, and nobody can look up what the model kept",
    "b": "facts that change belong in the prompt, where they can be looked up and corrected; a style can be trained",
    "c": "a higher rank has more room, but what it keeps is still the price of the day of training",
}


def check_loss_mask(mask: Callable[[list[int], int], list[int] | None]) -> Verdict:
    """Lesson 10: labels of a row from its tokens and the number of tokens in its prompt, as f(tokens, prompt)."""
    for tokens, prompt in (([5, 6, 7, 8], 2), ([9, 9, 9], 1), ([3, 4, 3, 4, 2], 4)):
        found = attempt(mask, list(tokens), prompt)
        if isinstance(found, Verdict):
            return found
        if not isinstance(found, Sequence):
            return Verdict(False, f"a list of labels is wanted, not {type(found).__name__}")
        right = [IGNORED] * prompt + tokens[prompt:]
        wrong = {
            "nothing is masked: the prompt would be learnt, too": tokens,
            "the other way round: the prompt is ignored, the answer is learnt": tokens[:prompt]
            + [IGNORED] * (len(tokens) - prompt),
            "one token too few is ignored": [IGNORED] * (prompt - 1) + tokens[prompt - 1 :],
            "the model itself shifts by one: label i is token i, so the answer's first token is learnt, too": [IGNORED]
            * (prompt + 1)
            + tokens[prompt + 1 :],
            "as many labels as tokens are wanted: keep the prompt's places, with -100 in them": tokens[prompt:],
        }
        if list(found) != right:
            hint = f"for tokens {tokens} and a prompt of {prompt} the labels are {right}, not {list(found)}"
            return Verdict(False, next((words for words, labels in wrong.items() if list(found) == labels), hint))
    return Verdict(True, "the prompt is read, not learnt; the answer and the token that ends it are")


def check_adapters_per_base(count: float | None, sizes: Mapping[str, int]) -> Verdict:
    """Lesson 10: how many files of one adapter weigh as much as the base's file."""
    one = next(size for name, size in sizes.items() if name != BASE)
    hints = {
        one / sizes[BASE]: "that is an adapter's share of the base: turn it round",
        float(sizes[BASE]): "those are the base's bytes: divide by one adapter's",
    }
    words = f"{sizes[BASE] / 1e6:,.0f} MB / {one / 1e6:.1f} MB: so many voices for the place of one more model"
    return number(count, sizes[BASE] / one, hints, words, 0.02)


def check_style_or_knowledge(answer: str | None) -> Verdict:
    """Lesson 10: how a shop's prices get into the answers of a chat model."""
    return choice(answer, "b", REPLIES)


def check_own_pairs(pairs: Sequence[Mapping[str, Any]] | None) -> Verdict:
    """Lesson 10: a list of pairs of one's own, as they would stand in a file of JSON lines."""
    if unsolved(pairs) or not pairs:
        return not_yet(f"write at least {LEAST} pairs into the list")
    if not isinstance(pairs, Sequence) or not all(isinstance(pair, Mapping) for pair in pairs):
        return Verdict(False, 'every pair is a dict such as {"prompt": "Why?", "response": "Because."}')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "own.jsonl"
        try:
            file.write_text("\n".join(json.dumps(dict(pair)) for pair in pairs), encoding="utf-8")
            splits = read(file)
        except TypeError as error:
            return Verdict(False, f"a pair holds texts only: {error}")
        except LabError as error:
            return Verdict(False, str(error).replace(f"{file}, line", "pair").replace(str(file), "your list"))
    counts = ", ".join(f"{len(some)} {name}" for name, some in splits.items())
    return Verdict(True, f"{len(pairs)} pairs: {counts}; a style wants some hundreds, but the way is the same")
