"""Check whether a sentence says what it should: each slot is right, missing, wrong, or added without being requested.

    slot error rate = (missing + wrong + added) / requested slots                    at most one error per slot

Names are matched literally and then masked, so "Raja Indian Cuisine" does not count as a cuisine. The other slots have
patterns for each *level* (data/paper/slots.yaml): "cheap" and "less than £20" are one level, because writers use them
interchangeably. The patterns find no error in the references of `restaurants`. In E2E's human-written references, they
judge 92.0% of the slots to be correct in the validation file (26,825 slots) and 91.3% in the test file (31,466). The
measure follows Wen et al. 2015, "Semantically Conditioned LSTM-based Natural Language Generation", and Dušek et al.
2020, on the findings of the E2E challenge (we have not read either paper).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lora_course.paper import facts
from lora_course.paper.e2e import SLOTS, parse
from lora_lab.plugins import Scores

RIGHT, MISSING, WRONG, ADDED = "right", "missing", "wrong", "added"
HIDDEN = "_"  # replaces a matched name
Level = tuple[tuple[str, ...], str]  # the values of one level, and the pattern that matches any of these values


@cache
def levels() -> dict[str, list[Level]]:
    """Load the levels of each slot from data/paper/slots.yaml."""
    slots = facts("paper/slots")
    macros = slots["macros"]

    def expand(part: str | Mapping[str, str]) -> str:
        if not isinstance(part, str):
            kind = "rated" if "rated" in part else "priced"
            part = str(macros[kind]).replace("WORDS", part[kind]).replace("STARS", part.get("stars", ""))
        while "%" in part:
            part = re.sub("%([a-z]+)%", lambda name: macros[name[1]], part)
        return part

    return {
        slot: [(tuple(level["values"]), "|".join(map(expand, level["parts"]))) for level in slot_levels]
        for slot, slot_levels in slots["slots"].items()
    }


class Matcher:
    """Find slots in texts. Pass the whole data set's `meanings`, so that added names are recognized."""

    def __init__(self, meanings: Sequence[Mapping[str, str]]) -> None:
        self.named = {slot: {_plain(m[slot]): m[slot] for m in meanings if slot in m} for slot in ("name", "near")}
        longest_first = sorted({*self.named["name"], *self.named["near"]}, key=len, reverse=True)
        self.any_name = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def said(self, text: str) -> dict[str, list[tuple[str, ...]]]:
        """Return the levels of each slot that a text mentions; for "name" and "near", the mentioned values."""
        plain = _plain(text)
        mentioned = set(self.any_name.findall(plain))
        matches: dict[str, list[tuple[str, ...]]] = {
            slot: [(names[name],) for name in mentioned if name in names] for slot, names in self.named.items()
        }
        masked = self.any_name.sub(HIDDEN, plain)
        for slot, slot_levels in levels().items():
            rest, matches[slot] = masked, []
            for values, pattern in slot_levels:
                rest, count = re.subn(pattern, f" {HIDDEN} ", rest)
                matches[slot] += [values] * bool(count)
        return matches

    def judge(self, requested: Mapping[str, str], text: str) -> dict[str, str]:
        """Return RIGHT, MISSING, WRONG or ADDED for each slot that is requested or mentioned."""
        mentioned, kinds = self.said(text), {}
        for slot in SLOTS:
            value, matches = requested.get(slot), mentioned[slot]
            has_pattern = slot not in levels() or any(value in values for values, _ in levels()[slot])
            if value and not has_pattern and _plain(value) in _plain(text):
                matches = [(value,)]  # without a pattern, a literal match counts
            if value and not any(value in level for level in matches):
                kinds[slot] = WRONG if matches else MISSING
            elif value or matches:
                kinds[slot] = RIGHT if value and len(matches) == 1 else ADDED
        return kinds


def scores(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> Scores:
    """Compute the slot error rate of texts (it can exceed 1 if they add slots). `task` has the names to find."""
    matcher = Matcher([parse(prompt) for prompt in {*task.test.prompts, *task.train.prompts}])
    meanings = [parse(prompt) for prompt in prompts]
    verdicts = [matcher.judge(meaning, text) for meaning, text in zip(meanings, texts, strict=True)]
    counts = Counter(kind for verdict in verdicts for kind in verdict.values())
    kinds = {kind: counts[kind] for kind in (RIGHT, MISSING, WRONG, ADDED)}
    rate = (counts.total() - counts[RIGHT]) / sum(map(len, meanings))
    return Scores({"slot_errors": rate}, {"kinds": kinds}, [{"slots": verdict} for verdict in verdicts])


def _plain(text: str) -> str:
    """Lowercase text, collapse spaces, replace hyphens with spaces, and attach pound signs and apostrophes to words."""
    text = re.sub(r"[-–—‑]", " ", text.lower().replace("’", "'"))
    text = re.sub(r" ?(n?)' ?(?=(?:t|s)\b)", r"\1'", text)
    return re.sub(r"£ ", "£", re.sub(r"\s+", " ", text)).strip()
