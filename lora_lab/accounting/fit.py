"""Compute a step's exact memory for any batch size, length, and rank from a few traces of a shallow model.

Between two operations, the live bytes are a polynomial in batch b and tokens t,

    live = c0 + c1 b + c2 t + c3 bt + c4 bt^2 + c5 t^2

whose coefficients are linear in the number of layers and in the rank. Each additional period (a repeating group of
layers) adds one block of operations to each phase. So six points (b, t), each at two depths and two ranks, determine
all coefficients. The peak is the maximum over all moments.

A fit holds only where the same operations run; batches of 1 and rows shorter than a sliding window skip some of them.
A fit is accepted only if it agrees at every moment with a held-out trace of another batch size, length, rank and depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from lora_lab.accounting.models import LAYER, layer_of
from lora_lab.accounting.setup import PHASES, SHARDED, Label, Setup
from lora_lab.errors import LabError

if TYPE_CHECKING:
    from lora_lab.accounting.trace import Point, Trace

PERIODS = 4  # in the shallowest trace: the first and the last one differ, and the two between them are identical
RANKS = (2, 4, 3)  # two for the fit, one held out


class NoFit(Exception):  # not an error, because the caller then traces the case
    """The case cannot be interpolated. The message says why."""


@dataclass(frozen=True)
class Regime:
    """The cases that a fit covers: one row or several, lengths from `low` to `high` (0: no limit), one rank or all."""

    one_row: bool
    low: int
    high: int
    ranked: bool = False

    def points(self) -> tuple[list[Point], Point]:
        """Return the points to trace and a held-out point. Kernels round lengths of padded rows to multiples of 32."""
        step = next((s for s in (32, 16, 8) if not self.high or -(-self.low // s) * s + 3 * s <= self.high), 0)
        if not step:
            raise NoFit(f"lengths from {self.low} to {self.high} leave no room for four traces")
        rows = ((1, 0), (1, 1), (1, 2)) if self.one_row else ((2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (4, 2))
        start = -(-self.low // step) * step
        *ranks, last = RANKS if self.ranked else (0, 0)
        held_out = 1 if self.one_row else 5, start + 3 * step, last
        return [(b, start + n * step, rank) for rank in ranks for b, n in rows], held_out

    def vector(self, point: Point) -> np.ndarray:
        """Return the monomials of this regime. If it is `ranked`, append the same monomials times the rank."""
        b, t, rank = (float(n) for n in point)
        basis = np.array([1, t, t * t] if self.one_row else [1, b, t, b * t, b * t * t, t * t])
        return np.concatenate([basis, rank * basis]) if self.ranked else basis


@dataclass
class Fit:
    """The memory of one step as polynomials, with a coefficient for each entry of `Regime.vector`.

    moments        (phase, module path) pairs.
    coefficients   The live bytes, without what the optimizer adds, as an array (moments, labels, monomials).
    trained        [elements at rank 0, elements per rank, bytes per element, number of such tensors] lists.
    flops          The FLOPs, with one coefficient per monomial.
    """

    regime: Regime
    labels: list[Label]
    moments: list[tuple[str, str]]
    coefficients: np.ndarray
    trained: list[list[int]]
    flops: list[float]

    def formula(self, row: np.ndarray, rank: int) -> str:
        """Format a polynomial, as in "4,194,304 · B·S"."""
        names = ("", "S", "S²") if self.regime.one_row else ("", "B", "S", "B·S", "B·S²", "S²")
        values = row[: len(names)] + (rank * row[len(names) :] if self.regime.ranked else 0)
        terms = (f"{n:,.0f} · {name}".rstrip(" ·") for n, name in zip(values, names, strict=True) if n)
        return " + ".join(terms).replace("+ -", "- ")

    def pruned(self) -> Fit:
        """Drop a moment if another moment in its phase has at least as many bytes in every case that the fit covers."""
        kept: list[int] = []
        counted = [[category not in divided for category, _ in self.labels] for divided in ((), *SHARDED.values())]
        totals = np.hstack([self.coefficients[:, labels].sum(axis=1) for labels in counted])  # all, then unsharded
        for i in np.argsort(-totals[:, : len(self.flops)] @ self.regime.vector((4, 4096, 64)), kind="stable").tolist():
            rivals = [k for k in kept if self.moments[k][0] == self.moments[i][0]]
            if not (totals[rivals] >= totals[i]).all(axis=1).any():
                kept.append(i)
        kept.sort()
        return replace(self, moments=[self.moments[i] for i in kept], coefficients=self.coefficients[kept])

    def to_json(self) -> dict[str, Any]:
        """Convert the fit to plain values. Only the nonzero coefficients are kept."""
        series = np.moveaxis(self.coefficients, 0, -1).ravel()  # moments last: this compresses best
        at = np.flatnonzero(series)
        kept = {name: getattr(self, name) for name in ("labels", "moments", "trained", "flops")}
        return kept | {"gaps": np.diff(at, prepend=0).tolist(), "values": series[at].tolist()}

    @staticmethod
    def from_json(data: Mapping[str, Any], regime: Regime) -> Fit:
        """Create a fit from the values that `to_json` returned."""
        kept = {name: data[name] for name in ("labels", "moments", "trained", "flops")}
        series = np.zeros([len(kept[name]) for name in ("labels", "flops", "moments")])
        series.flat[np.cumsum(data["gaps"])] = data["values"]
        return Fit(regime, coefficients=np.moveaxis(series, -1, 0).copy(), **kept)


def fit(config: Mapping[str, Any], method: Any, setup: Setup, regime: Regime, every_layer: bool = False) -> Fit:
    """Trace a shallow model with a progress bar, interpolate, and check the fit against a held-out trace.

    every_layer   Also insert the moments of the layers between the traced layers. None of these moments is the peak.
    Raises: NoFit if the order of operations depends on b, t or the rank, if a shallow model cannot be traced, or if the
    held-out trace disagrees; BadValue if the model cannot be built.
    """
    from lora_lab.accounting import trace  # imports torch

    points, held_out = regime.points()
    if (depth := trace.depth_of(config, method)) is None:
        raise NoFit("the layers do not repeat, or they form two stacks")
    layers, irregular, period = depth
    # Trace two depths, one period apart, that end with the same layers as the model. Check a third depth.
    # If the model is already shallow, trace it unchanged.
    n = irregular + PERIODS * period + (layers - irregular) % period
    shallow = [n, n + period] if layers > n + period else [layers]
    deepest = shallow[0] + 3 * period if len(shallow) > 1 else layers
    try:
        models = [*((n, points) for n in shallow), (deepest, [held_out])]
        progress = tqdm(models, f"tracing {method.name}", leave=False, delay=1)
        *runs, (check,) = (trace.record(trace.at_depth(config, n), method, setup, at) for n, at in progress)
    except LabError as error:
        raise NoFit(str(error)) from error  # tracing the exact step may still work
    labels = sorted({label for trace in (*runs[0], *runs[-1], check) for m in trace.moments for label in m.bytes})
    basis = np.array([regime.vector(point) for point in points])
    check_periods, periods = ((n - shallow[0]) // period for n in (deepest, layers))  # periods to add
    moments, coefficients = list[tuple[str, str]](), []
    for phase in PHASES:
        curves = [_curve(run, phase, labels, basis) for run in runs]
        predicted = _deeper(curves, check_periods, every_layer=True)[1] @ regime.vector(held_out)
        live = _curve([check], phase, labels, np.ones((1, 1)))[1][..., 0]
        if predicted.shape != live.shape:
            raise NoFit(f"in {phase}, a deeper model takes {len(live)} operations, not {len(predicted)}")
        if (gap := np.abs(predicted - live).max(initial=0)) > 0.5:
            raise NoFit(f"in {phase}, the held-out trace is {gap:,.0f} bytes off")
        steps, values = _deeper(curves, periods, every_layer)
        indices = values[:, -1, 0]
        moments += [(phase, path.replace("*", f"{n:.0f}", 1)) for (_, path, *_), n in zip(steps, indices, strict=True)]
        coefficients.append(values[:, :-1])
    elements = sum(count * (n + slope * held_out[2]) for n, slope, _, count in _trained(runs, points, check_periods))
    if elements != sum(n for n, _ in check.trained):
        raise NoFit("the trainable tensors do not grow layer by layer")
    flops = [np.linalg.inv(basis) @ [trace.flops for trace in run] for run in runs]
    flops = np.round(flops[0] + (flops[-1] - flops[0]) * periods, 3)
    return Fit(regime, labels, moments, np.concatenate(coefficients), _trained(runs, points, periods), flops.tolist())


# A curve has the steps of a phase (operation, module with * for the layer index, changes at the first point) and the
# live bytes after each step: (steps, labels + 1, monomials). The last "label" is the layer index, extrapolated as well.
Curve = tuple[list[tuple[Any, ...]], np.ndarray]


def _curve(run: Sequence[Trace], phase: str, labels: Sequence[Label], basis: np.ndarray) -> Curve:
    """Fit polynomials to one model's traces, at points whose monomials are in `basis`. Raises: NoFit."""
    ops, tables = [], []
    for trace in run:
        moments = [moment for moment in trace.moments if moment.phase == phase]
        ops.append([(m.op, LAYER.sub("*", m.path, count=1)) for m in moments])
        tables.append([[*(m.bytes.get(label, 0) for label in labels), layer_of(m.path) or 0] for m in moments])
    if any(other != ops[0] for other in ops):
        raise NoFit(f"in {phase}, the order of operations depends on batch, length or rank")
    live = np.stack(tables, axis=-1)
    values = np.round(live @ np.linalg.inv(basis).T * 8) / 8
    if np.abs(values @ basis.T - live).max() > 0.5:
        raise NoFit(f"in {phase}, the live bytes are not a polynomial in batch and length")
    changes = np.diff(live[:, :-1, 0], axis=0, prepend=live[:1, :-1, 0]).tolist()
    return [(*op, *change) for op, change in zip(ops[0], changes, strict=True)], values


