"""The checks of lesson 15: answers for `test_checks`."""

from __future__ import annotations

from tests.course.claims.test_claims import TEXT

RIGHT = {
    "word": ("undecided", True, True, None),
    "turned": ("8", "true", {"gpu_gb": 48}),
    "own_card": (TEXT, {"bits": 16}),
}
UNSOLVED = {"word": (..., True, None), "turned": ("8", "true", ...), "own_card": (TEXT, ...)}
WRONG = [
    ("word", ("true", True, None), "in every case"),
    ("word", ("perhaps", True, None), "one of true, false"),
    ("word", ("undecided", True, False), "no case speaks against it"),
    ("turned", ("8", "true", {"bits": 3}), "then it is false"),
    ("turned", ("8", "true", {"gpu": 48}), "nearest: gpu_gb"),
    ("turned", ("8", "true", {"gpu_gb": 48, "bits": 2}), "change one premise"),
    ("turned", ("8", "true", "gpu_gb"), "change one premise"),
    ("turned", ("8", "true", {48: "gpu_gb"}), "change one premise"),
    ("turned", ("8", "true", {"of": "9"}), "change one premise"),
    ("turned", ("6", "true", {"store": "runs"}), "change one premise"),
    ("own_card", (TEXT, {"rank": 4}), "still true"),
    ("own_card", (TEXT, {"ranks": 4}), "nearest: rank"),
    ("own_card", (TEXT, {"bits": 16, "rank": 4}), "change one premise"),
    ("own_card", (TEXT, "rank"), "change one premise"),
    ("own_card", (TEXT, {4: "rank"}), "change one premise"),
    ("own_card", ("statement: mine", {"rank": 4}), "lacks the field 'id'"),
    ("own_card", (TEXT.replace("limits: memory only", "limits: ''"), {"bits": 16}), "what it does not show"),
]
