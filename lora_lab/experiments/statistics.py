"""What may be said of two methods whose runs answered the same test rows: better, worse, equivalent or undecided.

    d[s, r] = a[s, r] - b[s, r] = mean + seed_s + row_r + noise_sr        seeds s = 1..S and rows r = 1..N, both drawn

    V_S = var_s(mean_r d) / S                                             S - 1 degrees of freedom
    V_R = var_r(mean_s d) / N - noise / (S N) + 1 / N^2                   N - 1; the noise is in V_S already
    mean d +- q sqrt(V_S + V_R),  q = (V_S t[S-1] + V_R t[N-1]) / (V_S + V_R)        Cochran 1964

Why this: of equals, at 3 seeds, a bootstrap over seeds and rows calls up to 15 % different (it sees 2/3 of the seeds'
variance) and Satterthwaite's degrees of freedom up to 7.5 %; Cochran's weighted t stays below 5 %, whatever V_S is.
1 / N^2 is one row more that disagrees. A true difference of the margin takes as large a share of rows that disagree, so
where fewer do, equivalence is tested with a variance larger in proportion (a score test). Without these two, 100 rows
without a disagreement would pass as equivalent within 1.5 points; it takes 231.

One run each: exact McNemar (binomial, of the rows that disagree) and V_R alone, which speaks of these two runs only.
Equivalence: two one-sided tests at 5 %, which is the 90 % interval inside the margin. Many methods: Holm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # type: ignore[import-untyped]
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.stats import binomtest  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from lora_lab.accounting.fits import most
from lora_lab.errors import BadValue

Outcome = Literal["better", "worse", "equivalent", "undecided"]
LEVEL = 0.05  # of the two-sided test of a difference, and of each of the two one-sided tests of equivalence
POWER = 0.8  # what "would tell" means
TINY = 1e-100  # stands for 0 where 0 would divide
UNKNOWN = 1e12  # stands for the variance of rows where there is only one
MANY_SEEDS, MANY_ROWS = 1_000, 1_000_000  # beyond these a verdict is out of reach
MIDDLES = (np.arange(20) + 0.5) / 20  # of twenty equally likely sizes of an estimated variance


@dataclass(frozen=True)
class Verdict:
    """What may be said of a against b; `str(verdict)` says it in one sentence.

    outcome: where "equivalent" and "better" (or "worse") both hold it is "equivalent", and the sentence says who is
    ahead: a difference called negligible beforehand stays so when many rows make it visible.
    difference: mean of a - mean of b; low, high: its 90 % interval, of the tests of equivalence; low95, high95: its
    95 % interval. All are shares (0.015 is 1.5 points), or in the unit of the scores.
    more_seeds, more_rows: for "undecided", how many more seeds (each, on as many rows) or rows (by as many seeds) would
    tell: a comparison of that size, drawn anew, is decided in 80 % of cases if the difference and the spreads are what
    they are estimated to be now. None where no number does, the other source of noise alone being too large, and for
    what cannot be estimated: seeds from one run each, anything from one row.
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
    method: str
    correctness: bool  # right or wrong, said in points; else scores
    pairs: int = 1  # that Holm's correction took in

    def __str__(self) -> str:
        interval = f"95 % interval {self._say(self.low95)} to {self._say(self.high95)}"
        apart = self._say(abs(self.difference), " points")
        said = f"undecided: {apart} apart" if self.outcome == "undecided" else f"{self.outcome} by {apart}"
        if self.outcome == "equivalent":
            said = f"equivalent within {self._say(self.margin, ' points')}"
            if self.p_difference < LEVEL:
                said += f", though {'ahead' if self.difference > 0 else 'behind'} by {apart}"
            else:
                interval = f"90 % interval {self._say(self.low)} to {self._say(self.high)}"
        return f"{said} ({interval}; {self._size()}){self._limits()}"

    def _say(self, value: float, unit: str = "") -> str:
        return f"{100 * value:z.1f}{unit}" if self.correctness else f"{value:z.3g}"

    def _size(self) -> str:
        seeds = f"{self.seeds}" if self.seeds == self.seeds_b else f"{self.seeds} and {self.seeds_b}"
        size = f"{seeds} seed{'s' * (seeds != '1')} x {self.rows:,} row{'s' * (self.rows != 1)}"
        return f"{size}; Holm over {self.pairs} pairs" if self.pairs > 1 else size

    def _limits(self) -> str:
        ways = [f"{n:,} more {of}" for of, n in (("seeds", self.more_seeds), ("rows", self.more_rows)) if n]
        tell = f"; about {' or '.join(ways)} would tell" if ways else "; it takes far more rows and seeds to tell"
        alone = "; of these two runs only, not of other seeds" if self.seeds == self.seeds_b == 1 else ""
        return (tell if self.outcome == "undecided" else "") + alone


