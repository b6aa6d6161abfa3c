"""What may be said of two methods whose runs answered the same test rows: better, worse, equivalent or undecided.

    d[s, r] = a[s, r] - b[s, r] = mean + seed_s + row_r + noise_sr        seeds s = 1..S and rows r = 1..N, both drawn

    V_S = var_s(mean_r d) / S                                             S - 1 degrees of freedom
    V_R = var_r(mean_s d) / N - noise / (S N) + 1 / N^2                   N - 1; the noise is in V_S already
    mean d +- q sqrt(V_S + V_R),  q = (V_S t[S-1] + V_R t[N-1]) / (V_S + V_R)        Cochran 1964

Why not simpler: a bootstrap of 3 seeds calls equals different whenever all 3 agree in sign (25 % if seeds vary most),
and t with Satterthwaite's degrees of freedom still does in 7.5 %. Cochran's weighted t stays under 5 % throughout.

1 / N^2 is the variance that one more disagreeing row would add. If the true difference is the margin, at least that
share of rows disagrees; if fewer do, equivalence is tested with a variance larger in proportion (a score test). So 100
rows without any disagreement are not yet equivalent within 1.5 points; 240 are. Equivalence is two one-sided tests at
5 %: the 90 % interval is inside the margin. One run each: exact McNemar (binomial, of the rows that disagree), and V_R
alone for the interval.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import scipy  # type: ignore[import-untyped]  # imports special, stats and optimize when they are used; they take long

from lora_lab.errors import BadValue

Answers = Any  # an array of answers, or anything that has one as `scores`, as `Runs` do
Name = TypeVar("Name")
Outcome = Literal["better", "worse", "equivalent", "undecided"]
LEVEL = 0.05  # of the two-sided test of a difference, and of each of the two one-sided tests of equivalence
POWER = 0.8  # what "would tell" means
TINY, UNKNOWN = 1e-100, 1e12  # for a 0 that would divide; for the variance of rows where there is only one
MANY_SEEDS, MANY_ROWS = 1_000, 1_000_000  # beyond these a verdict is out of reach
MIDDLES = (np.arange(20) + 0.5) / 20  # of twenty equally likely sizes of an estimated variance


@dataclass(frozen=True)
class Verdict:
    """The outcome of a against b; `str(verdict)` is one sentence.

    outcome                 "equivalent" if both that and "better" (or "worse") hold; the sentence says who is ahead
    difference              mean of a - mean of b, as a share (0.015 is 1.5 points) or in the unit of the scores
    low, high               its 90 % interval, for equivalence; low95, high95: its 95 % interval, for a difference
    more_seeds, more_rows   if undecided, how many more seeds (same rows) or rows (same seeds) would decide 80 % of
                            comparisons with the difference and spreads estimated now; None if no number would
    """

    outcome: Outcome
    difference: float
    low: float
    high: float
    low95: float
    high95: float
    margin: float
    p_difference: float
    p_equivalence: float
    seeds: int  # of a
    seeds_b: int
    rows: int
    more_seeds: int | None
    more_rows: int | None
    correctness: bool  # right or wrong, written in points; else scores
    pairs: int = 1  # in Holm's correction

    def __str__(self) -> str:
        apart = self._say(abs(self.difference), " points")
        interval = f"95 % interval {self._say(self.low95)} to {self._say(self.high95)}"
        said = f": {apart} apart" if self.outcome == "undecided" else f" by {apart}"
        if self.outcome == "equivalent":
            ahead = f", though {'ahead' if self.difference > 0 else 'behind'} by {apart}"
            said = f" within {self._say(self.margin, ' points')}{ahead if self.p_difference < LEVEL else ''}"
            interval = f"90 % interval {self._say(self.low)} to {self._say(self.high)}"
        return f"{self.outcome}{said} ({interval}; {self._size()}){self._more()}"

    def to_json(self) -> dict[str, Any]:
        """The outcome as `kind`, the sentence, and the numbers it rests on: shares where `points`, else scores."""
        ends = {90: (self.low, self.high), 95: (self.low95, self.high95)}
        return {
            **{"kind": self.outcome, "words": str(self)},
            **{"difference": self.difference, "margin": self.margin, "points": self.correctness},
            "intervals": [{"level": level, "low": low, "high": high} for level, (low, high) in ends.items()],
        }

    def _say(self, value: float, unit: str = "") -> str:
        return f"{100 * value:z.1f}{unit}" if self.correctness else f"{value:z.3g}"

    def _size(self) -> str:
        seeds = f"{self.seeds}" if self.seeds == self.seeds_b else f"{self.seeds} and {self.seeds_b}"
        size = f"{seeds} seed{'s' * (seeds != '1')} x {self.rows:,} row{'s' * (self.rows != 1)}"
        alone = "; of these two runs only, not of other seeds" if seeds == "1" else ""
        return f"{size}{alone}{f'; Holm over {self.pairs} pairs' if self.pairs > 1 else ''}"

    def _more(self) -> str:
        if self.outcome != "undecided":
            return ""
        found = {"seed": self.more_seeds, "row": self.more_rows}
        ways = [f"{float(f'{n:.2g}'):,.0f} more {of}{'s' * (n != 1)}" for of, n in found.items() if n]
        if not ways:
            return "; it takes far more rows and seeds to tell"
        return f"; if that is the true gap, about {' or '.join(ways)} would show it"


def verdict(a: Answers, b: Answers, margin: float = 0.015) -> Verdict:
    """The verdict on a against b from the same test rows; fix the margin of equivalence beforehand.

    Shapes: a (seeds, rows) or (rows,), bool or 0/1 for right and wrong answers, else float scores, higher is better;
    b likewise, with the same rows in the same order; or the `Runs` of a sweep. With as many seeds as a, seed i of both
    is a pair (same data order); else the seeds of each vary on their own, and a single one as much as the other's.
    Raises: BadValue for other rows in b than in a, empty arrays, NaN, integers besides 0 and 1, a margin of 0.
    Source: textbook methods named for Cochran 1964, McNemar 1947 and Schuirmann 1987, which were not read here;
    Bouthillier et al. 2021 on seeds.
    """
    _warn_of_dtypes(a, b)
    pair = Pair(_runs(a, "a"), _runs(b, "b"), margin)
    return pair.judged(pair.p_difference(), pair.p_equivalence())


def verdicts(named: Mapping[str, Answers], against: str, margin: float = 0.015) -> dict[str, Verdict]:
    """The verdict of every other method on `against`, by name, with Holm's correction over all of them.

    Differences are one family, equivalences another. Intervals stay those of each pair alone; more_seeds and more_rows
    count with 5 % / pairs, Holm's strictest. Raises: BadValue as `verdict`, and for an unknown `against`.
    """
    if against not in named or len(named) < 2:
        raise BadValue(f"{against!r} and one more must be among the methods; there are {', '.join(named) or 'none'}")
    return verdicts_of({name: (own, named[against]) for name, own in named.items() if name != against}, margin)


def verdicts_of(pairs: Mapping[Name, tuple[Answers, Answers]], margin: float = 0.015) -> dict[Name, Verdict]:
    """The verdict of the first of each pair on the second, with Holm's correction as in `verdicts`.

    For comparisons that make one statement together without a common opponent. Raises: BadValue as `verdict`.
    """
    made = []
    for name, (a, b) in pairs.items():
        _warn_of_dtypes(a, b)
        made.append(Pair(_runs(a, f"{name}"), _runs(b, f"the opponent of {name}"), margin))
    differ, equal = holm([one.p_difference() for one in made]), holm([one.p_equivalence() for one in made])
    judged = [one.judged(float(p), float(q), len(made)) for one, p, q in zip(made, differ, equal, strict=True)]
    return dict(zip(pairs, judged, strict=True))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values (n,) corrected for being n: the smallest times n, the next times n - 1, ..., none below one before it.

    Source: Holm 1979 (not read here). Equal to statsmodels' `multipletests`, which takes 0.2 s a call beside torch.
    """
    p, n = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(p)
    corrected = np.empty(n)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(n, 0, -1)).clip(max=1)
    return corrected


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of independent values, and its 95 % interval: mean +- t[n-1] s / sqrt(n); no interval of one value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None, None
    half = float(scipy.special.stdtrit(n - 1, 1 - LEVEL / 2) * np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def check_margin(margin: float, *, shares: bool) -> None:
    """Raises: BadValue for an impossible margin; of `shares` of right answers it is below 1."""
    if not 0 < margin < (1 if shares else math.inf):
        raise BadValue(f"margin {margin} is impossible; give a share above 0 and below 1, such as 0.015 for 1.5 points")


class Pair:
    """Two methods' scores before the verdict: their mean difference, and its variance by source."""

    def __init__(self, a: np.ndarray, b: np.ndarray, margin: float) -> None:
        self.seeds, self.rows, self.margin = (len(a), len(b)), a.shape[1], margin
        if self.rows != b.shape[1]:
            raise BadValue(f"{self.rows:,} rows against {b.shape[1]:,}; score both methods on the same test rows")
        self.correctness = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
        check_margin(margin, shares=self.correctness)
        by_row = a.mean(0) - b.mean(0)
        self.difference, size = float(by_row.mean()), np.abs(by_row)
        self.share = float(size.mean()) if self.correctness else math.inf  # of rows that differ
        self.unit = 1.0 if self.correctness else float(size.max() or np.ptp(a))  # the most that a row differs
        alone = self.correctness and self.seeds == (1, 1)
        self.one_right = (int((by_row > 0).sum()), int((by_row != 0).sum())) if alone else (0, 0)  # only a; only one
        groups = [] if self.rows == 1 or max(self.seeds) == 1 else [a - b] if len(a) == len(b) else [a, b]
        measured = [_mean_squares(x if len(x) > 1 else max(groups, key=len)) for x in groups]  # one run: as the others
        self.runs = np.array([len(x) for x in groups])  # (groups,): of the pairs of seeds, or of a and of b
        self.seed, self.noise, self.freedom = np.array(measured).reshape(-1, 3).T  # two variances, and seeds - 1
        self.row = max(by_row.var(ddof=1) - (self.noise / self.runs).sum(), 0.0) if self.rows > 1 else UNKNOWN

    def parts(self, rows: int, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The mean difference's variance by source (groups + 1,), from so many rows and more seeds; its freedom."""
        by_seed = (np.maximum(self.seed, 0) + self.noise / rows) / (self.runs + more)
        by_row = self.row / rows + (self.unit / rows) ** 2
        return np.append(by_seed, by_row), np.append(self.freedom + more, max(rows - 1, 1))

    def error(self) -> float:
        """sqrt(V_S + V_R). (In q, V_S is at least the noise's: two runs that are alike by luck keep their large t.)"""
        by_luck = (np.minimum(self.seed, 0) / self.runs).sum()
        return math.sqrt(max(self.parts(self.rows)[0].sum() + by_luck, TINY))

    def widening(self, rows: int) -> float:
        """The error's factor if the true difference is the margin, in case fewer rows than that were seen to differ."""
        return math.sqrt(max(1.0, (self.margin + 1 / rows) / (self.share + 1 / rows)))

    def p_difference(self) -> float:
        """How probably equals differ as much: exact McNemar's for one run each, else a t-test's."""
        if any(self.one_right):
            return float(scipy.stats.binomtest(*self.one_right).pvalue)
        return min(1.0, 2 * _tail(abs(self.difference) / self.error(), *self.parts(self.rows)))

    def p_equivalence(self) -> float:
        """How probably two that are the margin apart lie as close: the larger of two one-sided tests."""
        error = self.error() * self.widening(self.rows)
        return _tail((self.margin - abs(self.difference)) / error, *self.parts(self.rows))

    def interval(self, tail: float, widening: float = 1.0) -> tuple[float, float]:
        """Both ends; right and wrong answers differ by 1 at most."""
        half, most_apart = float(_quantile(tail, *self.parts(self.rows))), 1.0 if self.correctness else math.inf
        half *= self.error() * widening
        return max(self.difference - half, -most_apart), min(self.difference + half, most_apart)

    def decided(self, rows: int, more: int, level: float) -> float:
        """How probably so many rows and more seeds decide, if the difference and the spreads are as estimated."""
        variance, freedom = self.parts(rows, more)
        drawn = variance[:, None] * 2 * scipy.special.gammaincinv(freedom[:, None] / 2, MIDDLES) / freedom[:, None]
        errors, either = np.sqrt(drawn.sum(0)), np.array([[self.difference], [-self.difference]])
        wide = _quantile(level / 2, drawn, freedom) * errors
        narrow = np.maximum(self.margin - _quantile(level, drawn, freedom) * errors * self.widening(rows), 0)
        between = scipy.special.ndtr(np.array([wide - either, narrow - either]) / math.sqrt(variance.sum()))
        return 1 - float(np.maximum((between[0] - between[1]).sum(0), 0).mean())

    def judged(self, p_difference: float, p_equivalence: float, pairs: int = 1) -> Verdict:
        """The verdict that these p-values lead to, corrected for so many pairs."""
        outcome: Outcome = "better" if self.difference > 0 else "worse"
        outcome = "equivalent" if p_equivalence < LEVEL else outcome if p_difference < LEVEL else "undecided"
        low, high = self.interval(LEVEL / 2)
        if self.p_difference() >= LEVEL:  # McNemar's, which decides: the interval agrees with it about 0
            low, high = min(low, 0.0), max(high, 0.0)
        level, open_ = LEVEL / pairs, outcome == "undecided" and self.rows > 1
        seeds = _fewest(lambda n: self.decided(self.rows, n, level), MANY_SEEDS) if open_ and self.runs.size else None
        rows = _fewest(lambda n: self.decided(self.rows + n, 0, level), MANY_ROWS) if open_ else None
        ends, p = (*self.interval(LEVEL, self.widening(self.rows)), low, high), (p_difference, p_equivalence)
        said = (outcome, self.difference, *ends, self.margin, *p, *self.seeds, self.rows)
        return Verdict(*said, seeds, rows, self.correctness, pairs)


def _mean_squares(runs: np.ndarray) -> tuple[float, float, int]:
    """Of runs (seeds, rows): variance of the seeds' effects, negative by chance, and of the noise; freedom of seeds."""
    means, freedom = runs.mean(1, keepdims=True), len(runs) - 1
    rest = runs - means - (runs.mean(0) - runs.mean())
    noise = float((rest**2).sum()) / (freedom * (runs.shape[1] - 1))
    return float(means.var(ddof=1)) - noise / runs.shape[1], noise, freedom


def _quantile(tail: float, variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Cochran's q: quantiles of t, weighted by the variances (parts,) or (parts, cases) that they belong to."""
    return -scipy.special.stdtrit(freedom, tail) @ variance / np.maximum(variance.sum(0), TINY)


def _tail(ratio: float, variance: np.ndarray, freedom: np.ndarray) -> float:
    """The one-sided p of a difference over its error, TINY at least: the tail whose quantile that is."""
    size = min(abs(ratio), float(_quantile(TINY, variance, freedom)))
    ends = np.log((TINY, 0.5))
    p = math.exp(scipy.optimize.brentq(lambda x: float(_quantile(math.exp(x), variance, freedom)) - size, *ends))
    return p if ratio > 0 else 1 - p


def _fewest(decided: Callable[[int], float], limit: int) -> int | None:
    """The fewest more that decide with POWER, None if `limit` does not."""
    return 1 + bisect_left(range(1, limit), POWER, key=decided) if decided(limit) >= POWER else None


def _warn_of_dtypes(*sides: Answers) -> None:
    """LabWarning if runs that asked for the same were trained in different dtypes: it may be these that differ."""
    runs = [run for side in sides for run in getattr(side, "runs", ())]
    if runs:
        from lora_lab.experiments.results import unlike, warn_of

        warn_of(unlike(runs))


def _runs(values: Answers, name: str) -> np.ndarray:
    """The runs as floats (seeds, rows). Raises: BadValue for what is neither answers nor scores."""
    try:
        runs = np.atleast_2d(np.asarray(getattr(values, "scores", values)))
    except BadValue:  # which is a ValueError too: runs say for themselves why they have no scores
        raise
    except ValueError:
        raise BadValue(f"{name} has runs of unlike length; score every seed on the same test rows") from None
    if runs.ndim != 2 or not runs.size:
        raise BadValue(f"{name} has the shape {runs.shape}; give (seeds, rows), or (rows,) for one seed")
    if runs.dtype.kind not in "buif" or (runs.dtype.kind in "ui" and not np.isin(runs, (0, 1)).all()):
        raise BadValue(f"{name} holds {runs.dtype} values; give prediction == label, or scores as floats")
    if not np.isfinite(runs).all():
        raise BadValue(f"{name} holds NaN or infinity; leave those rows out of both methods, or score them")
    return runs.astype(float)
