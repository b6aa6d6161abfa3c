"""The checks of lesson 09: answers for `test_checks`."""

from __future__ import annotations

BYTES = (90_000_000, 300_000)
RIGHT = {
    "merged_weight": (lambda w, a, b, s: w + s * b @ a,),
    "lost_update": (2**-9,),
    "forty_copies": (40 * 90 / (90 + 12), *BYTES),
    "serving": ("c",),
}


def in_place(w, a, b, s):
    w += s * b @ a
    return w


WRONG = [
    ("merged_weight", (lambda w, a, b, s: w + b @ a,), "scaling is missing"),
    ("merged_weight", (lambda w, a, b, s: s * b @ a,), "update alone"),
    ("merged_weight", (lambda w, a, b, s: w - s * b @ a,), "merging adds"),
    ("merged_weight", (lambda w, a, b, s: s * (w + b @ a),), "belongs to the update"),
    ("merged_weight", (lambda w, a, b, s: w + s * a @ b,), "ValueError"),
    ("merged_weight", (lambda w, a, b, s: (w + s * b @ a).T,), "has W's shape"),
    ("merged_weight", (lambda w, a, b, s: w + 7,), "by hand"),
    ("merged_weight", (in_place,), "changes the W"),
    ("lost_update", (2**-8,), "whole step"),
    ("lost_update", (2**-7,), "from 0.5 to 1"),
    ("lost_update", (0.1,), "2**-8 apart"),
    ("lost_update", ("small",), "a number is wanted"),
    ("forty_copies", (102 / 3600, *BYTES), "other way round"),
    ("forty_copies", (300, *BYTES), "one base against one adapter"),
    ("forty_copies", (40, *BYTES), "nearly"),
    ("forty_copies", (2, *BYTES), "over one base"),
    ("serving", ("a",), "copies of the model"),
    ("serving", ("B)",), "rewrites the weights"),
    ("serving", ("yes",), "one of a, b, c"),
]