def verdict(a: ArrayLike, b: ArrayLike, margin: float = 0.015) -> Verdict:
    """What may be said of a against b, from the same test rows; the margin of equivalence is fixed beforehand.

    Shapes: a (seeds, rows) or (rows,), bool or 0/1 for right and wrong answers, else float scores, higher is better;
    b likewise, with the same rows in the same order. With as many seeds as a, seed i of both is a pair (same data
    order); else the seeds of each vary on their own, and a single one as much as the other's.
    Raises: BadValue for other rows in b than in a, empty arrays, NaN, integers besides 0 and 1, a margin of 0.
    Source: Cochran 1964 (Biometrics 20), McNemar 1947, Schuirmann 1987; Bouthillier et al. 2021 on seeds.
    """
    found = _compared(a, b, margin)
    return found.judged(found.p_difference(), found.p_equivalence())


def verdicts(named: Mapping[str, ArrayLike], against: str, margin: float = 0.015) -> dict[str, Verdict]:
    """The verdict of every other method on `against`, by name, with Holm's correction over all of them.

    Differences are one family, equivalences another. Intervals stay those of each pair alone; more_seeds and more_rows
    count with 5 % / pairs, which Holm never undercuts. Raises: BadValue as `verdict`, and for an unknown `against`.
    """
    if against not in named or len(named) < 2:
        raise BadValue(f"{against!r} and one more are to be among the methods; there are {', '.join(named) or 'none'}")
    found = {name: _compared(runs, named[against], margin) for name, runs in named.items() if name != against}
    different = holm([one.p_difference() for one in found.values()])
    equivalent = holm([one.p_equivalence() for one in found.values()])
    corrected = zip(found.items(), different, equivalent, strict=True)
    return {name: one.judged(p, q, len(found)) for (name, one), p, q in corrected}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values so corrected that those below 5 % hold together with 95 % (Holm 1979), in the order given."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


