"""The checks pass a right answer, explain the wrong ones that students give, and wait for an unsolved one."""

from __future__ import annotations

import math
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
import torch

from lora_course import checks
from lora_course.checks.verdict import number
from lora_course.receipts import Check, Receipt
from lora_lab.errors import BadValue
from tests.course import checks as tested


def forward(x, W, A, B, alpha):
    return x @ W.T + alpha / A.shape[0] * (x @ A.T @ B.T)


LESSONS = [
    import_module(f"{tested.__name__}.{one.name}")
    for one in iter_modules(tested.__path__)
    if f"{tested.__name__}.{one.name}" != __name__
]
SHARES = {"layer.0.query": 0.1, "layer.5.value": 0.3}
RIGHT = {
    "trainable_parameters": (6 * 2 * 8 * 768,),
    "contradictions": ({(3, 2), (6, 3), (4, 5), (7, 6)},),
    "energy": (lambda s, r: (s[:r] ** 2).sum() / (s**2).sum(),),
    "update_shows": ("b",),
    "factor_shapes": ((8, 384), (1536, 8)),
    "training_bytes": (lambda parameters, trained: 4 * parameters + 12 * trained,),
    "lora_forward": (forward,),
    "dead_start": ("B",),
    "wrong_fan_in": (lambda d, r: math.sqrt(d) / math.sqrt(r),),
    "detour_cost": (lambda i, o, r: r * (i + o),),
    "standard_error": (lambda p, n: math.sqrt(p * (1 - p) / n),),
    "rows_needed": (7840,),
    "largest_change": ("layer.5.value", SHARES),
}
WRONG = [
    ("trainable_parameters", (74498,), "the head too"),
    ("lora_forward", (lambda x, W, A, B, alpha: x @ W.T + 2 * (x @ A.T @ B.T),), "the values differ"),
    ("trainable_parameters", (36864,), "A alone, or B alone"),
    ("trainable_parameters", (36864,), "one of q and v alone"),
    ("trainable_parameters", (147456,), "two of the attention's four"),
    ("trainable_parameters", (384,), "layers x targets"),
    ("trainable_parameters", (12288,), "six"),
    ("trainable_parameters", (1769472,), "frozen"),
    ("trainable_parameters", ("many",), "a number is wanted"),
    ("contradictions", ({(1, 8)},), "1 and 8 do go together"),
    ("contradictions", ({(2, 3)},), "found 1 of 4"),
    ("contradictions", ({(1, 6), (2, 3)},), "1 and 6 do go together: W is frozen while A and B train"),
    ("energy", (lambda s, r: s[:r].sum() / s.sum(),), "s squared"),
    ("energy", (lambda s, r: (s[:r] ** 2).sum(),), "divide by"),
    ("energy", (lambda s, r: (s[r:] ** 2).sum() / (s**2).sum(),), "what is lost"),
    ("energy", (lambda s, r: s[r - 1] ** 2 / (s**2).sum(),), "r-th alone"),
    ("energy", (lambda s, r: np.sqrt((s[:r] ** 2).sum() / (s**2).sum()),), "square root"),
    ("energy", (lambda s, r: 100 * (s[:r] ** 2).sum() / (s**2).sum(),), "not in per cent"),
    ("energy", (lambda s, r: (s[: r + 1] ** 2).sum() / (s**2).sum(),), "r + 1 of them"),
    ("energy", (lambda s, r: (s[: r - 1] ** 2).sum() / (s**2).sum(),), "r - 1 of them"),
    ("energy", (lambda s, r: s[:r].sum(),), "square each"),
    ("energy", (lambda s, r: s[:r] ** 2 / (s**2).sum(),), "add them up"),
    ("energy", (lambda s, r: 0.5,), "by hand"),
    ("energy", (lambda s, r: s[9],), "it stops with IndexError"),
    ("energy", (lambda s, r: s[r] / s.sum(),), "s[:r] are the first r"),
    ("energy", (lambda s, r: (s[:r] ^ 2).sum() / s.sum(),), "a power is written **"),
    ("update_shows", ("A",), "built in"),
    ("update_shows", ("a)",), "built in"),
    ("update_shows", ("c",), "W was not touched"),
    ("update_shows", ("x",), "answer with one of"),
    ("factor_shapes", ((384, 8), (8, 1536)), "the transpose of W"),
    ("factor_shapes", ((1536, 8), (8, 384)), "it is A B that has"),
    ("factor_shapes", ((8, 1536), (384, 8)), "the other way round"),
    ("factor_shapes", ((8, 384), (8, 1536)), "B has r columns"),
    ("factor_shapes", ((384, 8), (1536, 8)), "A has r rows"),
    ("factor_shapes", ((1, 2), (3, 4)), "must be 1536 x 384"),
    ("factor_shapes", ("ab", (3, 4)), "a pair of numbers"),
    ("factor_shapes", (8, 384), "a pair of numbers"),
    ("training_bytes", (lambda p, t: 16 * p,), "neither gradient nor state"),
    ("training_bytes", (lambda p, t: 16 * t,), "the frozen weights are missing"),
    ("training_bytes", (lambda p, t: 4 * p + 8 * t,), "one of Adam's two"),
    ("training_bytes", (lambda p, t: 4 * p + 4 * t,), "Adam's state is missing"),
    ("training_bytes", (lambda p, t: 4 * p + 16 * t,), "twice"),
    ("training_bytes", (lambda p, t: p + 3 * t,), "has 4 bytes"),
    ("training_bytes", (lambda p, t: p,), "on top"),
    ("lora_forward", (lambda x, W, A, B, alpha: x @ W.T,), "only the frozen part"),
    ("lora_forward", (lambda x, W, A, B, alpha: x @ W.T + alpha * (x @ A.T @ B.T),), "not divided by the rank"),
    ("lora_forward", (lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * (x @ A.T @ B.T),), "A's rows"),
    ("lora_forward", (lambda x, W, A, B, alpha: W @ x,), "it stops with RuntimeError"),
    ("lora_forward", (lambda x, W, A, B, alpha: (x @ W.T).T,), "has shape"),
    ("dead_start", ("a",), "look at them"),
    ("dead_start", ("d",), "answer with one of"),
    ("dead_start", ("a).",), "look at them"),
    ("wrong_fan_in", (lambda d, r: d / r,), "square root"),
    ("wrong_fan_in", (lambda d, r: 48**0.5,), "write it with d and r"),
    ("wrong_fan_in", (lambda d, r: math.sqrt(r / d),), "other way round"),
    ("detour_cost", (lambda i, o, r: i * o,), "W's own cost"),
    ("detour_cost", (lambda i, o, r: i * o + r * (i + o),), "together"),
    ("detour_cost", (lambda i, o, r: 2 * r * i,), "square layer"),
    ("detour_cost", (lambda i, o, r: r * i * o,), "forming B A first"),
    ("standard_error", (lambda p, n: p * (1 - p) / n,), "square root"),
    ("standard_error", (lambda p, n: 100 * math.sqrt(p * (1 - p) / n),), "in points"),
    ("standard_error", (lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n),), "95 % interval"),
    ("standard_error", (lambda p, n: math.sqrt(p * (1 - p)) / n,), "under the root"),
    ("standard_error", (lambda p, n: math.sqrt(p * (1 - p)),), "spread of one row"),
    ("rows_needed", (78.4,), "not in per cent"),
    ("rows_needed", (1960,), "for 2 points"),
    ("rows_needed", (784,), "in shares"),
    ("largest_change", ("layer.0.query", SHARES), "there is a larger one"),
    ("largest_change", ("layer.9", SHARES), "no layer is called"),
    ("largest_change", (["layer.5.value"], SHARES), "no layer is called"),
]