def _deeper(curves: Sequence[Curve], periods: int, every_layer: bool) -> Curve:
    """Extrapolate from two depths, which differ by one period of layers, to a model with `periods` more periods."""
    (shallow, values), (deep, deep_values) = curves[0], curves[-1]
    if periods == 0:
        return shallow, values
    size = len(deep) - len(shallow)  # steps per period
    head, tail = ([*map(eq, shallow[::way], deep[::way]), False].index(False) for way in (1, -1))  # equal at each end
    if size < 0 or head + tail - len(shallow) < 2 * size:
        raise NoFit("the order of operations does not repeat layer by layer")
    cut = (len(shallow) - tail + head) // 2  # between two identical layers, as far from both ends as possible
    same_steps = np.concatenate([deep_values[:cut], deep_values[cut + size :]])
    values = values + (same_steps - values) * periods
    if not every_layer:
        return shallow, values
    before, after = values[cut - size : cut], values[cut : cut + size]
    between = [before + (after - before) * i / (periods + 1) for i in range(1, periods + 1)]
    steps = shallow[:cut] + shallow[cut - size : cut] * periods + shallow[cut:]
    return steps, np.concatenate([values[:cut], *between, values[cut:]])


def _trained(runs: Sequence[Sequence[Trace]], points: Sequence[Point], periods: int) -> list[list[int]]:
    """Return the trainable tensors of a model with `periods` more periods of layers than the first run's model.

    The last tensor of each kind also represents the tensors of this kind in the added layers.
    """
    lowest, rise = points[0][2], points[-1][2] - points[0][2] or 1  # the lowest rank, and the highest minus the lowest
    kinds = []
    for first, *_, last in (runs[0], runs[-1]):
        kinds.append(list[tuple[int, int, int]]())
        for (numbers, width), (more, _) in zip(first.trained, last.trained, strict=True):
            slope = (more - numbers) // rise
            kinds[-1].append((numbers - slope * lowest, slope, width))
    shallow, deep = kinds
    added = {kind: periods * (deep.count(kind) - shallow.count(kind)) for kind in shallow}
    return [[*kind, 1 if kind in shallow[i:] else 1 + added[kind]] for i, kind in enumerate(shallow, 1)]