@dataclass(frozen=True)
class Compared:
    """A comparison before its verdict: the mean difference, and where the difference of one row in one run varies.

    share: mean size of a row's difference, infinite for scores; unit: the largest it can be. answers: for one run each,
    the rows that only a has right, and those that only one has right. Arrays (groups,) for the pairs of seeds, or for
    a's and b's, or empty for one run each: runs, how many; seed, variance of their effects; noise,
    of seed and row together; freedom, of the estimate. row: variance of the rows' effects.
    """

    difference: float
    margin: float
    seeds: tuple[int, int]
    rows: int
    share: float
    unit: float
    answers: tuple[int, int]
    runs: np.ndarray
    seed: np.ndarray
    noise: np.ndarray
    freedom: np.ndarray
    row: float

    def parts(self, rows: int, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The mean difference's variance by source (groups + 1,), from so many rows and more seeds; its freedom."""
        by_seed = (self.seed + self.noise / rows) / (self.runs + more)
        by_row = self.row / rows + (self.unit / rows) ** 2
        return np.append(by_seed, by_row), np.append(self.freedom + more, max(rows - 1, 1))

    def widening(self, rows: int) -> float:
        """The error's factor if the true difference is the margin, in case fewer rows than that were seen to differ."""
        return math.sqrt(max(1.0, (self.margin + 1 / rows) / (self.share + 1 / rows)))

    def p_difference(self) -> float:
        if any(self.answers):
            return float(binomtest(*self.answers).pvalue)
        return 2 * _tail(abs(self.difference), *self.parts(self.rows))

    def p_equivalence(self) -> float:
        return _tail((self.margin - abs(self.difference)) / self.widening(self.rows), *self.parts(self.rows))

    def interval(self, tail: float, widening: float = 1.0) -> tuple[float, float]:
        """Both ends; right and wrong answers differ by 1 at most."""
        half = float(_half(tail, *self.parts(self.rows))) * widening
        most_apart = 1.0 if self.share <= 1 else math.inf
        return max(self.difference - half, -most_apart), min(self.difference + half, most_apart)

    def interval95(self) -> tuple[float, float]:
        """An interval on one side of 0 is drawn out to it where the exact test, which decides, sees no difference."""
        low, high = self.interval(LEVEL / 2)
        return (min(low, 0.0), max(high, 0.0)) if self.p_difference() >= LEVEL else (low, high)

    def decided(self, rows: int, more: int, level: float) -> float:
        """How probably so many rows and more seeds decide, if the difference and the spreads are as estimated."""
        variance, freedom = self.parts(rows, more)
        drawn = variance[:, None] * 2 * special.gammaincinv(freedom[:, None] / 2, MIDDLES) / freedom[:, None]
        wide = _half(level / 2, drawn, freedom)
        narrow = np.maximum(self.margin - _half(level, drawn, freedom) * self.widening(rows), 0)
        either = np.array([[self.difference], [-self.difference]])
        between = special.ndtr(np.array([wide - either, narrow - either]) / math.sqrt(variance.sum()))
        return 1 - float(np.maximum((between[0] - between[1]).sum(0), 0).mean())

    def judged(self, p_difference: float, p_equivalence: float, pairs: int = 1) -> Verdict:
        """The verdict that these p-values lead to, corrected for so many pairs."""
        outcome: Outcome = "better" if self.difference > 0 else "worse"
        outcome = "equivalent" if p_equivalence < LEVEL else outcome if p_difference < LEVEL else "undecided"
        ends = (*self.interval(LEVEL, self.widening(self.rows)), *self.interval95())
        p, size, level = (p_difference, p_equivalence), (*self.seeds, self.rows), LEVEL / pairs
        seeds = rows = None
        if outcome == "undecided" and self.rows > 1:
            seeds = _fewest(lambda n: self.decided(self.rows, n, level), MANY_SEEDS) if self.runs.size else None
            rows = _fewest(lambda n: self.decided(self.rows + n, 0, level), MANY_ROWS)
        said = (outcome, self.difference, *ends, self.margin, *p, *size)
        return Verdict(*said, seeds, rows, self.method(), self.share <= 1, pairs)

    def method(self) -> str:
        test = f"{'paired' if len(set(self.seeds)) == 1 else 'unpaired'} seeds crossed with rows, Cochran's t"
        if self.seeds == (1, 1):
            test = f"one run each, {'exact McNemar' if self.share <= 1 else 'paired t over rows'}"
        return f"{test}; two one-sided tests"


def _compared(a: ArrayLike, b: ArrayLike, margin: float) -> Compared:
    """Mean squares of two crossed random effects; one run against several is taken to vary as those do."""
    first, second = _runs(a, "a"), _runs(b, "b")
    seeds, rows = (len(first), len(second)), first.shape[1]
    if rows != second.shape[1]:
        raise BadValue(f"a has {rows:,} rows and b {second.shape[1]:,}; score both on the same test rows")
    answers = all(np.isin(x, (0, 1)).all() for x in (first, second))
    if not 0 < margin < (1 if answers else math.inf):
        raise BadValue(f"margin {margin} is none; give a share above 0 and below 1, such as 0.015 for 1.5 points")
    by_row = first.mean(0) - second.mean(0)
    share, unit = (float(np.abs(by_row).mean()), 1.0) if answers else (math.inf, np.abs(by_row).max() or np.ptp(first))
    one_right = (int((by_row > 0).sum()), int((by_row != 0).sum())) if answers and seeds == (1, 1) else (0, 0)
    groups = [first - second] if seeds[0] == seeds[1] else [first, second]
    groups = groups if rows > 1 and max(seeds) > 1 else []
    measured = [_variances(x if len(x) > 1 else max(groups, key=len)) for x in groups]
    seed, noise, freedom = np.array(measured).reshape(-1, 3).T
    runs = np.array([len(x) for x in groups])
    row = max(by_row.var(ddof=1) - (noise / runs).sum(), 0.0) if rows > 1 else UNKNOWN
    sources = (runs, seed, noise, freedom, float(row))
    return Compared(float(by_row.mean()), margin, seeds, rows, share, float(unit), one_right, *sources)


def _variances(runs: np.ndarray) -> tuple[float, float, int]:
    """Of runs (seeds, rows): the variance of the seeds' effects, that of the noise, and the freedom of the former."""
    means, freedom = runs.mean(1, keepdims=True), len(runs) - 1
    rest = runs - means - (runs.mean(0) - runs.mean())
    noise = float((rest**2).sum()) / (freedom * (runs.shape[1] - 1))
    return max(float(means.var(ddof=1)) - noise / runs.shape[1], 0.0), noise, freedom


def _half(tail: float, variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """q sqrt(V), of variances (parts,) or (parts, cases)."""
    return -special.stdtrit(freedom, tail) @ variance / np.sqrt(np.maximum(variance.sum(0), TINY))


def _tail(distance: float, variance: np.ndarray, freedom: np.ndarray) -> float:
    """The one-sided p of a distance, TINY at least: the tail that lies beyond it."""
    size = min(abs(distance), float(_half(TINY, variance, freedom)))
    p = math.exp(brentq(lambda x: float(_half(math.exp(x), variance, freedom)) - size, *np.log((TINY, 0.5))))
    return p if distance > 0 else 1 - p


def _fewest(decided: Callable[[int], float], limit: int) -> int | None:
    """The fewest more that decide with POWER, None where `limit` does not."""
    if decided(limit) < POWER:
        return None
    return (most(lambda n: decided(n) < POWER, limit) or 0) + 1


def _runs(values: ArrayLike, name: str) -> np.ndarray:
    """The runs as floats (seeds, rows). Raises: BadValue for what is neither answers nor scores."""
    runs = np.atleast_2d(np.asarray(values))
    if runs.ndim != 2 or not runs.size:
        raise BadValue(f"{name} has the shape {np.shape(values)}; give (seeds, rows), or (rows,) for one seed")
    if runs.dtype.kind not in "buif" or (runs.dtype.kind in "ui" and not np.isin(runs, (0, 1)).all()):
        raise BadValue(
            f"{name} holds {runs.dtype} values; say of each row if it is right (bool or 0/1) or its float score"
        )
    if not np.isfinite(runs).all():
        raise BadValue(f"{name} holds NaN or infinity; leave those rows out of both methods, or score them")
    return runs.astype(float)
