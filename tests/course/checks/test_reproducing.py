"""The checks of lesson 18: answers for `test_checks`, and what the right ones rest on."""

from lora_course import checks
from lora_course.checks import reproducing

TABLE2 = {"A": "undecided", "B": "not tested", "C": "holds"}
RIGHT = {"judge": (TABLE2, "table2"), "published": (2.86, 5.6, "noise", "large")}
WRONG = [
    ("judge", (TABLE2 | {"A": "fails"}, "table2"), "WHOLE interval"),
    ("judge", (TABLE2 | {"B": "fails"}, "table2"), "look at the steps first"),
    ("judge", (TABLE2 | {"C": "worse"}, "table2"), "C: answer with one of fails, holds"),
    ("published", (1.28, 5.6, "noise", "large"), "five times the rows"),
    ("published", (2.0, 5.6, "noise", "large"), "of two add up"),
    ("published", (2.86, 8.0, "noise", "large"), "80 of 100"),
    ("published", (2.86, 5.6, "a gap", "large"), "smaller than the one you need"),
    ("published", (3.2, 6.27, "a gap", "base"), "look at the marks"),
    ("published", (2.86, 5.6, "behind", "large"), "answer with one of a gap, noise"),
]


def test_no_two_runs_of_an_item_are_judged_alike():
    for name in reproducing.ITEMS:
        found = reproducing.outcomes(name)
        assert len(set(found.values())) == 3
        assert reproducing.runs(name).keys() == found.keys()
        assert checks.check_judge(found, name).passed is True


def test_the_word_follows_from_gap_and_marks():
    for name, (*rows, _) in reproducing.PAIRS.items():
        first, second = reproducing.published(name)
        _, points, word = checks.check_published(..., ..., ..., name).right.values()
        unlike = "a gap" if [row[2] for row in rows] == ["†", "†"] else "unlike starts"
        assert word.right == ("noise" if abs(first - second) < points.right else unlike,)
