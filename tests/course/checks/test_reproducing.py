import pytest

from lora_course import checks
from lora_course.checks import reproducing

TABLE2 = {"A": "undecided", "B": "not tested", "C": "holds"}
RIGHT = [("judge", (TABLE2, "table2")), ("published", (2.86, 5.6, "noise", "large"))]
WRONG = [
    ("judge", (TABLE2 | {"A": "fails"}, "table2"), "WHOLE interval"),
    ("judge", (TABLE2 | {"B": "fails"}, "table2"), "look at the steps first"),
    ("published", (1.28, 5.6, "noise", "large"), "five times the rows"),
    ("published", (2.0, 5.6, "noise", "large"), "of two add up"),
    ("published", (2.86, 8.0, "noise", "large"), "80% power"),
    ("published", (2.86, 5.6, "a gap", "large"), "smaller than the one you need"),
    ("published", (3.2, 6.27, "a gap", "base"), "look at the marks"),
]


@pytest.mark.parametrize("name", reproducing.ITEMS)
def test_runs_of_an_item_have_three_different_outcomes(name: str):
    outcomes = reproducing.outcomes(name)
    assert len(set(outcomes.values())) == 3
    assert reproducing.runs(name).keys() == outcomes.keys()
    assert checks.check_judge(outcomes, name).passed


@pytest.mark.parametrize("name", reproducing.PAIRS)
def test_word_for_a_published_pair_follows_from_gap_and_marks(name: str):
    *rows, _ = reproducing.PAIRS[name]
    first, second = reproducing.published(name)
    _, points, word = checks.check_published(..., ..., ..., name).right.values()
    expected = "a gap" if [row[2] for row in rows] == ["†", "†"] else "unlike starts"
    assert word.right == ("noise" if abs(first - second) < points.right else expected,)
