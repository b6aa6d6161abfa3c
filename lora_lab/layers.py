"""LoRA: a frozen layer with two thin trainable matrices beside it.

               x (tokens, in)
               |         \\
               |          A (rank, in)           # at the start, A is random and B is zero,
        W (out, in)       |                      # so y equals W x
          frozen          B (out, rank)
               |         /
               y  +  scaling * B A x             # scaling = alpha / rank

    W' = W + scaling * B A          # Hu et al. 2021, arXiv:2106.09685, section 4.1

A and B stay in fp32 even when W is bf16. bf16 has 8 bits of precision, so a step of 1e-3 on a value of 1 would be lost.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer, has_hook, out_by_in


class LoRALinear(AdapterLayer):
    """Compute y = W x + b + scaling * B A dropout(x) for an `nn.Linear` or GPT-2's `Conv1D`.

    Shapes: x is (..., in), y is (..., out), `lora_A` is (rank, in), and `lora_B` is (out, rank).
    out_slice   A (start, stop) pair to update only these outputs, such as the q or v part of a fused q-k-v layer.
                To adapt two slices of a layer, nest one LoRALinear inside another.
    """

    def __init__(
        self, base_layer: nn.Module, rank: int, scaling: float, *, dropout: float = 0.0, init: str = "kaiming",
        out_slice: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(base_layer)
        weight = out_by_in(base_layer)
        self.out_features, self.in_features = weight.shape
        self.rank, self.scaling, self.out_slice = rank, scaling, out_slice
        start, stop = out_slice or (0, self.out_features)
        fp32: Any = {"dtype": torch.float32, "device": weight.device}
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, **fp32))
        self.lora_B = nn.Parameter(torch.zeros(stop - start, rank, **fp32))
        init_A(self.lora_A, init)

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base_layer(x)  # type: ignore[no-any-return]
        tokens = x.reshape(-1, self.in_features)  # (tokens, in)
        y: Tensor = self.base_layer(tokens)  # (tokens, out)
        a, b = self.lora_A.to(y.dtype), self.lora_B.to(y.dtype)
        h = F.linear(self.dropout(tokens).to(y.dtype), a)  # (tokens, rank): the bottleneck
        # Add in place, to avoid a copy of y, unless a hook may keep y or y is a view (backward would copy a view).
        y = y.clone() if y._base is not None or has_hook(self.base_layer) else y
        adapted = y[:, slice(*self.out_slice)] if self.out_slice else y
        adapted.addmm_(h, b.t(), alpha=self.scaling)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def update(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return B A dropout(x) as a tensor (..., out), not yet multiplied by the scaling."""
        h = F.linear(self.dropout(x).to(dtype), self.lora_A.to(dtype))
        return F.linear(h, self.lora_B.to(dtype))

    def delta_weight(self) -> Tensor:
        """Return the update scaling * B A as an fp32 tensor (out, in). `out` may be the size of a slice."""
        return self.scaling * (self.lora_B.float() @ self.lora_A.float())

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        start, stop = self.out_slice or (0, self.out_features)
        return weight + F.pad(self.delta_weight(), (0, 0, start, self.out_features - stop)), bias


def init_A(lora_A: Tensor, init: str = "kaiming") -> None:
    """Fill A (rank, in) with initial values, in place.

    With "kaiming", A is uniform between -1/sqrt(in) and 1/sqrt(in), so that |A x| does not grow with the layer's width.
    In loralib and PEFT, `kaiming_uniform_(a=sqrt(5))` has the same bound, sqrt(6 / ((1 + a^2) in)).
    With "gaussian", A is normal with standard deviation 1/rank, as in PEFT. The paper says only "random Gaussian".
    """
    rank, in_features = lora_A.shape
    if init == "gaussian":
        nn.init.normal_(lora_A, std=1 / rank)
    else:
        nn.init.uniform_(lora_A, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))
