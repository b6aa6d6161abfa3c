"""The checks of lesson 05: answers for `test_checks`, and a margin that is set before anything is shown."""

import pytest

from lora_course import checks
from lora_course.checks.comparing import PAIRS, WORDS
from lora_course.receipts import Receipt

BUT = " but within the margin"
RIGHT = {
    "equivalence_rule": (lambda low, high, margin: -margin < low and high < margin,),
    "defense": (1.5, f"worse{BUT}", "c"),
}
WRONG = [
    ("equivalence_rule", (lambda low, high, margin: low < 0 < high,), "no difference was found"),
    ("equivalence_rule", (lambda low, high, margin: abs(low + high) / 2 < margin,), "the middle"),
    ("equivalence_rule", (lambda low, high, m: high - low < 2 * m and abs(low + high) / 2 < m,), "it may stick out"),
    ("equivalence_rule", (lambda low, high, margin: high < margin,), "upper end alone"),
    ("equivalence_rule", (lambda low, high, margin: low > -margin,), "lower end alone"),
    ("equivalence_rule", (lambda low, high, margin: high - low < margin,), "narrower"),
    ("equivalence_rule", (lambda low, high, margin: low < -margin or high > margin,), "inside, not outside"),
    ("equivalence_rule", (lambda low, high, margin: low / 0,), "ZeroDivisionError"),
    ("defense", (0, ..., ...), "exactly equal"),
    ("defense", (0.015, ..., ...), "give points"),
    ("defense", (8, ..., ...), "The probe"),
    ("defense", ("much", ..., ...), "not str"),
    ("defense", (1.5, "equal", ...), "the words are"),
    ("defense", (1.5, "worse", ...), "only half"),
    ("defense", (1.5, "undecided", ...), "a difference is shown"),
    ("defense", (1.5, f"better{BUT}", ...), "which side of 0"),
    ("defense", (1.5, f"worse{BUT}", "a"), "made to fit"),
    ("defense", (1.5, f"worse{BUT}", "b"), "the sentence speaks of all"),
    ("defense", (1.5, f"worse{BUT}", "d"), "chance of a repeat"),
    ("defense", (1.5, "undecided", ..., "all against q,v"), "inside your margin"),
    ("defense", (1.5, "worse", ..., "all against q,v"), "no difference is shown"),
    ("defense", (1.5, "equivalent", ..., "q,k,v,o against q,v"), "not inside your margin"),
    ("defense", (1.5, f"worse{BUT}", ..., "2 bits against 16"), "not inside your margin"),
]


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Receipt:
    monkeypatch.setattr("lora_course.checks.comparing.CURRENT", fresh := Receipt("05"))
    return fresh


def test_each_answer_shows_what_the_next_one_needs_and_nothing_before(mine: Receipt):
    assert "interval" not in repr(checks.check_defense(..., ..., ...))
    assert not mine.notes
    second = repr(checks.check_defense(1, ..., ...))
    assert "-1.53 to -0.09" in second
    assert "To neither: undecided" in second
    assert mine.notes == {"margin, 3 bits against 16": 0.01}
    third = repr(checks.check_defense(1, "worse", ...))
    assert all(f"\n  {letter}: in " in third for letter in "abcd")


def test_a_margin_that_moves_after_the_look_is_refused(mine: Receipt):
    checks.check_defense(1, ..., ...)
    moved = checks.check_defense(3, f"worse{BUT}", "c")
    assert moved.passed is False
    assert "your margin was 1" in moved.words
    assert "to -0.24. You can write: in MiniLM on rt, LoRA on" in checks.check_defense(1, "worse", "c").words


def test_every_pair_has_one_sentence_that_may_be_written(mine: Receipt):
    for pair in PAIRS:
        (word,) = [one for one in WORDS if checks.check_defense(1.5, one, ..., pair).passed is None]
        assert [checks.check_defense(1.5, word, letter, pair).passed for letter in "abcd"].count(True) == 1
