"""A matrix as a sum of rank-one pieces, and the accuracy of a fine-tuned model when every update is cut to rank r.

The pieces are sent to the browser once per matrix; `js/rank_panel.js` adds them up there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets as T

from lora_lab.errors import BadValue, NotFound
from lora_lab.training.assets import problem_with
from lora_lab.widgets.base import Panel
from lora_lab.widgets.matrices import LARGEST, PIECES, SOURCES, packed, pieces_of, reference


class RankPanel(Panel, file="rank_panel.js"):
    """A matrix built from rank-one pieces: the sum of r pieces, the newest piece beside it, and the energy kept.

        RankPanel()                         the full fine-tuning update of a weight of MiniLM
        RankPanel("weight", rank=8)         another of SOURCES: "full", "update", "weight", "noise", "picture"
        RankPanel(W)                        your own matrix; or several, {"mine": W, "theirs": V}

    source  a name, a matrix of shape (m, n), or a dict of matrices by name
    rank    number of pieces added at first; by default 2, or 1 if the matrix has only one
    most    maximum number of pieces of your own matrices; a lower `most` or `corner` makes pages smaller
    corner  maximum number of rows and of columns of your own matrices that are drawn
    Raises: NotFound for an unknown name; BadValue for a rank that is too high, or an array that isn't a matrix or is
    too large.
    """

    data = T.Dict().tag(sync=True)  # {source: `matrices.packed`} for the matrices viewed so far
    cuts = T.Dict().tag(sync=True)  # written by docs/ranks.py
    choices = T.List(T.List(T.Unicode())).tag(sync=True)  # [name, label, origin] for the menu
    source = T.Unicode().tag(sync=True)
    rank = T.Int().tag(sync=True)

    def __init__(
        self, source: str | np.ndarray | Mapping[str, Any] = "full", rank: int | None = None, most: int = 64,
        corner: int = LARGEST,
    ) -> None:  # fmt: skip
        own: Any = {} if isinstance(source, str) else source if isinstance(source, Mapping) else {"your matrix": source}
        first = next(iter(own)) if own else str(source)
        offered = [name for name in SOURCES if name != "weight" or name == first or not problem_with("minilm")]
        super().__init__(
            data={name: packed(matrix, most, corner) for name, matrix in own.items()},
            cuts={} if own else reference()["cuts"],
            choices=[[name, name, ""] for name in own] or [[name, *SOURCES[name]] for name in offered],
        )
        self.source = first
        self.rank = min(2, len(self.data[first]["scales"])) if rank is None else rank
        self.on_msg(self._heard)

    def describe(self) -> str:
        shown, r = self.data[self.source], self.rank
        (m, n), (_, share, noise) = shown["shape"], shown["kept"][r]
        label = next(label for name, label, _ in self.choices if name == self.source)
        energy = f"{share:.1%} of the energy (the same numbers shuffled: {noise:.1%})"
        words = f"A matrix as a sum of rank-one pieces: {label}, {m} x {n}. {r} of {shown['full']} pieces keep {energy}"
        words += f" in {r * (m + n):,} numbers instead of {m * n:,}."
        cut = self.cuts.get("updates", {}).get(self.source)
        if not cut or cut.get("others"):  # the browser describes such cuts
            return words
        at = max(i for i, rank in enumerate(cut["ranks"]) if rank <= r)
        right = [f"{count / self.cuts['n']:.1%}" for count in (cut["right"][at], cut["right"][-1])]
        cut_to = f"With every update cut to rank {cut['ranks'][at]}"
        return f"{words} {cut_to}, {right[0]} of the answers are right; with nothing cut, {right[1]}."

    def state(self) -> dict[str, Any]:
        """Include all matrices in the menu, so that a page without a kernel can show them."""
        self.data = self.data | {name: pieces_of(name) for name, *_ in self.choices if name not in self.data}
        return super().state()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        with self.hold_sync():
            self.source = content["source"]

    @T.validate("rank")
    def _check_rank(self, proposal: Any) -> int:
        limit = len(self.data[self.source]["scales"]) if self.source else PIECES
        if not 0 <= proposal["value"] <= limit:
            raise BadValue(f"rank {proposal['value']} cannot be shown: use 0 to {limit}")
        return int(proposal["value"])

    @T.validate("source")
    def _check_source(self, proposal: Any) -> str:
        name, names = str(proposal["value"]), [name for name, *_ in self.choices]
        if name not in names:
            raise NotFound(f"this panel has no matrix '{name}'; it has {', '.join(names)}")
        if name not in self.data:
            self.data = self.data | {name: pieces_of(name)}
        return name

    @T.observe("source")
    def _clip_rank(self, _: Any) -> None:
        self.rank = min(self.rank, len(self.data[self.source]["scales"]))
