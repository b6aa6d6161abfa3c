"""The rank of a matrix: drag, and see what is left of a picture or a weight when only r singular values stay.

The factors go to the browser once; `rank_panel.js` multiplies them there, so dragging waits for no kernel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as T

from lora_lab.accounting.params import break_even_rank
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments import low_rank
from lora_lab.widgets.matrices import SOURCES, checked, matrix_of
from lora_lab.widgets.panel import with_picture
from lora_lab.widgets.rank_picture import rank_picture

YOURS = "your matrix"


class RankPanel(anywidget.AnyWidget):
    """A matrix, its singular values, and the best matrix of rank r beside it, redrawn while one drags.

    source  one of SOURCES by name ("picture", "weight", "update", "noise"), or a matrix of your own
    rank    where the slider starts
    Raises: NotFound for a name that is none; BadValue for what is no matrix, is too large, or has no such rank.
    """

    _esm = Path(__file__).with_name("rank_panel.js")

    choices = T.List(T.List(T.Unicode())).tag(sync=True)  # [name, label] pairs of the menu
    source = T.Unicode().tag(sync=True)
    rank = T.Int(8).tag(sync=True)
    shape = T.List(T.Int()).tag(sync=True)  # (m, n)
    matrix = T.Bytes().tag(sync=True)  # float32, row by row
    left = T.Bytes().tag(sync=True)  # (k, m): row i is sqrt(s_i) u_i
    right = T.Bytes().tag(sync=True)  # (k, n): row i is sqrt(s_i) v_i
    values = T.List(T.Float()).tag(sync=True)  # the singular values
    baseline = T.List(T.Float()).tag(sync=True)  # those of the same numbers, shuffled
    limit = T.Float(1.0).tag(sync=True)  # the entry that is drawn in full colour
    grey = T.Bool(True).tag(sync=True)

    def __init__(self, source: str | np.ndarray = "picture", rank: int = 8) -> None:
        super().__init__()
        if isinstance(source, str):
            self.choices = [[name, label] for name, label in SOURCES.items()]
            self._show(source, matrix_of(source))
        else:
            self.choices = [[YOURS, YOURS]]
            self._show(YOURS, checked(source))
        self.rank = rank
        self.observe(self._chosen, "source")

    # ---- what is shown

    def kept(self) -> float:
        """The share of the energy that the present rank keeps."""
        return low_rank.energy_kept(np.array(self.values), self.rank)

    def approximation(self) -> np.ndarray:
        """The matrix that the browser shows: the best one of the present rank, shape (m, n)."""
        return low_rank.truncated(*self._factors, self.rank)

    def describe(self) -> str:
        """The panel in plain words: what a screen reader hears, and what a saved notebook says."""
        s, (m, n), r = np.array(self.values), self.shape, self.rank
        holds, full = r * (m + n), m * n
        noise = low_rank.energy_kept(np.array(self.baseline), r)
        return (
            f"The rank of a matrix: {dict(self.choices)[self.source]}, {m} x {n}. Rank {r} of {len(s)} keeps "
            f"{self.kept():.1%} of the energy (the same numbers shuffled: {noise:.1%}), relative error "
            f"{low_rank.error_left(s, r):.3f}. It stores {holds:,} numbers in place of {full:,} ({holds / full:.1%}); "
            f"break-even at rank {break_even_rank(n, m):.0f}."
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        cut = self.approximation()
        png = rank_picture(self._matrix, cut, self.values, self.baseline, self.rank, self.limit, self.grey)
        return with_picture(super()._repr_mimebundle_(**kwargs), png, self.describe())

    # ---- what changes

    @T.validate("rank")
    def _rank_fits(self, proposal: Any) -> int:
        most = min(self.shape, default=0)
        if most and not 1 <= proposal["value"] <= most:
            raise BadValue(f"rank {proposal['value']} cannot be cut from this matrix: take 1 to {most}")
        return int(proposal["value"])

    @T.validate("source")
    def _is_there(self, proposal: Any) -> str:
        names = [name for name, _ in self.choices]
        if proposal["value"] not in names:
            raise NotFound(f"this panel has no matrix '{proposal['value']}'; it has {', '.join(names)}")
        return str(proposal["value"])

    def _chosen(self, change: Any) -> None:
        self._show(change["new"], matrix_of(change["new"]))

    def _show(self, name: str, matrix: np.ndarray) -> None:
        """Send another matrix and its factors, in one message."""
        u, s, vt = self._factors = low_rank.decompose(matrix)
        self._matrix, roots = np.asarray(matrix), np.sqrt(s)
        with self.hold_sync():
            self.source, self.shape, self.grey = name, list(matrix.shape), name == "picture"
            self.rank = min(self.rank, len(s))
            self.matrix, self.left = _bytes(matrix), _bytes((u * roots).T)
            self.right = _bytes(vt * roots[:, None])
            self.values, self.baseline = s.tolist(), low_rank.spectrum(low_rank.shuffled(matrix)).tolist()
            self.limit = float(np.quantile(np.abs(matrix), 1 if self.grey else 0.99)) or 1.0


def _bytes(matrix: np.ndarray) -> bytes:
    """Row by row, as a browser's Float32Array reads it."""
    return np.ascontiguousarray(matrix, dtype="<f4").tobytes()
