import pytest

from lora_course import checks
from lora_course.checks.comparing import PAIRS, WORDS
from lora_course.receipts import Receipt

WORSE = "worse but within the margin"
RIGHT = [
    ("equivalence_rule", (lambda low, high, margin: -margin < low and high < margin,)),
    ("defense", (1.5, WORSE, "c")),
]
WRONG = [
    ("equivalence_rule", (lambda low, high, margin: low < 0 < high,), "no difference was found"),
    ("equivalence_rule", (lambda low, high, margin: abs(low + high) / 2 < margin,), "the middle"),
    ("equivalence_rule", (lambda low, high, m: high - low < 2 * m and abs(low + high) / 2 < m,), "may stick out"),
    ("equivalence_rule", (lambda low, high, margin: high < margin,), "upper end alone"),
    ("equivalence_rule", (lambda low, high, margin: low > -margin,), "lower end alone"),
    ("equivalence_rule", (lambda low, high, margin: high - low < margin,), "narrower"),
    ("equivalence_rule", (lambda low, high, margin: low < -margin or high > margin,), "inside, not outside"),
    ("defense", (0, ..., ...), "exact equality"),
    ("defense", (0.015, ..., ...), "give points"),
    ("defense", (8, ..., ...), "the probe"),
    ("defense", ("much", ..., ...), "not str"),
    ("defense", (1.5, "equal", ...), "the words are"),
    ("defense", (1.5, "worse", ...), "only half"),
    ("defense", (1.5, "undecided", ...), "a difference is shown"),
    ("defense", (1.5, "better but within the margin", ...), "on the other side of 0"),
    ("defense", (1.5, WORSE, "a"), "chosen to fit"),
    ("defense", (1.5, "undecided", ..., "all against q,v"), "inside the margin"),
    ("defense", (1.5, "worse", ..., "all against q,v"), "no difference is shown"),
    ("defense", (1.5, "equivalent", ..., "q,k,v,o against q,v"), "not inside the margin"),
    ("defense", (1.5, WORSE, ..., "2 bits against 16"), "not inside the margin"),
]


@pytest.fixture(autouse=True)
def receipt(monkeypatch: pytest.MonkeyPatch) -> Receipt:
    monkeypatch.setattr("lora_course.checks.comparing.CURRENT", fresh := Receipt("05"))
    return fresh


def test_defense_shows_one_step_at_a_time_and_keeps_its_margin(receipt: Receipt):
    assert "interval" not in repr(checks.check_defense(..., ..., ...))
    assert not receipt.notes
    with_margin = repr(checks.check_defense(1, ..., ...))
    assert "-1.53 to -0.09" in with_margin
    assert "To neither: undecided" in with_margin
    assert receipt.notes == {"margin, 3 bits against 16": 0.01}
    with_word = repr(checks.check_defense(1, "worse", ...))
    assert all(f"\n  {letter}: for " in with_word for letter in "abcd")
    changed = checks.check_defense(3, WORSE, "c")
    assert changed.passed is False
    assert "your margin was 1" in changed.words
    assert "to -0.24. You can write: for MiniLM on rt, LoRA on" in checks.check_defense(1, "worse", "c").words


@pytest.mark.parametrize("pair", PAIRS)
def test_each_pair_has_one_right_word_and_sentence(pair: str, monkeypatch: pytest.MonkeyPatch):
    (word,) = [word for word in WORDS if checks.check_defense(1.5, word, ..., pair).passed is None]
    passed = [checks.check_defense(1.5, word, letter, pair).passed for letter in "abcd"]
    assert passed.count(True) == 1
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")  # the grader, which doesn't know her name, must agree
    assert [checks.check_defense(1.5, word, letter, pair).passed for letter in "abcd"] == passed


def test_without_a_lesson_as_in_the_grader_no_margin_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lora_course.checks.comparing.CURRENT", Receipt())
    assert all(checks.check_defense(margin, ..., ...).passed is None for margin in (1, 3))
