"""Compare two methods on the same test rows: better, worse, equivalent or undecided.

    d[s, r] = a[s, r] - b[s, r] = mean + seed_s + row_r + noise_sr        seeds s = 1..S and rows r = 1..N, both random

    V_S = var_s(mean_r d) / S                                             S - 1 degrees of freedom
    V_R = var_r(mean_s d) / N - noise / (S N) + 1 / N^2                   N - 1; V_S already includes the noise
    mean d +- q sqrt(V_S + V_R),  q = (V_S t[S-1] + V_R t[N-1]) / (V_S + V_R)        Cochran 1964

Simpler methods fail. A bootstrap over 3 seeds finds a difference between equal methods whenever all 3 differences have
the same sign, which happens 25% of the time if the variation between seeds dominates. A t-test with Satterthwaite's
degrees of freedom still errs in 7.5% of cases, whereas Cochran's weighted t errs in fewer than 5%.

The term 1 / N^2 is the variance that one more disagreeing row would add. If the true difference equals the margin, say
1.5 points, the methods must disagree on at least 1.5% of the rows. If they disagree on fewer, equivalence is tested
with a proportionally larger variance (a score test). So 100 rows without disagreement do not show equivalence within
1.5 points, but 240 do. Equivalence uses two one-sided tests at 5%: it holds if the 90% interval is inside the margin.
With one run per method, McNemar's exact test (binomial, on the disagreements) is used, and the interval uses V_R only.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
import scipy  # type: ignore[import-untyped]  # loads its slow submodules on first use

from lora_lab.errors import BadValue, warn
from lora_lab.methods.base import is_number, plain

Answers = Any  # an array of answers, or an object with such an array as `scores`, like `Runs`
Name = TypeVar("Name")
LEVEL = 0.05  # significance level of the two-sided test for a difference, and of each one-sided equivalence test
MARGIN = 0.015  # equivalence margin: 1.5 points of accuracy, or 0.015 nats per token for language models
POWER = 0.8  # the probability of a decision with the extra data that a verdict suggests
TINY, UNKNOWN = 1e-100, 1e12  # stand-ins for a zero divisor, and for the variance of a single row
MANY_SEEDS, MANY_ROWS = 1_000, 1_000_000  # beyond these, a verdict is out of reach
OPEN = "far more rows and seeds would be needed to decide"
MIDDLES = (np.arange(20) + 0.5) / 20  # midpoints of twenty equally likely ranges of an estimated variance


@dataclass(frozen=True)
class Verdict:
    """The outcome of comparing `a` with `b`; `str(verdict)` states it in one sentence.

    difference              mean of `a` - mean of `b`, as a fraction (0.015 is 1.5 points) or in the unit of the scores
    low, high               its 90% interval, for equivalence; low95, high95: its 95% interval, for a difference
    more_seeds, more_rows   if undecided, how many more seeds (same rows) or rows (same seeds) are needed for a decision
                            with 80% power, given the estimated difference and spread; None if no number is enough
    """

    difference: float
    low: float
    high: float
    low95: float
    high95: float
    margin: float
    p_difference: float
    p_equivalence: float
    seeds: int  # seeds of `a`
    seeds_b: int
    rows: int
    more_seeds: int | None
    more_rows: int | None
    correctness: bool  # True: answers are right or wrong, differences in points; False: scores
    pairs: int = 1  # number of pairs in Holm's correction

    @property
    def word(self) -> str:
        """The outcome in full; see `word_of`."""
        return word_of(self.difference, self.p_difference, self.p_equivalence)

    @property
    def outcome(self) -> str:
        """The `word`, shortened to "equivalent" if `a` is better or worse, but within the margin."""
        return "equivalent" if self.p_equivalence < LEVEL else self.word

    def __str__(self) -> str:
        gap, margin = (self._format(value, " points") for value in (abs(self.difference), self.margin))
        detail = {"undecided": f": {gap} apart", "equivalent": f" within {margin}", "better": f" by {gap}",
                  "worse": f" by {gap}"}.get(self.word, f" of {margin}, by {gap}")  # fmt: skip
        level, low, high = (90, self.low, self.high) if self.outcome == "equivalent" else (95, self.low95, self.high95)
        interval = f"{level}% interval {self._format(low)} to {self._format(high)}"
        seeds = f"{self.seeds}" if self.seeds == self.seeds_b else f"{self.seeds} and {self.seeds_b}"
        size = f"{seeds} seed{'s' * (seeds != '1')} x {self.rows:,} row{'s' * (self.rows != 1)}"
        size += "; for these two runs only, not for other seeds" * (seeds == "1")
        size += f"; Holm over {self.pairs} pairs" * (self.pairs > 1)
        counts = {"seed": self.more_seeds, "row": self.more_rows}
        more = " or ".join(f"{float(f'{n:.2g}'):,.0f} more {unit}{'s' * (n != 1)}" for unit, n in counts.items() if n)
        advice = f"if that is the true gap, about {more} would show it" if more else OPEN
        return f"{self.word}{detail} ({interval}; {size}){f'; {advice}' * (self.outcome == 'undecided')}"

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as `kind`, the sentence as `words`, and the numbers (fractions if `points` is true)."""
        intervals = (90, self.low, self.high), (95, self.low95, self.high95)
        return {
            **{"kind": self.outcome, "words": str(self)},
            **{"difference": self.difference, "margin": self.margin, "points": self.correctness},
            "intervals": [dict(zip(("level", "low", "high"), interval, strict=True)) for interval in intervals],
        }

    def _format(self, value: float, unit: str = "") -> str:
        near_zero = 0 < abs(value) < 0.0005  # one more digit shows on which side of 0 an interval ends
        return f"{100 * value:z.{1 + near_zero}f}{unit}" if self.correctness else f"{value:z.3g}"


