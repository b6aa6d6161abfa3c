"""Exercises for lesson 06 (new voice or new facts?): which tokens of a chat the loss counts, and your own pairs."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lora_course.checks.verdict import Verdict, attempt, exercise, matched, unsolved
from lora_lab.errors import LabError
from lora_lab.training.tasks import MIN_ROWS, read_pairs

IGNORED = -100  # the label that cross-entropy skips
END = 2  # the token that ends an answer
WHY = "every answer counts, including the token that ends it; questions and the system prompt are only read"


Turns = Sequence[tuple[str, Sequence[int]]]

CONVERSATIONS: tuple[Turns, ...] = (
    [("user", [5, 6]), ("assistant", [7, 8, 2])],
    [("system", [4]), ("user", [5, 6]), ("assistant", [7, 2]), ("user", [9]), ("assistant", [7, 7, 2])],
)


def labels_of(turns: Turns, *counting: str, earlier: bool = True) -> list[int]:
    """Label tokens in these roles with themselves, others with -100; without `earlier`, only the last turn counts."""
    counts = [role in counting and (earlier or i == len(turns) - 1) for i, (role, _) in enumerate(turns)]
    return [t if kept else IGNORED for kept, (_, tokens) in zip(counts, turns, strict=True) for t in tokens]


def wrong_labels(turns: Turns) -> dict[str, list[int]]:
    """Return typical wrong labels for a conversation: {reply: labels}."""
    return {
        "nothing is masked: the model would learn to ask, too": labels_of(turns, "system", "user", "assistant"),
        "that's the mask reversed: the questions count and the answers don't": labels_of(turns, "system", "user"),
        "you count only the last answer: count all answers": labels_of(turns, "assistant", earlier=False),
        "you count the system's turn, too, but it isn't an answer": labels_of(turns, "system", "assistant"),
        "you leave out the token that ends an answer: without it, the model never learns to stop": [
            IGNORED if token == END else token for token in labels_of(turns, "assistant")
        ],
        "every token needs a label: for tokens of the other turns, it is -100": [
            token for role, tokens in turns if role == "assistant" for token in tokens
        ],
    }


@exercise
def check_turn_mask(given: Callable[[Turns], list[int] | None]) -> Verdict:
    """Lesson 06: check a function that labels a conversation, given as turns (role, tokens)."""
    for turns in CONVERSATIONS:
        labels = attempt(given, deepcopy(turns))
        if isinstance(labels, Verdict):
            return labels
        labels = labels.tolist() if hasattr(labels, "tolist") else labels  # an array or a tensor
        if not isinstance(labels, Sequence):
            return Verdict(False, f"return a list of labels, not {type(labels).__name__}")
        labels, right = list(labels), labels_of(turns, "assistant")
        fallback = f"for {turns}, the labels are {right}, not {labels}"
        verdict = matched(labels.__eq__, right, wrong_labels(turns), WHY, fallback)
        if not verdict.passed:
            return verdict
    return verdict


@exercise
def check_own_pairs(pairs: Sequence[Mapping[str, Any]] | None) -> Verdict:
    """Lesson 06: check a list of your own pairs, as in a JSON Lines file."""
    if unsolved(pairs) or (isinstance(pairs, Sequence) and not pairs):
        return Verdict(None, f"add at least {MIN_ROWS} pairs to the list")
    if not isinstance(pairs, Sequence) or not all(isinstance(pair, Mapping) for pair in pairs):
        return Verdict(False, 'every pair is a dict such as {"prompt": "Why?", "response": "Because."}')
    if any(unsolved(value) for pair in pairs for value in pair.values()):
        return Verdict(None, "replace each ... with your answer")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "own.jsonl"
        try:
            file.write_text("\n".join(json.dumps(dict(pair)) for pair in pairs), encoding="utf-8")
            splits = read_pairs(file)
        except TypeError as error:
            return Verdict(False, f"a pair must contain only strings: {error}")
        except LabError as error:
            return Verdict(False, str(error).replace(f"{file}, line", "pair").replace(str(file), "your list"))
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    return Verdict(True, f"{len(pairs)} pairs: {counts}; each of our voices was trained on 180 pairs")
