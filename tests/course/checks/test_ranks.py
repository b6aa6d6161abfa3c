import numpy as np
import pytest

from lora_course import checks
from lora_course.checks import ranks
from lora_lab.experiments.low_rank import decompose, truncated

RIGHT = [("energy", (lambda s, r: (s[:r] ** 2).sum() / (s**2).sum(),)), ("facts", (17,))]
WRONG = [
    ("energy", (lambda s, r: s[:r].sum() / s.sum(),), "s squared"),
    ("energy", (lambda s, r: (s[:r] ** 2).sum(),), "divide by"),
    ("energy", (lambda s, r: (s[r:] ** 2).sum() / (s**2).sum(),), "what is lost"),
    ("energy", (lambda s, r: s[r - 1] ** 2 / (s**2).sum(),), "r-th value alone"),
    ("energy", (lambda s, r: np.sqrt((s[:r] ** 2).sum() / (s**2).sum()),), "square root"),
    ("energy", (lambda s, r: 100 * (s[:r] ** 2).sum() / (s**2).sum(),), "not a percentage"),
    ("energy", (lambda s, r: (s[: r + 1] ** 2).sum() / (s**2).sum(),), "r + 1 values"),
    ("energy", (lambda s, r: s[:r] ** 2 / (s**2).sum(),), "return their sum"),
    ("energy", (lambda s, r: s[r] / s.sum(),), "s[:r] contains the first r"),
    ("energy", (lambda s, r: (s[:r] ^ 2).sum() / s.sum(),), "a power is written **"),
    ("facts", (64,), "every value exactly"),
    ("facts", (35,), "90% of the energy"),
    ("facts", (16,), "only 93.8%"),
    ("facts", (18,), "a smaller rank"),
]


@pytest.mark.parametrize("n", [64, 192])
def test_rank_for_facts_agrees_with_a_direct_count(n: int):
    keys, values = ranks.facts(n)
    pieces = decompose(values.T @ keys)
    right = [((keys @ truncated(*pieces, r).T @ values.T).argmax(1) == np.arange(n)).mean() for r in range(1, 40)]
    assert checks.check_facts(next(r for r, share in enumerate(right, 1) if share >= 0.95), n).passed
