"""What LoRA's variants do otherwise in a layer: DoRA learns the rows' lengths apart, PiSSA starts as W's largest part.

    DoRA    W' = m (W + s B A) / ||W + s B A||      m (out,) starts as the lengths of W's rows     Liu et al. 2024
    PiSSA   W' = (W - s B0 A0) + s B A              B A starts as B0 A0, the largest part of W     Meng et al. 2024
    LoRA-FA W' = W + s B A                          A stays as it was drawn, only B trains         Zhang et al. 2023

LoRA+ (Hayou et al. 2024) is a matter of the optimizer alone and stands in `training/lane.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.errors import BadValue
from lora_lab.layers import LoRAEmbedding, LoRALayer, LoRALinear
from lora_lab.methods.base import Placement
from lora_lab.switched import Fold, innermost


class DoRALinear(LoRALinear):
    """y = m/n (W + s B A) x + b, where n is the length of each row of W + s B A and m learns.

    Shapes: as LoRALinear's; lora_magnitude_vector (out,), fp32. While B is zero m equals n, so that nothing is changed.
    n follows A and B, but no gradient flows through it (section 4.3), which saves memory and hardly changes training.
    Dropout acts on x for both terms that train, as in PEFT: y = W x + (m/n - 1) W dropout(x) + m/n s B A dropout(x).
    Source: Liu et al. 2024, equations 5 and 11.
    """

    _norms_when_merged: Tensor  # a buffer, so that it follows the model to another device; no part of a checkpoint

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, **options: Any) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        self.lora_magnitude_vector = nn.Parameter(self.row_norms())
        self.register_buffer("_norms_when_merged", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x)
        if not self.active:
            return y
        a, b = self.lora_A.to(y.dtype), self.lora_B.to(y.dtype)
        dropped = self.dropout(x).to(y.dtype)
        factor = self.lora_magnitude_vector / self.row_norms()  # (out,)
        grown = F.linear(F.linear(dropped, a), b)  # (..., out)
        change = (factor - 1).to(y.dtype) * self._frozen(dropped, y) + (self.scaling * factor).to(y.dtype) * grown
        return y + change

    def _frozen(self, dropped: Tensor, y: Tensor) -> Tensor:
        """W dropout(x), without the bias; where nothing is dropped the base layer has done the product already."""
        if self.training and isinstance(self.dropout, nn.Dropout):
            return F.linear(dropped, self.frozen_weight())
        bias: Tensor | None = innermost(self.base_layer).bias  # type: ignore[assignment]
        return y if bias is None else y - bias

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """||W + s B A|| of each row, (out,) in fp32."""
        a, b = self.lora_A.float(), self.lora_B.float()
        return torch.addmm(_numbers_of(self).float(), b, a, alpha=self.scaling).norm(dim=1)

    def delta_weight(self) -> Tensor:
        """W' - W, (out, in) in fp32."""
        weight = self.frozen_weight().float()
        return weight - self._without(weight) if self.merged else self._with(weight) - weight

    @property
    def undoable(self) -> bool:
        return bool(self.lora_magnitude_vector.all())

    def folded(self) -> list[Fold]:
        weight = self.frozen_weight()
        self._norms_when_merged = self.row_norms()  # merged, the weight is not W any more, and these are lost
        return [(weight, self._with(weight.float()))]

    def unfolded(self) -> list[Fold]:
        weight = self.frozen_weight()
        return [(weight, self._without(weight.float()))]

    def _with(self, weight: Tensor) -> Tensor:
        """W' of W, (out, in) in fp32."""
        return (self.lora_magnitude_vector / self.row_norms()).unsqueeze(1) * (weight + super().delta_weight())

    def _without(self, merged: Tensor) -> Tensor:
        """W of W'."""
        factor = (self.lora_magnitude_vector / self._norms_when_merged).unsqueeze(1)
        return merged / factor - super().delta_weight()


