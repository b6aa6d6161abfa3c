"""Factors that train beside frozen layers. The method is in ia3.py.

    y = W (l * x) + b        on the input of the feed-forward part's last layer
    y = l * (W x + b)        on the output of the others; on a slice of a fused layer, those outputs alone

All factors start at 1, so at the start nothing changes. In PEFT's files l is called ia3_l.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.layers import out_by_in
from lora_lab.methods.attach import attach_beside
from lora_lab.methods.base import Method, Report
from lora_lab.methods.beside import Beside, Own
from lora_lab.methods.targets import Site
from lora_lab.switched import Fold, Mergeable, innermost


class TrainedFactor(Beside, Mergeable):
    """factor (in) on the layer's input, or (out) on its output, or on the outputs `rows` = (start, stop) of it."""

    def __init__(self, base_layer: nn.Module, *, on_input: bool, rows: tuple[int, int] | None = None) -> None:
        super().__init__(base_layer)
        weight = out_by_in(base_layer)  # (out, in)
        self.on_input, self.rows, self.out_features = on_input, rows, weight.shape[0]
        start, stop = (0, weight.shape[1]) if on_input else rows or (0, weight.shape[0])
        self.factor = nn.Parameter(torch.ones(stop - start, dtype=torch.float32, device=weight.device))

    def before(self, x: Tensor, own: Own) -> Tensor:
        return x * own["factor"].to(x.dtype).unsqueeze(1) if self.on_input else x

    def after(self, y: Tensor, own: Own) -> Tensor:
        return y if self.on_input else y * self.whole(own["factor"]).to(y.dtype).unsqueeze(1)

    def whole(self, factor: Tensor) -> Tensor:
        """The factors (..., outputs) of all outputs of the layer: 1 where none is trained."""
        if self.rows is None:
            return factor
        return F.pad(factor, (self.rows[0], self.out_features - self.rows[1]), value=1.0)

    @property
    def undoable(self) -> bool:
        return bool(self.factor.all())

    def folded(self) -> list[Fold]:
        return [(frozen, frozen.float() * factor) for frozen, factor in self._scaled()]

    def unfolded(self) -> list[Fold]:
        return [(frozen, frozen.float() / factor) for frozen, factor in self._scaled()]

    def _scaled(self) -> list[tuple[Tensor, Tensor]]:
        """The frozen weight (out, in) and bias (out), or the slices of them, beside their factors."""
        weight: Tensor = out_by_in(self.base_layer)
        if self.on_input:
            return [(weight, self.factor)]
        rows = slice(*self.rows) if self.rows else slice(None)
        bias: Tensor | None = innermost(self.base_layer).bias  # type: ignore[assignment]
        scaled = [(weight[rows], self.factor.unsqueeze(1))]
        return scaled if bias is None else [*scaled, (bias[rows], self.factor)]


def attach_factors(model: nn.Module, method: Method, placed: Sequence[tuple[Site, bool]]) -> Report:
    """Freeze `model`, put a factor at each place, on the input or the output, and a trained copy beside each head."""
    parts = [(site.module, partial(TrainedFactor, on_input=on_input, rows=site.rows)) for site, on_input in placed]
    return attach_beside(model, method, parts)
