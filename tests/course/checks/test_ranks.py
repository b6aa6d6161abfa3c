"""The checks of lesson 10: answers for `test_checks`, and what the right ones rest on."""

import numpy as np

from lora_course import checks
from lora_course.checks import ranks
from lora_lab.experiments.low_rank import decompose, truncated

RIGHT = {"energy": (lambda s, r: (s[:r] ** 2).sum() / (s**2).sum(),), "facts": (17,)}
WRONG = [
    ("energy", (lambda s, r: s[:r].sum() / s.sum(),), "s squared"),
    ("energy", (lambda s, r: (s[:r] ** 2).sum(),), "divide by"),
    ("energy", (lambda s, r: (s[r:] ** 2).sum() / (s**2).sum(),), "what is lost"),
    ("energy", (lambda s, r: s[r - 1] ** 2 / (s**2).sum(),), "r-th alone"),
    ("energy", (lambda s, r: np.sqrt((s[:r] ** 2).sum() / (s**2).sum()),), "square root"),
    ("energy", (lambda s, r: 100 * (s[:r] ** 2).sum() / (s**2).sum(),), "not a percentage"),
    ("energy", (lambda s, r: (s[: r + 1] ** 2).sum() / (s**2).sum(),), "r + 1 of them"),
    ("energy", (lambda s, r: s[:r] ** 2 / (s**2).sum(),), "add them up"),
    ("energy", (lambda s, r: s[r] / s.sum(),), "s[:r] are the first r"),
    ("energy", (lambda s, r: (s[:r] ^ 2).sum() / s.sum(),), "a power is written **"),
    ("facts", (64,), "every value exactly"),
    ("facts", (35,), "90% of the energy"),
    ("facts", (16,), "only 93.8%"),
    ("facts", (18,), "a smaller rank"),
]


def test_the_rank_that_facts_need_is_counted_as_the_lesson_counts_it():
    for n in (64, 192):
        keys, values = ranks.facts(n)
        pieces = decompose(values.T @ keys)
        right = [((keys @ truncated(*pieces, r).T @ values.T).argmax(1) == np.arange(n)).mean() for r in range(1, 40)]
        assert checks.check_facts(next(r for r, share in enumerate(right, 1) if share >= 0.95), n).passed
