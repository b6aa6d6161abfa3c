import pytest

from lora_course import checks

RIGHT = [("ranks", (16, 5)), ("plan", (9, "undecided", "c"))]
WRONG = [
    ("ranks", (32, 5), "more matrices at the same rank"),
    ("ranks", (16, 5.2), "a whole number"),
    ("ranks", (16, 6), "goes over the budget"),
    ("ranks", (16, 9), "not by their number"),
    ("plan", (8.59, ..., ...), "round up"),
    ("plan", (17, ..., ...), "two runs with the same seed are a pair"),
    ("plan", (2.93, ..., ...), "square it"),
    ("plan", (4.21, ..., ...), "add the 0.84"),
    ("plan", (19.3, ..., ...), "one point, not 1.5"),
    ("plan", (100, ..., ...), "(2.8 * standard deviation / gap) ** 2"),
    ("plan", (9, "worse", ...), "no difference is shown"),
]


@pytest.mark.parametrize(("pair", "seeds"), [("q against q,k,v,o", 9), ("v against all", 4), ("up,down against q", 4)])
def test_plan_shows_the_interval_after_the_number_of_seeds(pair: str, seeds: int):
    question = repr(checks.check_plan(..., ..., ..., pair))
    assert "standard deviation" in question
    assert "interval" not in question
    assert "95% interval" in repr(checks.check_plan(seeds, ..., ..., pair))
