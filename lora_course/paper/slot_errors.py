"""Does a sentence say what it was to say? Slot by slot: right, missing, wrong, or added though nobody asked for it.

    slot error rate = (missing + wrong + added) / slots that were to be said

After Wen et al. 2015, "Semantically Conditioned LSTM-based Natural Language Generation", the rate ERR, and Dušek et al.
2020, E2E's findings, which were not read here. A slot of a text is at most one error.

Names are looked for as they are written, and then hidden, so that "Raja Indian Cuisine" is no cuisine. Other slots have
a pattern for each *level*: "cheap" and "less than £20" are one level, as are "high" and "5 out of 5", because people
who write say one for the other. On the references of our own grammar the patterns find no error. On what people wrote
for E2E they find 92.0 % of the slots said rightly in its validation file (26,825 slots of 4,521 sentences) and 91.3 %
in its test file (31,466 of 4,577), a slot error rate of 0.09: most of it is the writers', who leave out slots and
write "restaurant" for any place. Of 60 such errors in the test file that were read one by one, about 10 were the
patterns'; six kinds of them have been mended since.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_course.paper.meanings import SLOTS, Meaning, parse
from lora_course.paper.slot_patterns import LEVELS
from lora_lab.plugins import Scores

RIGHT, MISSING, WRONG, ADDED = "right", "missing", "wrong", "added"
_HIDDEN = "_"  # stands where a name stood

_PATTERNS = {slot: [(values, re.compile(pattern)) for values, pattern in levels] for slot, levels in LEVELS.items()}


@dataclass(frozen=True)
class Judgement:
    """What a text does with each slot that it was to say or that it says: RIGHT, MISSING, WRONG or ADDED."""

    slots: Mapping[str, str]
    asked: int  # slots that it was to say

    @property
    def errors(self) -> int:
        """Slots that are not right."""
        return sum(kind != RIGHT for kind in self.slots.values())


class Matcher:
    """Looks for slots in texts. `names` and `neighbours` are all of the data set's, so that an added one is seen."""

    def __init__(self, names: Iterable[str], neighbours: Iterable[str]) -> None:
        self.names = {_plain(name): name for name in names}
        self.neighbours = {_plain(name): name for name in neighbours}
        longest_first = sorted(self.names.keys() | self.neighbours.keys(), key=len, reverse=True)
        self.any_name = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def said(self, text: str) -> dict[str, list[tuple[str, ...]]]:
        """The levels of each slot that a text speaks of; for name and near each one that is mentioned."""
        plain = _plain(text)
        mentioned = set(self.any_name.findall(plain))
        found: dict[str, list[tuple[str, ...]]] = {
            "name": [(self.names[name],) for name in mentioned if name in self.names],
            "near": [(self.neighbours[name],) for name in mentioned if name in self.neighbours],
        }
        hidden = self.any_name.sub(_HIDDEN, plain)
        return found | {slot: _levels(slot, hidden) for slot in _PATTERNS}

    def judge(self, meaning: Meaning, text: str) -> Judgement:
        """Each slot of a text, held against what it was to say."""
        said = self.said(text)
        for slot, value in meaning.slots:
            if slot in _PATTERNS and not _known(slot, value) and _plain(value) in _plain(text):
                said[slot] = [(value,)]  # a value that the patterns do not know counts where it stands as written
        kinds = {slot: _kind(meaning.get(slot), said[slot]) for slot in SLOTS}
        return Judgement({slot: kind for slot, kind in kinds.items() if kind}, len(meaning))


def matcher_of(meanings: Iterable[Meaning]) -> Matcher:
    """A matcher that knows the names and neighbours of these meanings."""
    known = list(meanings)
    return Matcher({m["name"] for m in known}, {m["near"] for m in known if "near" in m})


def slot_errors(judgements: Sequence[Judgement]) -> float:
    """The slot error rate: errors in all texts over slots that were to be said in all; above 1 where more is added."""
    return sum(j.errors for j in judgements) / sum(j.asked for j in judgements)


def scores(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> Scores:
    """The slot errors of the texts that a model answered to these meanings; names are those of the whole `Task`."""
    matcher = matcher_of(parse(prompt) for prompt in {*task.test.prompts, *task.train.prompts})
    judged = [matcher.judge(parse(prompt), text) for prompt, text in zip(prompts, texts, strict=True)]
    each = [{"slots": dict(judgement.slots)} for judgement in judged]
    return Scores({"slot_errors": slot_errors(judged)}, {"kinds": kinds_of(judged)}, each)


def kinds_of(judgements: Iterable[Judgement]) -> dict[str, int]:
    """How many slots are right, missing, wrong, added."""
    counted = Counter(kind for j in judgements for kind in j.slots.values())
    return {kind: counted[kind] for kind in (RIGHT, MISSING, WRONG, ADDED)}


def _known(slot: str, value: str) -> bool:
    return any(value in values for values, _ in _PATTERNS[slot])


def _kind(value: str | None, said: list[tuple[str, ...]]) -> str:
    """What became of one slot; "" where there was nothing to say and nothing was said."""
    if value is None:
        return ADDED if said else ""
    if not said:
        return MISSING
    if not any(value in level for level in said):
        return WRONG
    return RIGHT if len(said) == 1 else ADDED


def _levels(slot: str, text: str) -> list[tuple[str, ...]]:
    """The levels of a slot that a text speaks of; each stretch of it speaks for one."""
    found = []
    for values, pattern in _PATTERNS[slot]:
        text, count = pattern.subn(f" {_HIDDEN} ", text)
        if count:
            found.append(values)
    return found


def _plain(text: str) -> str:
    """Lower case, one space between words, hyphens as spaces, signs of money and quotation next to their words."""
    text = re.sub(r"[-–—‑]", " ", text.lower().replace("’", "'"))
    text = re.sub(r" ?(n?)' ?(?=(?:t|s)\b)", r"\1'", text)
    return re.sub(r"£ ", "£", re.sub(r"\s+", " ", text)).strip()