def word_of(difference: float, p_difference: float, p_equivalence: float) -> str:
    """Return "better", "worse", "equivalent", "undecided", or "better (or worse) but within the margin"."""
    side = "better" if difference > 0 else "worse"
    if p_equivalence < LEVEL:
        return f"{side} but within the margin" if p_difference < LEVEL else "equivalent"
    return side if p_difference < LEVEL else "undecided"


def verdict(a: Answers, b: Answers, margin: float = MARGIN) -> Verdict:
    """Compare `a` with `b` on the same test rows; return the verdict on `a`. Set the equivalence margin in advance.

    Shapes: `a` and `b` are (seeds, rows) or (rows,), with the same rows in the same order. The values are bool or 0/1
    for wrong or right answers, or else float scores (higher is better). `a` and `b` may also be `Runs`. With equal
    numbers of seeds, seed i of `a` is paired with seed i of `b` (same data order). Otherwise, seeds are assumed to vary
    independently, and a single seed is assumed to vary as much as the other side's seeds.
    Raises: BadValue for different numbers of rows, empty arrays, NaN, integers other than 0 and 1, or a margin of 0.
    Source: textbook methods named after Cochran (1964), McNemar (1947) and Schuirmann (1987), whose papers we did not
    read; on seeds, Bouthillier et al. (2021).
    """
    margin = plain(margin)
    return together([_pair(a, b, margin, "a", "b")], margin)[0]


def verdicts(named: Mapping[str, Answers], against: str, margin: float = MARGIN) -> dict[str, Verdict]:
    """Compare every other method with `against`; return {name: verdict}, with Holm's correction over all pairs.

    Tests for differences are corrected as one family, and equivalence tests as another. Intervals aren't corrected.
    `more_seeds` and `more_rows` assume the significance level 5% / (number of pairs). Raises: BadValue, see `verdict`.
    """
    if against not in named or len(named) < 2:
        raise BadValue(f"{against!r} and at least one other method are needed; given: {', '.join(named) or 'none'}")
    return verdicts_of({name: (a, named[against]) for name, a in named.items() if name != against}, margin)


