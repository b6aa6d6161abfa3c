"""A step's memory for every batch, length and rank, exactly, from a few traces of a shallow model.

Between two operations the live bytes are a polynomial in batch b and tokens t,

    live = c0 + c1 b + c2 t + c3 bt + c4 bt^2 + c5 t^2

whose coefficients are linear in the number of layers and in the rank. The order of operations does not depend on b, t
or the rank, and one more period of layers inserts one stretch of operations into each phase. So six points (b, t), at
two depths and two ranks, give every coefficient, and the peak is the maximum over moments. Nothing is modeled by hand.

This holds within a regime: batch 1 skips a few operations, and so do rows shorter than a sliding window. A fit is
accepted only if one more trace, at another batch, length and rank and two periods deeper, agrees at every moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

PERIODS = 4  # of layers in the shallowest trace: the first and last differ, and two alike are left in between
RANKS = (2, 4, 3)  # two to fit, one held out
STEP = "the optimizer's step"  # the phase after "forward" and "backward"
Point = tuple[int, int, int]  # batch, tokens, rank
Label = tuple[str, str]  # category, where


class NoFit(Exception):  # not an error: the caller traces the case itself
    """Why a case cannot be interpolated."""


@dataclass(frozen=True)
class Regime:
    """Where one fit holds: batch 1 or more rows, lengths from `low` to `high` (0: no end), any rank or the method's."""

    one_row: bool
    low: int
    high: int
    ranked: bool = False

    def points(self) -> list[Point]:
        """What to trace, the held-out point last. Kernels for padded rows round lengths up to 32."""
        step = next((s for s in (32, 16, 8) if not self.high or -(-self.low // s) * s + 3 * s <= self.high), 0)
        if not step:
            raise NoFit(f"lengths from {self.low} to {self.high} leave no room for four traces")
        several = ((2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (4, 2), (5, 3))
        steps = tuple((1, more) for more in range(4)) if self.one_row else several
        t = -(-self.low // step) * step
        *found, held = [(batch, t + more * step) for batch, more in steps]
        ranks = RANKS if self.ranked else (0, 0)
        return [(*point, rank) for rank in dict.fromkeys(ranks[:-1]) for point in found] + [(*held, ranks[-1])]

    def vector(self, point: Point) -> np.ndarray:
        """The monomials that this regime tells apart, those times the rank after those without."""
        b, t, rank = (float(n) for n in point)
        basis = np.array([1, t, t * t] if self.one_row else [1, b, t, b * t, b * t * t, t * t])
        return np.concatenate([basis, rank * basis]) if self.ranked else basis


@dataclass(frozen=True)
class Depth:
    """How a model's layers repeat: `layers` of them, the first `irregular`, then periods of `period`."""

    layers: int
    irregular: int
    period: int

    @property
    def shallow(self) -> list[int]:
        """The depths to trace: two, a period apart, that end as the model does; a model's own where it is shallow."""
        n = self.irregular + PERIODS * self.period
        n += (self.layers - self.irregular) % self.period
        return [n, n + self.period] if self.layers > n + self.period else [self.layers]


class Run(NamedTuple):
    """Traces of one model at several points.

    phases    by phase the operations, module paths and live bytes (points, moments, labels)
    widths    bytes per number of each tensor that trains;  numbers  (points, tensors)
    flops     (points,)
    """

    labels: list[Label]
    phases: dict[str, tuple[list[str], list[str], np.ndarray]]
    widths: list[int]
    numbers: np.ndarray
    flops: np.ndarray


@dataclass
class Fit:
    """A step of one model, method and setup as polynomials: vectors of coefficients for `Regime.vector`.

    moments        (phase, path of the module)
    coefficients   (moments, labels, monomials): live bytes without what the optimizer adds
    trained        tensors that train: [numbers at rank 0, more for each rank, bytes a number, how many are like it]
    flops          (monomials,)
    """

    regime: Regime
    labels: list[Label]
    moments: list[tuple[str, str]]
    coefficients: np.ndarray
    trained: list[list[int]]
    flops: list[float]

    def formula(self, row: np.ndarray, rank: int) -> str:
        """A polynomial in words: "4,194,304 · B·S"."""
        names = ("", "S", "S²") if self.regime.one_row else ("", "B", "S", "B·S", "B·S²", "S²")
        values = row[: len(names)] + (rank * row[len(names) :] if self.regime.ranked else 0)
        said = (f"{n:,.0f} · {name}".rstrip(" ·") for n, name in zip(values, names, strict=True) if n)
        return " + ".join(said).replace("+ -", "- ")

    def pruned(self) -> Fit:
        """Without the moments that another of their phase is never below, at any batch, length and rank."""
        kept: list[int] = []
        totals = self.coefficients.sum(axis=1)  # over labels
        at = totals @ self.regime.vector((4, 4096, 64))
        for i in np.argsort(-at, kind="stable").tolist():
            rivals = [k for k in kept if self.moments[k][0] == self.moments[i][0]]
            if not (totals[rivals] >= totals[i]).all(axis=1).any():
                kept.append(i)
        kept.sort()
        return replace(self, moments=[self.moments[i] for i in kept], coefficients=self.coefficients[kept])

    def to_json(self) -> dict[str, Any]:
        """Plain values; a moment's coefficients as [label, monomial, value] wherever they are not 0."""
        return {
            "labels": self.labels,
            "moments": [
                [*moment, [[int(x), int(k), plain(row[x, k])] for x, k in np.argwhere(row)]]
                for moment, row in zip(self.moments, self.coefficients, strict=True)
            ],
            "trained": self.trained,
            "flops": [plain(value) for value in self.flops],
        }

    @staticmethod
    def from_json(found: Mapping[str, Any], regime: Regime) -> Fit:
        """The inverse of `to_json`."""
        coefficients = np.zeros((len(found["moments"]), len(found["labels"]), len(found["flops"])))
        for i, (*_, row) in enumerate(found["moments"]):
            for label, monomial, value in row:
                coefficients[i, label, monomial] = value
        labels = [(category, where) for category, where in found["labels"]]
        moments = [(phase, path) for phase, path, _ in found["moments"]]
        return Fit(regime, labels, moments, coefficients, found["trained"], found["flops"])


def plain(value: float) -> float:
    """A number as short as JSON can write it."""
    return int(value) if value == int(value) else round(float(value), 3)


def fit(record: Callable[[int, list[Point]], Run], regime: Regime, depth: Depth, every_layer: bool = False) -> Fit:
    """Trace, interpolate, and check against a held-out trace.

    record        (layers, points) -> Run
    every_layer   with the moments of all layers; without, those of layers that never hold the peak are left out
    Raises: NoFit where the order of operations depends on b, t or the rank, or the held-out trace disagrees.
    """
    *points, held = regime.points()
    shallow = depth.shallow
    deepest = shallow[-1] + 2 * depth.period if len(shallow) > 1 else shallow[-1]
    runs, check = [record(n, points) for n in shallow], record(deepest, [held])
    labels = sorted({label for run in (*runs, check) for label in run.labels})
    curves = {phase: [_curve(run, phase, labels, regime, points) for run in runs] for phase in check.phases}

    for phase, (ops, _, live) in check.phases.items():
        found = _deep(curves[phase], depth, deepest, spread=True).values @ regime.vector(held)
        real = _spread(live[0], check.labels, labels)
        if found.shape != real.shape:
            raise NoFit(f"in {phase} a deeper model takes {len(ops)} operations, not {len(found)}")
        if (off := np.abs(found - real).max()) > 0.5:
            raise NoFit(f"in {phase} the held-out trace is {off:,.0f} bytes off")

    deep = {phase: _deep(both, depth, depth.layers, every_layer) for phase, both in curves.items()}
    inverse = np.linalg.inv([regime.vector(point) for point in points])
    more = (depth.layers - shallow[0]) / depth.period
    flops, *deeper = (inverse @ run.flops for run in runs)
    return Fit(
        regime,
        labels,
        [(phase, path) for phase, curve in deep.items() for path in curve.paths],
        np.concatenate([curve.values for curve in deep.values()]),
        _trained(runs, points, more),
        list(np.round(flops + sum((one - flops) * more for one in deeper), 3)),
    )


def _trained(runs: Sequence[Run], points: Sequence[Point], more: float) -> list[list[int]]:
    """Tensors that train in the first run's order; the last of a kind stands for those of `more` periods of layers."""
    ranks = points[-1][2] - points[0][2] or 1
    kinds: list[list[tuple[int, int, int]]] = []
    for run in runs:
        low, high = run.numbers[0], run.numbers[-1]
        slopes = (high - low) // ranks
        kinds.append(list(zip((low - slopes * points[0][2]).tolist(), slopes.tolist(), run.widths, strict=True)))
    first, last = kinds[0], kinds[-1]
    counts = {kind: round((last.count(kind) - first.count(kind)) * more) for kind in first}
    return [[*kind, 1 + (counts[kind] if kind not in first[i + 1 :] else 0)] for i, kind in enumerate(first)]


class _Curve(NamedTuple):
    """One phase as polynomials: coefficients (moments, labels, monomials)."""

    ops: list[Any]  # the operation and what it changes, label by label, at the first point
    paths: list[str]
    values: np.ndarray


def _spread(live: np.ndarray, own: Sequence[Label], labels: Sequence[Label]) -> np.ndarray:
    """The columns of `own` labels in the order of all of them."""
    found = np.zeros((*live.shape[:-1], len(labels)))
    found[..., [labels.index(label) for label in own]] = live
    return found


def _curve(run: Run, phase: str, labels: Sequence[Label], regime: Regime, points: Sequence[Point]) -> _Curve:
    """The polynomials through a phase's points."""
    ops, paths, live = run.phases[phase]
    values, basis = _spread(live, run.labels, labels), np.array([regime.vector(point) for point in points])
    coefficients = np.moveaxis(np.tensordot(np.linalg.inv(basis), values, axes=1), 0, -1)
    coefficients = np.round(coefficients * 8) / 8
    if np.abs(np.moveaxis(coefficients @ basis.T, -1, 0) - values).max() > 0.5:
        raise NoFit(f"in {phase} the live bytes are no polynomial in batch and length")
    changes = np.diff(values[0], axis=0, prepend=values[0, :1]).tolist()
    return _Curve([(op, *change) for op, change in zip(ops, changes, strict=True)], paths, coefficients)


def _deep(curves: Sequence[_Curve], depth: Depth, layers: int, spread: bool = False) -> _Curve:
    """The curve at a depth, from those at two depths a period apart.

    An inserted period lies between its neighbors, layer by layer, so it never holds the peak. `spread` inserts it.
    """
    if len(curves) == 1:
        return curves[0]
    a, b = curves
    stretch = len(b.ops) - len(a.ops)
    same = next((i for i, (x, y) in enumerate(zip(a.ops, b.ops, strict=False)) if x != y), len(a.ops))
    start = same - stretch  # of the last stretch that both have
    run = next((i for i in range(start) if b.ops[same - 1 - i] != b.ops[start - 1 - i]), start)
    cut = same - (run + stretch) // 2  # as far from either end as can be
    if stretch < 0 or run < stretch or a.ops[cut:] != b.ops[cut + stretch :]:
        raise NoFit("the order of operations does not repeat layer by layer")
    periods = (layers - depth.shallow[0]) // depth.period
    later = [*b.paths[:cut], *b.paths[cut + stretch :]]  # where these differ, a layer counts from the model's end
    paths = [x if x == y else _later(x, periods * depth.period) for x, y in zip(a.paths, later, strict=True)]
    values = a.values + (np.concatenate([b.values[:cut], b.values[cut + stretch :]]) - a.values) * periods
    if spread and stretch:
        before, after = values[cut - stretch : cut], values[cut : cut + stretch]
        middle = [before + (after - before) * i / (periods + 1) for i in range(1, periods + 1)]
        values = np.concatenate([values[:cut], *middle, values[cut:]])
        ends = list(zip(paths[cut - stretch : cut], paths[cut : cut + stretch], strict=True))
        inserted = [_between(*both, i / (periods + 1)) for i in range(1, periods + 1) for both in ends]
        paths = [*paths[:cut], *inserted, *paths[cut:]]
    return _Curve(a.ops, paths, values)


NUMBER = re.compile(r"\.(\d+)(?=\.|$)")  # of a layer, in a module's path


def _later(path: str, more: int) -> str:
    return NUMBER.sub(lambda found: f".{int(found[1]) + more}", path, count=1)


def _between(before: str, after: str, share: float) -> str:
    """The path of a module that lies between the same one of two layers."""
    first, last = NUMBER.search(before), NUMBER.search(after)
    return _later(before, round((int(last[1]) - int(first[1])) * share)) if first and last else before
