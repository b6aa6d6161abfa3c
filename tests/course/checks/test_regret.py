"""Tests of the checks of lesson 15."""

from lora_course.checks.regret import LOWEST, SENTENCES
from lora_course.paper import facts
from lora_lab.accounting.params import break_even_rank

RIGHT = [("lowest", (LOWEST.right, "nan")), ("carried", (16, "c", "more rates"))]
WRONG = [
    ("lowest", (lambda a, b, c: -LOWEST.right(a, b, c), "nan"), "wrong sign"),
    ("lowest", (lambda a, b, c: (a - c) / (a - 2 * b + c), "nan"), "the slope of p x"),
    ("lowest", (lambda a, b, c: b - (a - c) ** 2 / (8 * (a - 2 * b + c)), "nan"), "return the x where it occurs"),
    ("lowest", (lambda a, b, c: 0.0, "nan"), "where does the parabola turn"),
    ("lowest", (lambda a, b, c: 1.0, "nan"), "the slope p + 2 q x is 0"),
    ("lowest", (LOWEST.right, "the last"), "may lie beyond"),
    ("carried", (32, "c", "more rates"), "isn't the first"),
    ("carried", (16, "a", "more rates"), "the last column is ahead"),
    ("carried", (16, "b", "more rates"), "nearly doubles"),
    ("carried", (16, "d", "more rates"), "a larger alpha acts like a higher rate"),
    ("carried", (16, "e", "more rates"), "16,704"),
    ("carried", (16, "c", "more ranks"), "rank 10 at most"),
    ("carried", (16, "c", "more seeds"), "small gaps"),
]


def test_replies_agree_with_the_published_numbers():
    published = facts("claims/evidence/eighteen_runs")
    rows, trained, longer = published["rows"], published["full"]["trained"], published["longer"]
    assert all(low < middle < high for low, middle, high in rows.values())
    assert rows[32][1] > 1.9 * rows[4][1]
    assert 32 * (512 + 10) == 16_704 > trained == 512 * 10 + 10
    assert break_even_rank(512, 10) < 10
    assert longer["accuracy"] > rows[longer["rank"]][2]
    assert set(SENTENCES) == set("abcde")
