"""The checks of lesson 13: answers for `test_checks`, and what the right ones rest on."""

from lora_course import checks
from lora_lab import LoRA, params

RIGHT = {"ranks": (16, 5), "plan": (9, "undecided", "c")}
WRONG = [
    ("ranks", (32, 5), "more matrices at the same rank"),
    ("ranks", (16, 5.2), "a whole number"),
    ("ranks", (16, 6), "goes over the budget"),
    ("ranks", (16, 9), "not by how many there are"),
    ("plan", (8.59, ..., ...), "round up"),
    ("plan", (17, ..., ...), "each seed gives one difference"),
    ("plan", (2.93, ..., ...), "square it"),
    ("plan", (4.21, ..., ...), "add the 0.84"),
    ("plan", (19.3, ..., ...), "one point, not 1.5"),
    ("plan", (100, ..., ...), "(2.8 * standard deviation / gap) ** 2"),
    ("plan", (9, "worse", ...), "no difference is shown"),
]


def test_a_rank_stays_within_the_budget_and_the_next_one_does_not():
    for model in ("llama-3-8b", "gemma-2-9b"):
        budget = params(model, LoRA(32, targets="q,v")).trainable
        for compared, targets in zip(
            checks.check_ranks(..., ..., model).right.values(), ("q,k,v,o", "all-linear"), strict=True
        ):
            rank = int(compared.right)
            within, over = (params(model, LoRA(r, targets=targets)).trainable for r in (rank, rank + 1))
            assert within <= budget < over


def test_each_round_shows_what_the_next_one_needs_and_nothing_before():
    for pair, needed in {"q against q,k,v,o": 9, "v against all": 4, "up,down against q": 4}.items():
        first = repr(checks.check_plan(..., ..., ..., pair))
        assert "standard deviation" in first
        assert "interval" not in first
        assert "95% interval" in repr(checks.check_plan(needed, ..., ..., pair))
