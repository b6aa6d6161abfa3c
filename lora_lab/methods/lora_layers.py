"""LoRA's other layers: embeddings, DoRA, PiSSA. The linear one is in `lora_lab/layers.py`, the method in `lora.py`.

DoRA    W' = m (W + s B A) / ||W + s B A||      m (out,) starts as the norms of W's rows
PiSSA   W' = (W - s B0 A0) + s B A              B A starts as B0 A0, the largest part of W
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer, innermost
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.base import Placement


class LoRAEmbedding(AdapterLayer):
    """y = E[token] + scaling * B A[:, token]: the same idea where the input is a token's number, not a vector.

    Shapes: tokens (...) -> y (..., d); lora_embedding_A (rank, vocabulary); lora_embedding_B (d, rank).
    Here A starts at zero and B random, as in loralib and PEFT: a token that is never seen keeps A = 0. A has a column
    for each token, so add new tokens (`resize_token_embeddings`) before attaching. Where the layer scales its vectors,
    as Gemma's does by sqrt(d), the update is scaled as well.
    """

    def __init__(self, base_layer: nn.Embedding, rank: int, scaling: float) -> None:
        super().__init__(base_layer)
        vocabulary, d = base_layer.weight.shape
        fp32: Any = {"dtype": torch.float32, "device": base_layer.weight.device}
        self.rank, self.scaling = rank, scaling
        self.lora_embedding_A = nn.Parameter(torch.zeros(rank, vocabulary, **fp32))
        self.lora_embedding_B = nn.Parameter(torch.randn(d, rank, **fp32))

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.base_layer(tokens)
        if not self.active:
            return y
        h = F.embedding(tokens, self.lora_embedding_A.t(), self.base_layer.padding_idx)  # type: ignore[arg-type]
        scale: Any = getattr(self.base_layer, "embed_scale", 1.0)
        scale = scale.to(self.weight.dtype) if isinstance(scale, Tensor) else scale  # rounded as the layer rounds it
        return y + (F.linear(h, self.lora_embedding_B) * (self.scaling * scale)).to(y.dtype)

    def delta_weight(self) -> Tensor:
        """(scaling * B A)^T, (vocabulary, d), in fp32."""
        return self.scaling * (self.lora_embedding_B.float() @ self.lora_embedding_A.float()).t()

    def frozen_weight(self) -> Tensor:
        """E, (vocabulary, d)."""
        return self.base_layer.weight  # type: ignore[return-value]

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.delta_weight(), bias

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scaling={self.scaling:g}"


LoRALayer = LoRALinear | LoRAEmbedding


class DoRALinear(LoRALinear):
    """y = m/n (W + s B A) x + b, where n is the norm of each row of W + s B A, and m trains.

    Shapes: as LoRALinear's; lora_magnitude_vector (out,), fp32. While B is zero m equals n, so nothing changes.
    n follows A and B, but no gradient flows through it (section 4.3), which saves memory and hardly changes training.
    Dropout acts on x in both terms that train, as in PEFT: y = W x + (m/n - 1) W dropout(x) + m/n s B A dropout(x).
    Source: Liu et al. 2024, arXiv:2402.09353, equations 5 and 11.
    """

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, **options: Any) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        self.lora_magnitude_vector = nn.Parameter(self.row_norms(_plain_weight(self)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x)
        if not self.active:
            return y
        a, b = self.lora_A.to(y.dtype), self.lora_B.to(y.dtype)
        dropped = self.dropout(x).to(y.dtype)
        factor = self.lora_magnitude_vector / self.row_norms(self.frozen_weight())  # (out,)
        update = F.linear(F.linear(dropped, a), b)  # (..., out)
        return y + (factor - 1).to(y.dtype) * self._frozen(dropped, y) + (self.scaling * factor).to(y.dtype) * update

    def _frozen(self, dropped: Tensor, y: Tensor) -> Tensor:
        """W dropout(x), without the bias; where nothing is dropped the base layer has computed it already."""
        if self.training and isinstance(self.dropout, nn.Dropout):
            return F.linear(dropped, self.frozen_weight())
        bias = self.bias
        return y if bias is None else y - bias

    @torch.no_grad()
    def row_norms(self, weight: Tensor) -> Tensor:
        """||W + s B A|| of each row, (out,) in fp32."""
        a, b = self.lora_A.float(), self.lora_B.float()
        return torch.addmm(weight.float(), b, a, alpha=self.scaling).norm(dim=1)

    def delta_weight(self) -> Tensor:
        """W' - W, (out, in) in fp32."""
        weight = self.frozen_weight().float()
        return self.merged_weights(weight, None)[0] - weight

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor = (self.lora_magnitude_vector / self.row_norms(weight)).unsqueeze(1)
        return factor * (weight + super().delta_weight()), bias


class PiSSALinear(LoRALinear):
    """y = (W - s B0 A0) x + b + s B A dropout(x), where A and B start as A0 and B0, the largest part of W.

    W = U S V^T;  A0 = sqrt(S_r / s) V_r^T (rank, in);  B0 = U_r sqrt(S_r / s) (out, rank)

    Shapes: as LoRALinear's; start_A and start_B as lora_A and lora_B, fp32, do not train. The residual W - s B0 A0 is
    not written into W but subtracted from its output: W stays what it was to the bit, switching off gives the base
    back, and s (B A - B0 A0) is a LoRA of rank 2r on the original base. At the start both terms cancel, up to rounding.
    Source: Meng et al. 2024, arXiv:2404.02948, equations 2 to 4.
    """

    start_A: Tensor
    start_B: Tensor

    def __init__(
        self, base_layer: nn.Module, rank: int, scaling: float, *, decompose: bool = True, **options: Any
    ) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        weight = _plain_weight(self)
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
        if self.out_slice:
            start = F.pad(start, (self.out_slice[0], self.out_features - self.out_slice[1]))
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


def lora_layer(
    layer: nn.Module, placement: Placement, *, dropout: float, init: str, dora: bool, freeze_a: bool, to_fill: bool
) -> LoRALayer:
    """The layer that LoRA puts around `layer`; with `to_fill`, its numbers will come from a file."""
    rank, scaling = placement.rank, placement.scaling
    if isinstance(layer, nn.Embedding):
        return LoRAEmbedding(layer, rank, scaling)
    options: Any = {"dropout": dropout, "init": init, "out_slice": placement.site.out_slice}
    if init == "pissa":
        made: LoRALinear = PiSSALinear(layer, rank, scaling, decompose=not to_fill, **options)
    else:
        made = (DoRALinear if dora else LoRALinear)(layer, rank, scaling, **options)
    made.lora_A.requires_grad_(not freeze_a)
    return made


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


def _plain_weight(layer: LoRALinear) -> Tensor:
    weight = layer.frozen_weight()
    if not getattr(innermost(layer), "plain_linear", False) and weight.is_floating_point():
        return weight
    raise BadValue("dora and init 'pissa' start from the base's own numbers: load it in fp32 or bf16, unquantized")
