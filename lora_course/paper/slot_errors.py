"""Does a sentence say what it should? Each slot is right, missing, wrong, or added though nobody asked for it.

    slot error rate = (missing + wrong + added) / slots to be said                    a slot is at most one error

Names are searched for as they are written and then hidden, so "Raja Indian Cuisine" is not a cuisine. Other slots
have patterns for each *level* (data/paper/slots.yaml): "cheap" and "less than £20" are one level, because writers use
one for the other. The patterns find no error in our own grammar's references. In what people wrote for E2E they find
92.0 % of the slots said rightly in its validation file (26,825 slots) and 91.3 % in its test file (31,466).
After Wen et al. 2015, "Semantically Conditioned LSTM-based Natural Language Generation", and Dušek et al. 2020, E2E's
findings, which were not read here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from lora_course.paper import facts
from lora_course.paper.e2e import SLOTS, Meaning, parse
from lora_lab.plugins import Scores

RIGHT, MISSING, WRONG, ADDED = "right", "missing", "wrong", "added"
HIDDEN = "_"  # stands where a name stood
Level = tuple[tuple[str, ...], str]  # the values of one level, and the pattern of words that say it


@cache
def levels() -> dict[str, list[Level]]:
    """The levels of each slot, from data/paper/slots.yaml."""
    read = facts("paper/slots")
    macros = read["macros"]

    def pattern(part: str | Mapping[str, str]) -> str:
        if isinstance(part, str):
            found = part
        elif "rated" in part:
            found = macros["rated"].replace("WORDS", part["rated"]).replace("STARS", part["stars"])
        else:
            found = macros["priced"].replace("WORDS", part["priced"])
        while "%" in found:
            found = re.sub("%([a-z]+)%", lambda name: macros[name[1]], found)
        return found

    return {
        slot: [(tuple(level["values"]), "|".join(map(pattern, level["parts"]))) for level in several]
        for slot, several in read["slots"].items()
    }


class Matcher:
    """Finds slots in texts. `meanings` are all of the data set's, so that an added name or neighbor is seen."""

    def __init__(self, meanings: Iterable[Meaning]) -> None:
        known = [dict(meaning.slots) for meaning in meanings]
        self.named = {slot: {_plain(m[slot]): m[slot] for m in known if slot in m} for slot in ("name", "near")}
        longest_first = sorted({*self.named["name"], *self.named["near"]}, key=len, reverse=True)
        self.any_name = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def said(self, text: str) -> dict[str, list[tuple[str, ...]]]:
        """The levels of each slot that a text mentions; for name and near, each one that it mentions."""
        plain = _plain(text)
        mentioned = set(self.any_name.findall(plain))
        found: dict[str, list[tuple[str, ...]]] = {
            slot: [(own[name],) for name in mentioned if name in own] for slot, own in self.named.items()
        }
        hidden = self.any_name.sub(HIDDEN, plain)
        for slot, several in levels().items():
            rest, found[slot] = hidden, []
            for values, pattern in several:
                rest, count = re.subn(pattern, f" {HIDDEN} ", rest)
                found[slot] += [values] * bool(count)
        return found

    def judge(self, meaning: Meaning, text: str) -> dict[str, str]:
        """RIGHT, MISSING, WRONG or ADDED for each slot that a text should say or that it says."""
        said, wanted, kinds = self.said(text), dict(meaning.slots), {}
        for slot in SLOTS:
            value, found = wanted.get(slot), said[slot]
            known = slot not in levels() or any(value in values for values, _ in levels()[slot])
            if value and not known and _plain(value) in _plain(text):
                found = [(value,)]  # a value that has no pattern counts if it is there as written
            if value is None:
                kinds[slot] = ADDED if found else ""
            elif not any(value in level for level in found):
                kinds[slot] = WRONG if found else MISSING
            else:
                kinds[slot] = RIGHT if len(found) == 1 else ADDED
        return {slot: kind for slot, kind in kinds.items() if kind}


def scores(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> Scores:
    """The slot error rate of a model's texts for these meanings, above 1 if much is added; names are the `Task`'s."""
    matcher = Matcher(parse(prompt) for prompt in {*task.test.prompts, *task.train.prompts})
    meanings = [parse(prompt) for prompt in prompts]
    judged = [matcher.judge(meaning, text) for meaning, text in zip(meanings, texts, strict=True)]
    counted = Counter(kind for one in judged for kind in one.values())
    errors = counted[MISSING] + counted[WRONG] + counted[ADDED]
    kinds = {kind: counted[kind] for kind in (RIGHT, MISSING, WRONG, ADDED)}
    asked = sum(len(meaning.slots) for meaning in meanings)
    return Scores({"slot_errors": errors / asked}, {"kinds": kinds}, [{"slots": one} for one in judged])


def _plain(text: str) -> str:
    """Lower case, one space between words, hyphens as spaces, pound signs and apostrophes next to their words."""
    text = re.sub(r"[-–—‑]", " ", text.lower().replace("’", "'"))
    text = re.sub(r" ?(n?)' ?(?=(?:t|s)\b)", r"\1'", text)
    return re.sub(r"£ ", "£", re.sub(r"\s+", " ", text)).strip()