RIGHT |= {name: answer for lesson in LESSONS for name, answer in lesson.RIGHT.items()}
WRONG += [case for lesson in LESSONS for case in lesson.WRONG]
OPEN = {name: answer for lesson in LESSONS for name, answer in getattr(lesson, "UNSOLVED", {}).items()}


def unsolved(name: str, nothing: object) -> tuple:
    """An exercise as it is handed out: its first answer open, where the lesson's own table has no other."""
    first, *others = RIGHT[name]
    return OPEN.get(name, ((lambda *given: nothing) if callable(first) else nothing, *others))


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes_and_hears_why(name: str):
    verdict = check(name, RIGHT[name])
    assert repr(verdict).startswith("right: ")
    assert len(verdict.words) > 20


def test_what_the_architecture_makes_is_not_called_a_finding_about_the_task():
    assert "layer 5" in checks.check_update_shows("b").words


@pytest.mark.parametrize("number", [np.int64(73728), np.float32(73728), 73728.0])
def test_a_number_of_any_kind_is_a_number(number: float):
    assert check("trainable_parameters", (number,)).passed
    assert check("standard_error", (lambda p, n: torch.tensor(p * (1 - p) / n).sqrt(),)).passed


@pytest.mark.parametrize("answer", ["b)", "B.", "(b)", " b "])
def test_a_letter_may_come_with_its_punctuation(answer: str):
    assert check("update_shows", (answer,)).passed


@pytest.mark.parametrize("answer", [(2, 3), {(2, 3, 6)}, {("2", "3")}, {"23": 1}, 5])
def test_what_is_no_set_of_pairs_is_asked_for_pairs(answer: object):
    assert "braces" in check("contradictions", (answer,)).words


@pytest.mark.parametrize("nothing", [None, ...])
@pytest.mark.parametrize("name", RIGHT)
def test_an_unsolved_exercise_is_not_yet_solved_and_no_error(name: str, nothing: object):
    assert repr(check(name, unsolved(name, nothing))).startswith("not yet: ")