def verdicts_of(pairs: Mapping[Name, tuple[Answers, Answers]], margin: float = MARGIN) -> dict[Name, Verdict]:
    """Compare the first of each pair with the second; return the verdicts, with Holm's correction as in `verdicts`.

    Use this for comparisons that support one statement but have no common opponent. Raises: BadValue, see `verdict`.
    """
    margin = plain(margin)
    checked = [_pair(a, b, margin, f"{name}", f"the opponent of {name}") for name, (a, b) in pairs.items()]
    return dict(zip(pairs, together(checked, margin), strict=True))


def together(pairs: Sequence["Pair"], margin: float) -> list[Verdict]:
    """Return the verdicts on several pairs, with Holm's correction."""
    differ, equal = holm([pair.p_difference for pair in pairs]), holm([pair.p_equivalence(margin) for pair in pairs])
    p_values = zip(pairs, differ.tolist(), equal.tolist(), strict=True)
    return [pair.judged(margin, p, q, len(pairs)) for pair, p, q in p_values]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Apply Holm's correction to n p-values, and keep their order (Holm 1979, which we have not read)."""
    # Multiply the smallest by n, the next by n - 1, ..., as in statsmodels, whose import takes 0.2 s with torch loaded.
    p, n = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(p)
    corrected = np.empty(n)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(n, 0, -1)).clip(max=1)
    return corrected


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean of independent values and its 95% interval, mean +- t[n-1] s / sqrt(n); None for one value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None, None
    half = float(scipy.special.stdtrit(n - 1, 1 - LEVEL / 2) * np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def check_margin(margin: float, *, shares: bool) -> None:
    """Check that a margin is above 0 and, if `shares` (answers are right or wrong), below 1. Raises: BadValue."""
    if not (is_number(margin) and 0 < margin < (1 if shares else math.inf)):
        raise BadValue(f"margin must be positive and, for accuracies, below 1 (0.015 is 1.5 points), not {margin!r}")


class Pair:
    """Two methods' scores (seeds, rows): their mean difference, and the variances in the formulas above.

    runs                   counts [pairs of seeds] or [seeds of `a`, seeds of `b`], or [] if their spread is unknown
    seed, noise, freedom   for each of `runs`, the variance of seeds (can be negative), the noise, and seeds - 1
    row                    the variance of rows
    unit, share            the largest difference on a row, and the fraction of rows that differ
    """

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self.seeds, self.rows = (len(a), len(b)), a.shape[1]
        if self.rows != b.shape[1]:
            raise BadValue(f"the methods have {self.rows:,} and {b.shape[1]:,} rows: score both on the same test rows")
        self.correctness = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
        self.by_row = a.mean(0) - b.mean(0)
        self.difference = float(self.by_row.mean())
        sizes = np.abs(self.by_row)
        self.unit = 1.0 if self.correctness else float(sizes.max() or np.ptp(a))
        self.share = float(sizes.mean()) if self.correctness else math.inf
        groups = [a - b] if len(a) == len(b) else [a, b]
        if self.rows == 1 or max(self.seeds) == 1:
            groups = []
        self.runs = np.array([len(group) for group in groups])
        # A single seed is assumed to vary as much as the other side's seeds.
        squares = [_mean_squares(group if len(group) > 1 else max(groups, key=len)) for group in groups]
        self.seed, self.noise, self.freedom = np.array(squares).reshape(-1, 3).T
        noise = (self.noise / self.runs).sum()
        self.row = max(self.by_row.var(ddof=1) - noise, 0.0) if self.rows > 1 else UNKNOWN
        # Cached for many margins, and for the copy of this pair that compares `b` with `a`.
        self.p_equivalence, self.more, self.widths = cache(self._p_equivalence), cache(self._more), cache(self._widths)

    def parts(self, rows: int, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """With `more` new seeds, return the mean difference's variances and degrees of freedom, both (runs + 1,)."""
        of_seeds = (np.maximum(self.seed, 0) + self.noise / rows) / (self.runs + more)
        of_rows = self.row / rows + (self.unit / rows) ** 2
        return np.append(of_seeds, of_rows), np.append(self.freedom + more, max(rows - 1, 1))

    @cached_property
    def error(self) -> float:
        """sqrt(V_S + V_R). (In q, V_S is at least the noise, so t[S-1] keeps its weight if seeds agree by chance.)"""
        return math.sqrt(max(self.parts(self.rows)[0].sum() + (np.minimum(self.seed, 0) / self.runs).sum(), TINY))

    def widening(self, rows: int, margin: float) -> float:
        """Return the factor by which the error grows if fewer rows differ than a difference of `margin` requires."""
        return math.sqrt(max(1.0, (margin + 1 / rows) / (self.share + 1 / rows)))

    @cached_property
    def p_difference(self) -> float:
        """The p-value for a difference, from McNemar's exact test for one run per method, otherwise from a t-test."""
        differing = np.count_nonzero(self.by_row)
        if self.correctness and self.seeds == (1, 1) and differing:
            return float(scipy.stats.binomtest(np.count_nonzero(self.by_row > 0), differing).pvalue)
        return min(1.0, 2 * _tail(abs(self.difference) / self.error, *self.parts(self.rows)))

    def _p_equivalence(self, margin: float) -> float:
        """Return the p-value for equivalence within `margin`: the larger of two one-sided tests."""
        error = self.error * self.widening(self.rows, margin)
        return _tail((margin - abs(self.difference)) / error, *self.parts(self.rows))

    def interval(self, tail: float, widening: float = 1.0) -> tuple[float, float]:
        """Return both ends of the interval, clipped to [-1, 1] for a difference between fractions."""
        half = float(_quantile(tail, *self.parts(self.rows))) * self.error * widening
        limit = 1.0 if self.correctness else math.inf
        return max(self.difference - half, -limit), min(self.difference + half, limit)

    def power(self, margin: float, rows: int, more: int, level: float) -> float:
        """Return the probability that a test on `rows` rows and `more` new seeds is decisive if the estimates are true.

        A new difference is normally distributed around the estimate. It is undecided if its interval includes 0 and is
        not inside the margin.
        """
        wide, narrow, error = self.widths(rows, more, level)
        inside = np.maximum(margin - narrow * self.widening(rows, margin), 0)
        undecided = np.zeros(len(MIDDLES))
        for center in (self.difference, -self.difference):  # above 0, and below 0
            undecided += scipy.special.ndtr((wide - center) / error) - scipy.special.ndtr((inside - center) / error)
        return 1 - float(np.maximum(undecided, 0).mean())

    def _widths(self, rows: int, more: int, level: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the half-widths of both intervals for twenty values of the estimated variances, and the true error."""
        variance, freedom = self.parts(rows, more)
        chi_squared = 2 * scipy.special.gammaincinv(freedom[:, None] / 2, MIDDLES)
        estimated = variance[:, None] * chi_squared / freedom[:, None]  # (sources, 20)
        wide, narrow = (_quantile(t, estimated, freedom) * np.sqrt(estimated.sum(0)) for t in (level / 2, level))
        return wide, narrow, math.sqrt(variance.sum())

    def _more(self, margin: float, level: float) -> tuple[int | None, int | None]:
        """Return how many new seeds, and how many new rows, would reach `POWER`; None if no number would."""
        rows = _fewest(lambda n: self.power(margin, self.rows + n, 0, level), MANY_ROWS)
        seeds = _fewest(lambda n: self.power(margin, self.rows, n, level), MANY_SEEDS) if self.runs.size else None
        return seeds, rows

    def judged(self, margin: float, p_difference: float, p_equivalence: float, pairs: int) -> Verdict:
        """Return the verdict that follows from the p-values after Holm's correction over this number of pairs."""
        word = word_of(self.difference, p_difference, p_equivalence)
        low, high = self.interval(LEVEL, self.widening(self.rows, margin))
        low95, high95 = self.interval(LEVEL / 2)
        if self.p_difference >= LEVEL:  # include 0, for consistency with McNemar's test
            low95, high95 = min(low95, 0.0), max(high95, 0.0)
        more = self.more(margin, LEVEL / pairs) if word == "undecided" and self.rows > 1 else (None, None)
        return Verdict(
            self.difference, low, high, low95, high95, margin, p_difference, p_equivalence, *self.seeds, self.rows,
            *more, self.correctness, pairs,
        )  # fmt: skip


def _mean_squares(runs: np.ndarray) -> tuple[float, float, int]:
    """For runs (seeds, rows), return the variances of seed effects (can be negative) and of noise, and seeds - 1."""
    means, freedom = runs.mean(1, keepdims=True), len(runs) - 1
    noise = float(((runs - means - (runs.mean(0) - runs.mean())) ** 2).sum()) / (freedom * (runs.shape[1] - 1))
    return float(means.var(ddof=1)) - noise / runs.shape[1], noise, freedom


def _quantile(tail: float, variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return Cochran's q: the quantiles of t, weighted by variances of shape (parts,) or (parts, cases)."""
    return -scipy.special.stdtrit(freedom, tail) @ variance / np.maximum(variance.sum(0), TINY)


def _tail(ratio: float, variance: np.ndarray, freedom: np.ndarray) -> float:
    """Return the one-sided p-value, at least `TINY`, for `ratio`, a difference divided by its error."""
    size = min(abs(ratio), float(_quantile(TINY, variance, freedom)))
    ends = np.log((TINY, 0.5))
    p = math.exp(scipy.optimize.brentq(lambda x: float(_quantile(math.exp(x), variance, freedom)) - size, *ends))
    return p if ratio > 0 else 1 - p


def _fewest(power: Callable[[int], float], limit: int) -> int | None:
    """Return the smallest number that reaches `POWER`; None if even `limit` is too small."""
    return 1 + bisect_left(range(1, limit), POWER, key=power) if power(limit) >= POWER else None


def _pair(a: Answers, b: Answers, margin: float, *names: str) -> Pair:
    """Check two methods' answers; warn if runs that ask for the same dtype were trained in different ones."""
    if runs := [run for side in (a, b) for run in getattr(side, "runs", ())]:
        from lora_lab.experiments.results import check_same_rows, unlike

        warn(unlike(runs))
        check_same_rows(runs)
    if hasattr(a, "finished") and hasattr(b, "finished"):
        first, second = ({run.recipe.seed for run in side.finished.runs} for side in (a, b))
        if (both := first & second) and first != second and len(first) == len(second):  # wrong seeds would be paired
            warn(f"seeds that only one side has are left out: {len(both)} of {len(first | second)} remain")
            a, b = (type(a)(tuple(run for run in side.runs if run.recipe.seed in both)) for side in (a, b))
    pair = Pair(_runs(a, names[0]), _runs(b, names[1]))
    check_margin(margin, shares=pair.correctness)
    return pair


def _runs(values: Answers, name: str) -> np.ndarray:
    """Return the runs as floats (seeds, rows). Raises: BadValue for anything but answers or scores."""
    values = getattr(values, "scores", values)  # raises if a run has no predictions
    if hasattr(values, "detach"):  # NumPy has no bfloat16
        values = (values.double() if values.is_floating_point() else values).detach().cpu()
    try:
        runs = np.atleast_2d(np.asarray(values))
    except ValueError:
        raise BadValue(f"{name} has runs of different lengths; score every seed on the same test rows") from None
    if runs.ndim != 2 or not runs.size:
        raise BadValue(f"{name} has the shape {runs.shape}; pass (seeds, rows), or (rows,) for one seed")
    if runs.dtype.kind not in "buif" or (runs.dtype.kind in "ui" and not np.isin(runs, (0, 1)).all()):
        raise BadValue(f"{name} holds {runs.dtype} values; pass prediction == label, or scores as floats")
    if not np.isfinite(runs).all():
        raise BadValue(f"{name} contains NaN or infinity; omit these rows from both methods, or give finite scores")
    runs = runs.astype(float)  # float16 cannot hold the limits
    if (largest := np.abs(runs).max()) and not 1e-30 < largest < 1e30:  # squares would underflow or overflow
        raise BadValue(f"{name} has scores up to {largest:.0e}; scale them to between 1e-30 and 1e30")
    return runs
