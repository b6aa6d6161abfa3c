"""Checks of the exercises: they say what is wrong and why, never only that it is; unsolved they say "not yet"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from lora_lab.errors import LabError


@dataclass(frozen=True)
class Verdict:
    """What a check has to say; `passed` is None while the exercise is unsolved."""

    passed: bool | None
    words: str

    def __repr__(self) -> str:
        return f"{ {True: 'right', False: 'not right', None: 'not yet'}[self.passed] }: {self.words}"


def check_trainable_parameters(answer: int | None) -> Verdict:
    """Lesson 00: parameters of LoRA of rank 8 on q and v of minilm's 6 layers, each 384 x 384."""
    right = 6 * 2 * 8 * (384 + 384)
    if _unsolved(answer):
        return _not_yet("layers x targets x rank x (inputs + outputs)")
    hints = {
        right // 2: "that is A alone, or B alone: LoRA trains both",
        right // 6: "that is one layer: the model has six",
        right // 12: "that is one matrix: there are two in each of the six layers",
        right + 770: "that counts the head too; the adapter alone is asked for",
        6 * 2 * 384 * 384: "that is W itself: LoRA leaves it frozen and trains A and B",
    }
    return _number(answer, right, hints, f"6 layers x 2 matrices x 8 x (384 + 384) = {right:,}")


_CONTRADICTIONS = {
    (2, 3): "if A is d x r and B is r x d, then B A is r x r, not d x d",
    (3, 6): "B A and A B are different matrices; with the shapes of (2) it is A B that is d x d",
    (4, 5): '"usually all four" and "by default only q and v" cannot both describe the habit',
    (6, 7): "merging writes into W, so W has changed; to swap in another adapter it must be unmerged first",
}
CONTRADICTIONS = {frozenset(pair): why for pair, why in _CONTRADICTIONS.items()}


def check_contradictions(pairs: Iterable[tuple[int, int]] | None) -> Verdict:
    """Lesson 00: the pairs of sentences in the text on LoRA that cannot both hold."""
    pairs = list(pairs or ()) if not _unsolved(pairs) else []
    if any(isinstance(pair, int) for pair in pairs):
        return Verdict(None, "write pairs in braces: {(1, 2), (3, 4)}")
    if not (given := {frozenset(pair) for pair in pairs}):
        return _not_yet("four pairs of sentences do not go together; write them as {(1, 2), ...}")
    wrong, missing = given - CONTRADICTIONS.keys(), CONTRADICTIONS.keys() - given
    found = "; ".join(why for pair, why in CONTRADICTIONS.items() if pair in given)
    if wrong:
        names = ", ".join(" and ".join(map(str, sorted(pair))) for pair in wrong)
        return Verdict(False, f"{names} do go together: read them once more" + (f". Found: {found}" if found else ""))
    if missing:
        return Verdict(False, f"found {len(given)} of {len(CONTRADICTIONS)}: {found}")
    return Verdict(True, found)


def check_lora_forward(forward: Callable[..., Any]) -> Verdict:
    """Lesson 02: y = W x + (alpha / r) B A x for rows of x, written as a function of (x, W, A, B, alpha)."""
    import torch

    torch.manual_seed(0)
    x, w = torch.randn(5, 12), torch.randn(7, 12)
    a, b, alpha = torch.randn(3, 12), torch.randn(7, 3), 7.0
    said = _try(forward, x, w, a, b, alpha)
    if isinstance(said, Verdict):
        return said
    if tuple(getattr(said, "shape", ())) != (5, 7):
        return Verdict(
            False, f"the result has shape {tuple(getattr(said, 'shape', ()))}; 5 rows into 7 outputs give (5, 7)"
        )
    base, update = x @ w.T, x @ a.T @ b.T
    near = {
        "the update is not multiplied by alpha / r": base + update,
        "the update is multiplied by alpha, but not divided by the rank (A has r rows)": base + alpha * update,
        "the update is multiplied by r / alpha: the other way round": base + 3 / alpha * update,
        "only the frozen part is there: add (alpha / r) B A x": base,
        "only the update is there: add it to W x": alpha / 3 * update,
    }
    said = torch.as_tensor(said).float()
    if torch.allclose(said, base + alpha / 3 * update, atol=1e-5):
        return Verdict(
            True, "W x plus alpha / r times B (A x); in rows, x @ A.T @ B.T: first down to r numbers, then up"
        )
    return Verdict(
        False, next((why for why, y in near.items() if torch.allclose(said, y, atol=1e-5)), "the values differ")
    )


def check_dead_start(answer: str | None) -> Verdict:
    """Lesson 02: what happens when A and B both start at zero."""
    if _unsolved(answer):
        return _not_yet("which of the letters is it?")
    replies = {
        "a": "it would be slow if the gradients were small; look at them: A's has B as a factor, B's has A",
        "b": "each gradient has the *other* matrix as a factor; with both zero, both gradients are zero, for ever",
        "c": "the update starts at zero either way; the question is whether it can ever leave zero",
    }
    letter = str(answer).strip().lower()
    if letter not in replies:
        return Verdict(False, f"answer with one of {', '.join(replies)}")
    return Verdict(letter == "b", replies[letter])