@pytest.mark.parametrize(("name", "arguments", "why"), WRONG)
def test_a_wrong_answer_hears_what_is_wrong(name: str, arguments: tuple, why: str):
    verdict = check(name, arguments)
    assert verdict.passed is False
    assert why in verdict.words


def test_every_check_of_a_lessons_file_is_there_and_none_besides():
    files = [import_module(f"lora_course.checks.{one.name}") for one in iter_modules(checks.__path__)]
    there = {name: one for file in files for name, one in vars(file).items() if name.startswith("check_")}
    assert set(checks.__all__) == {"Verdict", *there}
    assert all(getattr(checks, name) is one for name, one in there.items())
    assert set(checks.__all__) <= set(dir(checks))
    with pytest.raises(AttributeError, match="check_nothing"):
        checks.check_nothing  # noqa: B018


def test_every_check_is_tested():
    assert {f"check_{name}" for name in RIGHT} == {name for name in checks.__all__ if name.startswith("check_")}


def test_a_hint_is_given_where_it_is_nearer_than_the_right_answer_and_nearer_than_any_other():
    """Each hint's own number lies within a hundredth of the answer, or of another hint."""
    assert check("trainable_parameters", (73_700,)).words == "layers x targets x rank x (inputs + outputs)"
    assert "embeddings and head are missing" in check("nf4_gib", (32.88,)).words
    assert "4 bits are the codes alone" in check("nf4_gib", (32.85,)).words


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("added_share", 43, "share of the longer row"),
        ("sqrt_alpha", 0.7, "alpha / r, the scaling"),
        ("gpt2_count", 200_000, "one matrix a layer"),
        ("adam_gib", 130, "those are GB"),
    ],
)
def test_a_wrong_number_that_is_rounded_has_its_hint_too(name: str, answer: float, why: str):
    assert why in check(name, (answer,)).words


def test_each_wrong_answer_is_given_the_next_hint_and_the_tries_up_to_the_right_one_are_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("lora_course.checks.verdict.CURRENT", mine := Receipt("02"))
    for answer, hint in ((..., ""), (1, "Hint 1 of 3"), (2, "Hint 2"), (..., ""), (3, "Hint 3"), (4, "Hint 3")):
        words = repr(checks.check_rows_needed(answer))
        assert words.partition("\n")[2].startswith(hint) if hint else "\n" not in words
    assert mine.checks == {"rows_needed": Check(False, 4)}
    for answer in (7840, 5):
        checks.check_rows_needed(answer)
    assert mine.checks == {"rows_needed": Check(True, 5)}


def test_an_exercise_may_have_a_students_own_numbers():
    assert checks.check_rows_needed(2.8**2 * 0.12 / 0.02**2, share=0.12, gap=0.02).passed
    assert "for 4 points" in checks.check_rows_needed(2.8**2 * 0.12 / 0.04**2, 0.12, 0.02).words
    assert checks.check_trainable_parameters(36_864, rank=4).passed


def test_a_misconception_may_be_a_number_or_what_is_true_of_one():
    wrong = {9: "squared", (lambda given: given < 0): "a count is not negative"}
    assert [number(given, 3, wrong, "why", fallback="no").words for given in (3, 9, -2, 5)] == [
        "why", "squared", "a count is not negative", "no",
    ]  # fmt: skip


def test_an_answer_that_is_rounded_to_three_figures_is_right():
    assert check("bits_per_weight", (4.13,)).passed
    assert "scales of the scales" in check("bits_per_weight", (4.12,)).words


@pytest.mark.parametrize("number", [10**400, math.inf, math.nan, -(10**400)], ids=["large", "inf", "nan", "low"])
def test_a_number_that_no_float_can_hold_is_a_wrong_one(number: float):
    assert "a finite number" in check("luck", (number,)).words
    assert check("equal_budget", (number, 4)).passed is False
    assert check("detour_cost", (lambda i, o, r: number,)).passed is False


def squares_in_place(s, r):
    s *= s
    return s[:r].sum() / s.sum()


def scales_in_place(x, W, A, B, alpha):
    B *= alpha / len(A)
    return x @ W.T + x @ A.T @ B.T


def merges_in_place(W, A, B, scaling):
    B *= scaling
    return W + B @ A


@pytest.mark.parametrize(
    ("name", "answer"),
    [("energy", squares_in_place), ("lora_forward", scales_in_place), ("merged_weight", merges_in_place)],
)
def test_what_a_function_does_to_its_arguments_does_not_move_the_right_answer(name: str, answer):
    assert check(name, (answer,)).passed is True


def test_a_function_that_raises_an_error_of_the_labs_is_a_wrong_one():
    assert "it stops with BadValue: no" in check("detour_cost", (fails,)).words


def fails(*given: object) -> None:
    raise BadValue("no")
