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
from functools import cached_property, partial
from typing import Any

import numpy as np

PERIODS = 4  # of layers in the shallowest trace: the first and last differ, and two alike are left in between
RANKS = (2, 4, 3)  # two to fit, one held out
STEP = "the optimizer's step"  # the phase after "forward" and "backward"


class NoFit(Exception):  # not an error: the caller traces the case itself
    """Why a case cannot be interpolated."""


@dataclass(frozen=True)
class Regime:
    """Where one fit holds: batch 1 or more rows, and lengths from `low` to `high` (0: no end)."""

    one_row: bool
    low: int
    high: int

    def points(self) -> list[tuple[int, int]]:
        """(batch, tokens) to trace, the held-out one last. Kernels for padded rows round lengths up to 32."""
        step = next((s for s in (32, 16, 8) if not self.high or -(-self.low // s) * s + 3 * s <= self.high), 0)
        if not step:
            raise NoFit(f"lengths from {self.low} to {self.high} leave no room for four traces")
        t = -(-self.low // step) * step
        if self.one_row:
            return [(1, t), (1, t + step), (1, t + 2 * step), (1, t + 3 * step)]
        return [(2, t), (3, t), (2, t + step), (3, t + step), (2, t + 2 * step), (4, t + 2 * step), (5, t + 3 * step)]

    def basis(self, batch: int, seq: int) -> list[float]:
        """The monomials that this regime tells apart."""
        b, t = float(batch), float(seq)
        return [1, t, t * t] if self.one_row else [1, b, t, b * t, b * t * t, t * t]


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


@dataclass
class Run:
    """What traces of one model say: by phase the operations, module paths and live bytes (points, moments, labels).

    states   bytes of each optimizer;  trained  (name, numbers) of each tensor that trains
    flops    of each phase, by point
    """

    labels: list[tuple[str, str]]
    phases: dict[str, tuple[list[str], list[str], np.ndarray]]
    states: dict[str, int]
    trained: list[tuple[str, int]]
    flops: dict[str, list[int]]


@dataclass
class Curve:
    """One phase as polynomials: coefficients (moments, labels, monomials), and where periods of layers go in.

    cut, stretch   a period is inserted before moment `cut`, and is as long as `stretch` moments
    """

    ops: list[str]
    paths: list[str]
    values: np.ndarray
    steps: list[Any]  # the operation and what it changes, label by label, at the first point
    cut: int = 0
    stretch: int = 0
    inserted: int = 0

    def full(self) -> np.ndarray:
        """Every moment of the full depth: an inserted period lies between its neighbors, layer by layer."""
        before, after = self.values[self.cut - self.stretch : self.cut], self.values[self.cut : self.cut + self.stretch]
        share = np.arange(1, self.inserted + 1) / (self.inserted + 1)
        middle = [before + (after - before) * s for s in share] if self.stretch else []
        return np.concatenate([self.values[: self.cut], *middle, self.values[self.cut :]])


@dataclass
class Fit:
    """A step of one model, method and set-up as polynomials, for each optimizer.

    moments       (phase, path of the module)
    coefficients  (moments, labels, monomials), those of the rank after those without
    states        bytes of each optimizer: [at rank 0, more for each rank]
    trained       tensors that train: [numbers at rank 0, more for each rank, how many]
    flops         of forward and backward, by monomial
    """

    regime: Regime
    ranked: bool
    labels: list[tuple[str, str]]
    moments: list[tuple[str, str]]
    coefficients: np.ndarray
    states: dict[str, list[float]]
    trained: list[list[float]]
    flops: dict[str, list[float]]

    def vector(self, batch: int, seq: int, rank: int) -> np.ndarray:
        """The monomials at a point."""
        basis = np.array(self.regime.basis(batch, seq))
        return np.concatenate([basis, rank * basis]) if self.ranked else basis

    @cached_property
    def totals(self) -> np.ndarray:
        """(moments, monomials): the sum over labels."""
        return self.coefficients.sum(axis=1)

    @cached_property
    def by_phase(self) -> dict[str, list[int]]:
        """The moments of each phase."""
        found: dict[str, list[int]] = {}
        for i, (phase, _) in enumerate(self.moments):
            found.setdefault(phase, []).append(i)
        return found

    def pruned(self) -> Fit:
        """Without the moments that another of their phase is never below, at any batch, length and rank."""
        keep: list[int] = []
        for own in self.by_phase.values():
            kept: list[int] = []
            for i in sorted(own, key=lambda i: -float(self.totals[i] @ self.vector(4, 4096, 64))):
                if not any((self.totals[k] >= self.totals[i]).all() for k in kept):
                    kept.append(i)
            keep += sorted(kept)
        return replace(self, moments=[self.moments[i] for i in keep], coefficients=self.coefficients[keep])

    def to_json(self) -> dict[str, Any]:
        """Plain values; a moment's coefficients as [label, monomial, value] wherever they are not 0."""
        sparse = [[[int(x), int(k), plain(row[x, k])] for x, k in np.argwhere(row)] for row in self.coefficients]
        return {
            "regime": [self.regime.one_row, self.regime.low, self.regime.high],
            "ranked": self.ranked,
            "labels": [list(label) for label in self.labels],
            "moments": [[*moment, row] for moment, row in zip(self.moments, sparse, strict=True)],
            "states": {name: [plain(v) for v in values] for name, values in self.states.items()},
            "trained": [[plain(v) for v in kind] for kind in self.trained],
            "flops": {phase: [plain(v) for v in values] for phase, values in self.flops.items()},
        }

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Fit:
        """The inverse of `to_json`."""
        regime, ranked = Regime(*found["regime"]), found["ranked"]
        monomials = (1 + ranked) * (3 if regime.one_row else 6)
        coefficients = np.zeros((len(found["moments"]), len(found["labels"]), monomials))
        for i, (*_, row) in enumerate(found["moments"]):
            for label, monomial, value in row:
                coefficients[i, label, monomial] = value
        labels = [(category, where) for category, where in found["labels"]]
        moments = [(phase, path) for phase, path, _ in found["moments"]]
        return Fit(regime, ranked, labels, moments, coefficients, found["states"], found["trained"], found["flops"])


def plain(value: float) -> float:
    """A number as short as JSON can write it."""
    return int(value) if value == int(value) else float(value)


def fit(run: Callable[..., Run], regime: Regime, depth: Depth, *, ranked: bool) -> Fit:
    """Trace, interpolate, and check against a held-out trace.

    run   (points, layers, rank) -> Run; the rank is None unless `ranked`
    Raises: NoFit where the order of operations depends on b, t or the rank, or the held-out trace disagrees.
    """
    *points, held = regime.points()
    shallow = depth.shallow
    ranks: tuple[int | None, ...] = RANKS[:2] if ranked else (None,)
    runs = {(r, n): run(points, n, r) for r in ranks for n in shallow}
    deepest = shallow[-1] + 2 * depth.period if len(shallow) > 1 else shallow[-1]
    check = run([held], deepest, RANKS[2] if ranked else None)
    labels = sorted({label for one in (*runs.values(), check) for label in one.labels})
    basis = np.array([regime.basis(*point) for point in points])

    def linear(of: Callable[[Run], float], layers: int) -> list[float]:
        """A number that is linear in layers and rank: [at rank 0, more for each rank]."""
        found = []
        for r in ranks:
            first, *deeper = [of(runs[r, n]) for n in shallow]
            found.append(first + sum((one - first) * (layers - shallow[0]) / depth.period for one in deeper))
        if len(found) == 1:
            return found
        slope = (found[1] - found[0]) / (RANKS[1] - RANKS[0])
        return [found[0] - RANKS[0] * slope, slope]

    def made(layers: int) -> tuple[Fit, dict[str, Curve]]:
        own = {}
        for phase in check.phases:
            by_rank = [_deep([_curve(runs[r, n], phase, labels, basis) for n in shallow], depth, layers) for r in ranks]
            own[phase] = _ranked(by_rank)
        states = {name: linear(partial(_state, name), layers) for name in check.states}
        kinds = dict.fromkeys(_kind(name) for name, _ in runs[ranks[0], shallow[-1]].trained)
        sizes = [[*linear(partial(_size, kind), shallow[0]), 0][:2] for kind in kinds]
        trained = [[*size, linear(partial(_count, kind), layers)[0]] for size, kind in zip(sizes, kinds, strict=True)]
        flops = {}
        for phase in check.flops:
            monomials = [linear(partial(_flops, phase, row), layers) for row in np.linalg.inv(basis)]
            flops[phase] = [round(one[k], 3) for k in range(len(monomials[0])) for one in monomials]
        moments = [(phase, path) for phase, curve in own.items() for path in curve.paths]
        values = np.concatenate([curve.values for curve in own.values()])
        return Fit(regime, ranked, labels, moments, values, states, trained, flops), own

    expected, own = made(deepest)
    vector = expected.vector(*held, RANKS[2])
    for phase, (ops, _, live) in check.phases.items():
        found = own[phase].full() @ vector
        real = _spread(live[0], check.labels, labels)
        if found.shape != real.shape:
            raise NoFit(f"in {phase} a deeper model takes {len(ops)} operations, not {len(found)}")
        off = np.abs(found - real).max()
        if off > 0.5:
            raise NoFit(f"in {phase} the held-out trace is {off:,.0f} bytes off")
    return made(depth.layers)[0]


def _kind(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def _size(kind: str, run: Run) -> float:
    return next(numbers for name, numbers in run.trained if _kind(name) == kind)


def _count(kind: str, run: Run) -> float:
    return sum(_kind(name) == kind for name, _ in run.trained)


def _state(optimizer: str, run: Run) -> float:
    return run.states[optimizer]


def _flops(phase: str, row: np.ndarray, run: Run) -> float:
    return float(row @ run.flops[phase])


def _spread(live: np.ndarray, own: Sequence[Any], labels: Sequence[Any]) -> np.ndarray:
    """The columns of `own` labels in the order of all of them."""
    found = np.zeros((*live.shape[:-1], len(labels)))
    found[..., [labels.index(label) for label in own]] = live
    return found


def _curve(run: Run, phase: str, labels: Sequence[Any], basis: np.ndarray) -> Curve:
    """The polynomials through a phase's points; a phase traced at one point alone is constant."""
    ops, paths, live = run.phases[phase]
    values = _spread(live, run.labels, labels)
    coefficients = np.zeros((*values.shape[1:], basis.shape[1]))
    if len(values) == 1:
        coefficients[..., 0] = values[0]
    else:
        coefficients = np.moveaxis(np.tensordot(np.linalg.inv(basis), values, axes=1), 0, -1)
        coefficients = np.round(coefficients * 8) / 8
        if np.abs(np.moveaxis(coefficients @ basis.T, -1, 0) - values).max() > 0.5:
            raise NoFit(f"in {phase} the live bytes are no polynomial in batch and length")
    changes = np.diff(values[0], axis=0, prepend=values[0, :1])
    return Curve(ops, paths, coefficients, [(op, *change) for op, change in zip(ops, changes.tolist(), strict=True)])


def _deep(curves: Sequence[Curve], depth: Depth, layers: int) -> Curve:
    """The curve at a depth, from those at two depths a period apart."""
    if len(curves) == 1:
        return curves[0]
    a, b = curves
    stretch, cut = len(b.ops) - len(a.ops), len(a.ops)
    repeats = a.ops == b.ops
    if stretch > 0:
        same = next((i for i, (x, y) in enumerate(zip(a.steps, b.steps, strict=False)) if x != y), len(a.ops))
        before = same - stretch
        run = next((i for i in range(before) if b.steps[same - 1 - i] != b.steps[before - 1 - i]), before)
        cut = same - (run + stretch) // 2  # as far from either end as can be
        repeats = run >= stretch and a.steps[cut:] == b.steps[cut + stretch :]
    if not repeats:
        raise NoFit("the order of operations does not repeat layer by layer")
    periods = (layers - depth.shallow[0]) // depth.period
    late = np.concatenate([b.values[:cut], b.values[cut + stretch :]])
    values = a.values + (late - a.values) * periods
    more = periods * depth.period
    others = [*b.paths[:cut], *b.paths[cut + stretch :]]  # where these differ, a layer counts from the model's end
    paths = [x if x == y else _later(x, more) for x, y in zip(a.paths, others, strict=True)]
    return Curve(a.ops, paths, values, a.steps, cut, stretch, periods)


def _later(path: str, more: int) -> str:
    return re.sub(r"\.(\d+)(?=\.|$)", lambda found: f".{int(found[1]) + more}", path, count=1)


def _ranked(curves: Sequence[Curve]) -> Curve:
    """Coefficients at rank 0, and after them those of the rank."""
    if len(curves) == 1:
        return curves[0]
    a, b = curves
    if a.ops != b.ops:
        raise NoFit("the order of operations depends on the rank")
    slope = (b.values - a.values) / (RANKS[1] - RANKS[0])
    return replace(a, values=np.concatenate([a.values - RANKS[0] * slope, slope], axis=-1))