def check_wrong_fan_in(factor: Callable[[int, int], float]) -> Verdict:
    """Lesson 02: how many times too large A is when it is scaled by its rank r, not by its d inputs."""
    cases = [(384, 8), (1024, 4), (4096, 64)]
    values = [_try(factor, d, r) for d, r in cases]
    first = values[0]
    if isinstance(first, Verdict):
        return first
    if _close(values, [math.sqrt(d / r) for d, r in cases]):
        return Verdict(True, f"sqrt(d / r): for d = 384 and r = 8 that is {math.sqrt(48):.1f}")
    if _close(values, [d / r for d, r in cases]):
        return Verdict(False, "that is the ratio of the fan-ins; the bound goes with 1 over their square root")
    if _close(values, [math.sqrt(r / d) for d, r in cases]):
        return Verdict(False, "the other way round: dividing by the smaller number makes A larger")
    return Verdict(False, "compare the bounds: 1/sqrt(d), as it should be, and 1/sqrt(r), as it came out")


def check_detour_cost(cost: Callable[[int, int, int], int]) -> Verdict:
    """Lesson 02: multiplications that the detour through A and B costs a token."""
    cases = [(384, 384, 8), (768, 3072, 4), (4096, 1024, 16)]
    values = [_try(cost, *case) for case in cases]
    if isinstance(values[0], Verdict):
        return values[0]
    if _close(values, [r * (i + o) for i, o, r in cases]):
        return Verdict(True, "r d_in to go down and r d_out to come up: the same as the number of parameters")
    if _close(values, [i * o for i, o, r in cases]):
        return Verdict(False, "that is W's own cost; the detour goes through r numbers")
    if _close(values, [r * i * o for i, o, r in cases]):
        return Verdict(False, "that is forming B A first; applied one after the other it is far less")
    return Verdict(False, "count: A has r x d_in numbers, each used once a token; B likewise")


def check_standard_error(error: Callable[[float, int], float]) -> Verdict:
    """Lesson 04: the standard error of an accuracy p measured on n rows."""
    cases = [(0.82, 2000), (0.5, 100), (0.9, 872)]
    values = [_try(error, p, n) for p, n in cases]
    if isinstance(values[0], Verdict):
        return values[0]
    if _close(values, [math.sqrt(p * (1 - p) / n) for p, n in cases]):
        return Verdict(
            True,
            f"at 82 % on 2,000 rows {math.sqrt(0.82 * 0.18 / 2000) * 100:.2f} points, as luck often brings",
        )
    if _close(values, [p * (1 - p) / n for p, n in cases]):
        return Verdict(False, "that is the variance: take its square root")
    if _close(values, [math.sqrt(p * (1 - p)) for p, n in cases]):
        return Verdict(False, "that is the spread of one row, right or wrong; the mean of n rows spreads less")
    return Verdict(False, "each row is right with probability p: variance p (1 - p), and the mean of n has 1/n of it")


def check_rows_needed(rows: float | None) -> Verdict:
    """Lesson 04: test rows that tell two adapters 1 point apart, when they disagree on 10 % of the rows."""
    right = (1.96 + 0.84) ** 2 * 0.10 / 0.01**2
    if _unsolved(rows):
        return _not_yet("n = (1.96 + 0.84)^2 x share of rows they disagree on / difference^2")
    hints = {
        (1.96 + 0.84) ** 2 * 10 / 1**2: "in shares, not in per cent: 0.10 and 0.01",
        (1.96 + 0.84) ** 2 * 0.10 / 0.02**2: "that is for two points: half the difference needs four times the rows",
        (1.96 + 0.84) * 0.10 / 0.01**2: "the 1.96 + 0.84 is squared",
    }
    return _number(rows, right, hints, f"about {right:,.0f}: our 2,000 tell two points apart, no less", within=0.02)


def check_largest_change(name: str | None, shares: dict[str, float]) -> Verdict:
    """Lesson 04: the layer whose weight the adapter changed most, relative to the weight's own size."""
    if _unsolved(name):
        return _not_yet("take the name with the largest value from the table above")
    if name not in shares:
        return Verdict(False, f"no layer is called {name!r}; the names are the keys of the table")
    top = max(shares, key=shares.__getitem__)
    if name == top:
        return Verdict(True, f"{top}: |dW| is {shares[top]:.1%} of |W|; the other layers change less")
    return Verdict(False, f"{name} changed by {shares[name]:.1%}; there is a larger one")


def _number(answer: Any, right: float, hints: Mapping[Any, str], why: str, within: float = 1e-6) -> Verdict:
    if not isinstance(answer, Real):
        return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
    answer = float(answer)
    if math.isclose(answer, right, rel_tol=within):
        return Verdict(True, why)
    return Verdict(
        False, next((h for value, h in hints.items() if math.isclose(answer, value, rel_tol=0.02)), "not that")
    )


def _try(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a student's function returns, or a verdict: unsolved when it returns None, wrong when it raises."""
    try:
        value = function(*arguments)
    except LabError:
        raise
    except Exception as error:
        return Verdict(False, f"it stops with {type(error).__name__}: {error}")
    if _unsolved(value):
        return _not_yet("the function returns nothing yet")
    return value.item() if getattr(value, "ndim", None) == 0 else value  # one number of numpy's or torch's


def _close(values: list[Any], right: list[float]) -> bool:
    return all(
        isinstance(v, Real) and math.isclose(float(v), r, rel_tol=1e-3) for v, r in zip(values, right, strict=True)
    )


def _unsolved(answer: object) -> bool:
    return answer is None or answer is ...


def _not_yet(hint: str) -> Verdict:
    return Verdict(None, hint)