class PiSSALinear(LoRALinear):
    """y = (W - s B0 A0) x + b + s B A dropout(x), where A and B start as A0 and B0, the largest part of W.

    W = U S V^T;  A0 = sqrt(S_r / s) V_r^T (rank, in);  B0 = U_r sqrt(S_r / s) (out, rank)

    Shapes: as LoRALinear's; start_A and start_B as lora_A and lora_B, fp32, which do not train. The residual
    W - s B0 A0 is not written into W but subtracted from its output. So W stays what it was to the bit, switching off
    gives the base back, and the update s (B A - B0 A0) is a LoRA of rank 2r on the original base. At the start both
    terms cancel, up to the rounding of a sum.
    Source: Meng et al. 2024, equations 2 to 4.
    """

    start_A: Tensor
    start_B: Tensor

    def __init__(
        self, base_layer: nn.Module, rank: int, scaling: float, *, decompose: bool = True, **options: Any
    ) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        weight = _numbers_of(self)
        if decompose:
            a, b = principal(weight, rank, scaling)
        else:  # to be filled from a file; both lie transposed in memory, as those that `principal` gives do
            a, b = (torch.zeros(m.shape[::-1], device=weight.device).t() for m in (self.lora_A, self.lora_B))
        self.register_buffer("start_A", a)
        self.register_buffer("start_B", b)
        with torch.no_grad():
            self.lora_A.copy_(a)
            self.lora_B.copy_(b)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.active:
            return y
        h = F.linear(x.to(y.dtype), self.start_A.to(y.dtype))  # (..., rank)
        start = F.linear(h, (self.scaling * self.start_B).to(y.dtype))
        if self.rows:
            start = F.pad(start, (self.rows[0], self.out_features - self.rows[1]))
        return y - start

    def delta_weight(self) -> Tensor:
        """s (B A - B0 A0), (out, in) in fp32."""
        return super().delta_weight() - self.scaling * (self.start_B @ self.start_A)


def principal(weight: Tensor, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """A0 (rank, in) and B0 (out, rank), with scaling * B0 A0 the best approximation of `weight` (out, in) of that rank.

    The singular values are shared evenly, their roots on either side. Source: Eckart & Young 1936; Meng et al. 2024.
    """
    u, s, vt = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    roots = (s[:rank] / scaling).sqrt()
    return roots.unsqueeze(1) * vt[:rank], u[:, :rank] * roots


def made(
    layer: nn.Module, placement: Placement, *, dropout: float, init: str, dora: bool, freeze_a: bool, to_fill: bool
) -> LoRALayer:
    """The layer that LoRA puts around `layer`; with `to_fill`, its numbers will come from a file."""
    rank, scaling = placement.rank, placement.scaling
    if isinstance(layer, nn.Embedding):
        return LoRAEmbedding(layer, rank, scaling)
    kind: Any = DoRALinear if dora else LoRALinear
    if init == "pissa":
        kind = partial(PiSSALinear, decompose=not to_fill)
    wrapped: LoRALinear = kind(layer, rank, scaling, dropout=dropout, init=init, rows=placement.site.rows)
    wrapped.lora_A.requires_grad_(not freeze_a)
    return wrapped


def file_pair(layer: LoRALinear) -> tuple[Tensor, Tensor]:
    """A and B as a file holds them: the layer's own, or PiSSA's with [B, -B0] and [A; A0], twice the rank."""
    if not isinstance(layer, PiSSALinear):
        return layer.lora_A, layer.lora_B
    return torch.cat([layer.lora_A, layer.start_A]), torch.cat([layer.lora_B, -layer.start_B], dim=1)


@torch.no_grad()
def fill_pair(layer: LoRALinear, a: Tensor, b: Tensor) -> None:
    """The inverse of `file_pair`."""
    layer.lora_A.copy_(a[: layer.rank])
    layer.lora_B.copy_(b[:, : layer.rank])
    if isinstance(layer, PiSSALinear):
        layer.start_A.copy_(a[layer.rank :])
        layer.start_B.copy_(-b[:, layer.rank :])


def _numbers_of(layer: LoRALinear) -> Tensor:
    weight = layer.frozen_weight()
    if not getattr(innermost(layer), "plain_linear", False) and weight.is_floating_point():
        return weight
    raise BadValue("dora and init 'pissa' start from the base's own numbers: load it in fp32 or bf16, unquantised")
