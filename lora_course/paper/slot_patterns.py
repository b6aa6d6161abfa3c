"""What says each value of a slot: regular expressions, for the grammar's words and for those of E2E's writers.

They are for text in lower case with names hidden and hyphens as spaces, see `slot_errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_RATED = r"(?:rat(?:e|ed|ing|ings|es)|reviews?|reviewed|scores?|satisfaction|feedback|regarded|ranked|stars?)"
_WHOSE = r"(?:(?:customer|consumer|user|overall|public|quality|satisfaction|service|star|in|by|its|from)s? )*"
_LINK = (
    r"(?: (?:is|are|was|as|at|of|being|very|quite|rather|pretty|fairly|considered|ranges?|in|into|fall|customers?|only"
    r"|the|it|a|an))*"
)
_PRICE = r"(?:pric(?:e|es|ed|ing|ey|y)|costs?|cost|budget)"
_LOW = r"low(?:er|ly|est)?|poor(?:ly)?|bad(?:ly)?|terribl[ey]|below average|not (?:very |too )?(?:good|great|well)"
_HIGH = r"high(?:er|ly|est)?|well|good|great|excellent(?:ly)?|top|best|outstanding|perfect|superb|favou?rabl[ey]"
_MIDDLING = (
    r"average(?:ly)?|moderat(?:e|ely)|decent(?:ly)?|mediocre|medium|mid(?:dle)? ranged?|okay|ok|reasonabl[ey]"
    r"|fair(?:ly)?|middling|mixed"
)
_POUNDS = r"(?:£|gbp |euros? |pounds? )?"
_TWENTY, _THIRTY = rf"{_POUNDS}(?:20|twenty)", rf"{_POUNDS}(?:30|thirty)"
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
        (("coffee shop",), r"\bcoffee ?(?:shops?|house|bar|place)?\b|\bcaf[eé]\b"),
        (("pub",), r"\bpubs?\b|\bbar\b|\binn\b|\btavern\b"),
        (("restaurant",), r"\brestaurants?\b|\bdiner\b|\bbistro\b"),
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
            r"\bnot (?:\w+ )?(?:cheap|inexpensive)\b|(?<!moderately )(?<!not )(?<!not too )(?<!not very )\bexpensive\b"
            r"|\bpric(?:e?y|ier)\b|\bcostly\b"
            rf"|\bhigh(?:er)? end\b|\bup ?(?:scale|market)\b|{_priced('high(?:er|ly)?|upper|premium|above average')}"
            rf"|\b(?:more than|over|above|upwards? of|at least|exceed\w*|greater than|from|starts? at) {_THIRTY}\b"
            rf"|{_THIRTY} ?(?:\+|plus|and (?:up|over|above)|or more)",
        ),
        (
            ("moderate", "£20-25"),
            rf"{_priced('moderat(?:e|ely)|mid(?:dle)?(?: ranged?)?|medium|average|averagely|fair|fairly|decent')}"
            rf"|\b(?:reasonabl[ey]|mid(?:dle)? range\w*)(?! {_WHOSE}{_RATED})\b|\bmoderat(?:e|ely)(?! "
            rf"{_WHOSE}{_RATED})\b|{_TWENTY} ?(?:to|and|through|or)? ?{_POUNDS}25\b",
        ),
        (
            ("cheap", "less than £20"),
            r"\bcheap(?:er|ly)?\b|\binexpensive(?:ly)?\b|\baffordabl[ey]\b|\bbudget\b|\bnot (?:\w+ )?expensive\b"
            rf"|{_priced('low(?:er|ly)?|small|great value')}|\blow(?:er)? (?:end|range)\b|\beconomical\b"
            rf"|\bgood value\b|\b(?:less th[ae]n|under|below|up to|lower than|within|no more than) {_TWENTY}\b"
            rf"|{_TWENTY} ?(?:or|and) (?:less|under|below)",
        ),
    ),
    "customer rating": (
        (("low", "1 out of 5"), _rated(_LOW, "1|one")),
        (("high", "5 out of 5"), _rated(_HIGH, "5|five")),
        (("average", "3 out of 5"), _rated(_MIDDLING, "3|three")),
    ),
    "area": (
        (("riverside",), r"\briver\w*|\bwaterfront\b|\bwaterside\b"),
        (("city centre",), r"\bcit(?:y|ies)\b|\bcent(?:re|er)\b|\bdowntown\b|\bcentral(?:ly)?\b|\bin town\b"),
    ),
    "familyFriendly": (
        (
            ("no",),
            rf"\b(?:not|no|non|never|without|exclud\w+|prohibit\w*|un(?:suit|friend|welcom|fit)\w*|[a-z]+n't"
            rf"|cannot|lack\w*){_STEP}{{0,5}}? {_YOUNG}\b|\badults?\b|\b{_YOUNG}{_STEP}{{0,4}}? "
            r"(?:not(?! far| only)|no|prohibited|unfriendly|[a-z]+n't|unwelcome|banned)\b",
        ),
        (("yes",), rf"\b{_YOUNG}\b"),
    ),
}
