"""Does a sentence say what it was to say? Slot by slot: right, missing, wrong, or added though nobody asked for it.

    slot error rate = (missing + wrong + added) / slots that were to be said

Source: Wen et al. 2015, "Semantically Conditioned LSTM-based Natural Language Generation", the rate ERR; Dušek, Novikova
and Rieser 2020 (E2E's findings) count the same three kinds. Each slot of a text is at most one error.

Names are looked for as they are written, and then hidden, so that "Raja Indian Cuisine" is no cuisine. Other slots have
a pattern for each *level*: "cheap" and "less than £20" are one level, as are "high" and "5 out of 5", because people
who write say one for the other. The patterns know everything that the grammar of `training/restaurants.py` can say, on
which they find no error, and most of what the writers of E2E say; see MEASURED.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_lab.training.meanings import SLOTS, Meaning

RIGHT, MISSING, WRONG, ADDED = "right", "missing", "wrong", "added"
_HIDDEN = "_"  # stands where a name stood

# Parts of the patterns. Texts come in lower case, hyphens as spaces, names hidden.
_RATED = r"(?:rat(?:e|ed|ing|ings|es)|reviews?|reviewed|scores?|satisfaction|feedback|regarded|ranked|stars?)"
_WHOSE = r"(?:(?:customer|consumer|user|overall|public|quality|satisfaction|service|star|in|by|its|from)s? )*"
_LINK = r"(?: (?:is|are|was|as|at|of|being|very|quite|rather|pretty|fairly|considered|ranges?|in|into|fall|customers?|only|the|it|a|an))*"
_PRICE = r"(?:pric(?:e|es|ed|ing|ey|y)|costs?|cost|budget)"
_POUNDS = r"(?:£|gbp |euros? |pounds? )?"
_YOUNG = r"(?:famil(?:y|ies)|kids?|child(?:ren)?(?:'?s)?|youngsters?|all ages)"
_STEP = r"(?: (?!(?:and|but|it|far|only)\b)[\w']+)"  # a word that does not begin another statement


def _rated(words: str, stars: str) -> str:
    """Patterns of a rating: the words before or behind "rating", or so many stars, or out of five."""
    return (
        rf"\b(?:{words}) {_WHOSE}{_RATED}\b|\b{_RATED}{_LINK} (?:{words})\b(?! {_PRICE})"
        rf"|\b(?:{stars})(?: stars?)?(?: out(?: of)?| of| to| /| on| from) (?:a possible )?(?:5|five)\b"
        rf"|(?<!of )(?<!to )(?<!out )(?<!/ )\b(?:{stars})(?: \*| star)"
    )


def _priced(words: str) -> str:
    """Patterns of a price: the words before or behind "price"."""
    return rf"\b(?:{words}) {_PRICE}\b|\b{_PRICE}{_LINK} (?:{words})(?!{_STEP}? {_RATED})\b"


# slot -> ((the values that are one level), what says it). Where a pattern of the slot has matched, the others see no
# more of that stretch of the text, so "not cheap" is not also "cheap".
LEVELS: Mapping[str, Sequence[tuple[tuple[str, ...], str]]] = {
    "eatType": (
        (("coffee shop",), r"\bcoff?ee? ?(?:shops?|house|bar|place)?\b|\bcaf[eé]\b"),
        (("pub",), r"\bpubs?\b|\bbar\b|\binn\b|\btavern\b"),
        (("restaurant",), r"\brest[ar]?urants?\b|\brestaurants?\b|\bdiner\b|\bbistro\b"),
    ),
    "food": (
        (("Fast food",), r"\bfast ?food\b|\bburgers?\b|\bfries\b|\bjunk food\b"),
        (("English",), r"\benglish\b|\bbritish\b|\bbritain\b|\benglands?\b|\bbreakfasts?\b|\bfish and chips\b"),
        (("French",), r"\bfrench\b|\bfrance\b"),
        (("Italian",), r"\bitalian\b|\bitaly\b|\bpasta\b|\bpizzas?\b|\bspaghetti\b"),
        (("Indian",), r"\bindian?\b|\bcurr(?:y|ies)\b"),
        (("Japanese",), r"\bjapan(?:ese)?\b|\bsushi\b"),
        (("Chinese",), r"\bchin(?:a|ese)\b|\bnoodles?\b"),
    ),
    "priceRange": (
        (
            ("high", "more than £30"),
            r"\bnot (?:\w+ )?(?:cheap|inexpensive)\b|(?<!moderately )\bexpensive\b|\bpric(?:e?y|ier)\b|\bcostly\b|\bhigh(?:er)? end\b"
            rf"|\bup ?(?:scale|market)\b|{_priced('high(?:er|ly)?|upper|premium|above average')}"
            rf"|\b(?:more than|over|above|upwards? of|at least|exceed\w*|greater than|from|starts? at) {_POUNDS}(?:30|thirty)\b"
            rf"|{_POUNDS}(?:30|thirty) ?(?:\+|plus|and (?:up|over|above)|or more)",
        ),
        (
            ("moderate", "£20-25"),
            rf"{_priced('moderat(?:e|ely)|mid(?:dle)?(?: ranged?)?|medium|average|averagely|fair|fairly|decent')}"
            rf"|\b(?:reasonabl[ey]|mid(?:dle)? range\w*)(?! {_WHOSE}{_RATED})\b|\bmoderat(?:e|ely)(?! "
            rf"{_WHOSE}{_RATED})\b|{_POUNDS}(?:20|twenty) ?(?:to|and|through|or)? ?{_POUNDS}25\b",
        ),
        (
            ("cheap", "less than £20"),
            r"\bcheap(?:er|ly)?\b|\binexpensive(?:ly)?\b|\baffordabl[ey]\b|\bbudget\b|\bnot (?:\w+ )?expensive\b"
            rf"|{_priced('low(?:er|ly)?|small|great value')}|\blow(?:er)? (?:end|range)\b|\beconomical\b|\bgood value\b"
            rf"|\b(?:less th[ae]n|under|below|up to|lower than|within|beneath|no more than|maximum of) {_POUNDS}(?:20|twenty)\b"
            rf"|{_POUNDS}(?:20|twenty) ?(?:or|and) (?:less|under|below)",
        ),
    ),
    "customer rating": (
        (
            ("low", "1 out of 5"),
            rf"{_rated('low(?:er|ly|est)?|poor(?:ly)?|bad(?:ly)?|terribl[ey]|below average|not (?:very |too )?(?:good|great|well)', '1|one')}",
        ),
        (
            ("high", "5 out of 5"),
            rf"{_rated('high(?:er|ly|est)?|well|good|great|excellent(?:ly)?|top|best|outstanding|perfect|fantastic|superb|favou?rabl[ey]', '5|five')}",
        ),
        (
            ("average", "3 out of 5"),
            rf"{_rated('average(?:ly)?|moderat(?:e|ely)|decent(?:ly)?|mediocre|medium|mid(?:dle)? ranged?|okay|ok|reasonabl[ey]|fair(?:ly)?|middling|mixed', '3|three')}",
        ),
    ),
    "area": (
        (("riverside",), r"\briver\w*|\bwaterfront\b|\bwaterside\b"),
        (("city centre",), r"\bcit(?:y|ies)\b|\bcent(?:re|er)\b|\bdowntown\b|\bcentral(?:ly)?\b|\bin town\b"),
    ),
    "familyFriendly": (
        (
            ("no",),
            rf"\b(?:not|no|non|never|without|exclud\w+|prohibit\w*|un\w+|[a-z]+n't|cannot|lack\w*){_STEP}{{0,5}}? {_YOUNG}\b"
            rf"|\b{_YOUNG}{_STEP}{{0,4}}? (?:not(?! far| only)|no|prohibited|unfriendly|[a-z]+n't|unwelcome|banned)\b|\badults?\b",
        ),
        (("yes",), rf"\b{_YOUNG}\b"),
    ),
}
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
    """Looks for slots in texts. `names` and `neighbours` are those of the data set: an added neighbour is one of them."""

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
        kinds = {slot: _kind(meaning.get(slot), said[slot]) for slot in SLOTS}
        return Judgement({slot: kind for slot, kind in kinds.items() if kind}, len(meaning))


def matcher_of(meanings: Iterable[Meaning]) -> Matcher:
    """A matcher that knows the names and neighbours of these meanings."""
    known = list(meanings)
    return Matcher({m["name"] for m in known}, {m["near"] for m in known if "near" in m})


def slot_errors(judgements: Sequence[Judgement]) -> float:
    """The slot error rate: errors in all texts over slots that were to be said in all; above 1 where more is added."""
    return sum(j.errors for j in judgements) / sum(j.asked for j in judgements)


def kinds_of(judgements: Iterable[Judgement]) -> dict[str, int]:
    """How many slots are right, missing, wrong, added."""
    counted = Counter(kind for j in judgements for kind in j.slots.values())
    return {kind: counted[kind] for kind in (RIGHT, MISSING, WRONG, ADDED)}


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
