"""Layers for DoRA and PiSSA, and for LoRA on embeddings. For LoRA on linear layers, see `lora_lab/layers.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer, innermost, out_by_in
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear as LoRALinear  # used by `lora.py` too
from lora_lab.methods.attach import adapter_layers, plain_path


class LoRAEmbedding(AdapterLayer):
    """Compute y = E[token] + scaling * B A[:, token] for an embedding E.

    Shapes: `tokens` is (...), y is (..., d), `lora_embedding_A` is (rank, vocabulary), `lora_embedding_B` is (d, rank).
    A starts at zero and B is random, as in loralib and PEFT, so A stays zero for tokens that never occur. Add new
    tokens with `resize_token_embeddings` before you attach an adapter. If the layer scales its vectors, as Gemma's
    layer does by sqrt(d), the update is scaled too.
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
        return y + self.update(tokens, y.dtype, self.scaling) if self.active else y

    def update(self, tokens: Tensor, dtype: torch.dtype, scaling: float = 1.0) -> Tensor:
        """Return the update scaling * B A[:, token] as a tensor (..., d)."""
        h = F.embedding(tokens, self.lora_embedding_A.t())
        pad: Any = self.base_layer.padding_idx  # gets no gradient; torch.vmap breaks F.embedding's padding_idx
        h = h if pad is None else torch.where(tokens.eq(pad).unsqueeze(-1), h.detach(), h)
        scale: Any = getattr(self.base_layer, "embed_scale", 1.0)
        scale = scale.to(self.weight.dtype) if isinstance(scale, Tensor) else scale  # rounded as in the layer
        return (F.linear(h, self.lora_embedding_B) * (scaling * scale)).to(dtype)

    def delta_weight(self) -> Tensor:
        """Return the transposed update (scaling * B A)^T as an fp32 tensor (vocabulary, d)."""
        return self.scaling * (self.lora_embedding_B.float() @ self.lora_embedding_A.float()).t()

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.delta_weight(), bias


LoRALayer = LoRALinear | LoRAEmbedding


class DoRALinear(LoRALinear):
    """Compute y = m/n (W + s B A) x + b, where n is the norm of each row of W + s B A, and the magnitude m is trained.

    Shapes: those of `LoRALinear`; `lora_magnitude_vector` is (out,), fp32. Initially, B is 0 and m = n, so y = W x + b.
    The norm n changes with A and B but gets no gradient (section 4.3), which saves memory and hardly affects training.
    As in PEFT, dropout applies to x in both trainable terms: y = W x + (m/n - 1) W dropout(x) + m/n s B A dropout(x).
    Source: Liu et al. 2024, arXiv:2402.09353, equations 5 and 11.
    """

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, **options: Any) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        self.lora_magnitude_vector = nn.Parameter(self.row_norms(_float_weight(self)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x)
        if not self.active:
            return y
        dropped = self.dropout(x).to(y.dtype)
        if self.training and isinstance(self.dropout, nn.Dropout):
            frozen = F.linear(dropped, self.frozen_weight())
        else:  # the base layer already computed W x
            frozen = y if self.bias is None else y - self.bias.to(y.dtype)
        factor = self.lora_magnitude_vector / self.row_norms(self.frozen_weight())  # (out,)
        update = F.linear(F.linear(dropped, self.lora_A.to(y.dtype)), self.lora_B.to(y.dtype))  # (..., out)
        return y + (factor - 1).to(y.dtype) * frozen + (self.scaling * factor).to(y.dtype) * update

    @torch.no_grad()
    def row_norms(self, weight: Tensor) -> Tensor:
        """Return the norm of each row of W + s B A, at least 1e-12 (for rows of zeros), as an fp32 tensor (out,)."""
        total = weight.to(torch.float32, copy=True)
        # Add in place, since autocast would compute a new tensor in half precision.
        return total.addmm_(self.lora_B.float(), self.lora_A.float(), alpha=self.scaling).norm(dim=1).clamp(min=1e-12)

    def delta_weight(self) -> Tensor:
        """Return the update W' - W as an fp32 tensor (out, in)."""
        weight = self.frozen_weight().float()
        return self.merged_weights(weight, None)[0] - weight

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor = (self.lora_magnitude_vector / self.row_norms(weight)).unsqueeze(1)
        return factor * (weight + super().delta_weight()), bias


class PiSSALinear(LoRALinear):
    """Compute y = (W - s B0 A0) x + b + s B A dropout(x). A and B start as A0 and B0, the top singular directions of W.

    W = U S V^T;  A0 = sqrt(S_r / s) V_r^T (rank, in);  B0 = U_r sqrt(S_r / s) (out, rank)

    Shapes: those of `LoRALinear`. `start_A` and `start_B` hold the frozen A0 and B0 in fp32. W is bitwise unchanged:
    the layer subtracts s B0 A0 x from the output, so s (B A - B0 A0) is a LoRA update of rank 2r to the original base
    model. At the start, s B A and s B0 A0 cancel up to rounding.
    Source: Meng et al. 2024, arXiv:2404.02948, equations 2 to 4; Eckart & Young 1936.
    """

    start_A: Tensor
    start_B: Tensor

    def __init__(
        self, base_layer: nn.Module, rank: int, scaling: float, *, decompose: bool = True, **options: Any
    ) -> None:
        super().__init__(base_layer, rank, scaling, **options)
        weight = _float_weight(self).detach().float()
        if decompose:  # otherwise, all four matrices are filled from a file
            u, s, vt = torch.linalg.svd(weight, full_matrices=False)
            roots = (s[:rank] / scaling).sqrt()
            self.lora_A.data.copy_(roots.unsqueeze(1) * vt[:rank])
            self.lora_B.data.copy_(u[:, :rank] * roots)
        self.register_buffer("start_A", self.lora_A.detach().clone())
        self.register_buffer("start_B", self.lora_B.detach().clone())

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
        """Return the update s (B A - B0 A0) as an fp32 tensor (out, in)."""
        return super().delta_weight() - self.scaling * (self.start_B @ self.start_A)


def _float_weight(layer: LoRALinear) -> Tensor:
    """Return the frozen weight. Raises: BadValue if the weight is quantized."""
    weight = layer.frozen_weight()
    if not getattr(innermost(layer), "plain_linear", False) and weight.is_floating_point():
        return weight
    raise BadValue("dora and init 'pissa' need the base's unquantized weights: load the base in fp32 or bf16")


# ---- files in PEFT's layout

Piece = tuple[str, Tensor, tuple[slice, ...], float]  # key in the file, our tensor, its index and factor in the file


def pieces(layers: Sequence[LoRALayer]) -> Iterator[Piece]:
    """Yield each tensor of the adapters around one module with its key, index and factor in a file.

    PEFT has one adapter per module, with one scaling. Thus, the adapters of a fused module's slices become one adapter:

        A = | A_q |        B = | B_q  0  |
            | A_v |            | 0    0  |  <- rows of k
                               | 0   B_v |

    Differences in scaling are multiplied into B. For PiSSA, the file's A is [A; A0] and its B is [B, -B0].
    """
    column = 0
    for layer in layers:
        for name in ("lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"):
            if name in layer._parameters:
                yield name, getattr(layer, name), (slice(None),), 1.0
        if not isinstance(layer, LoRALinear):
            continue
        pairs: list[Any] = [(layer.lora_A, layer.lora_B, layer.scaling / layers[0].scaling)]
        if isinstance(layer, PiSSALinear):
            pairs.append((layer.start_A, layer.start_B, -pairs[0][2]))
        for a, b, factor in pairs:
            columns = slice(column, column + layer.rank)
            yield "lora_A.weight", a, (columns,), 1.0
            yield "lora_B.weight", b, (slice(*(layer.out_slice or (None,))), columns), factor
            column += layer.rank


def lora_layers(model: nn.Module) -> dict[str, list[LoRALayer]]:
    """Return the adapters of each module. A fused module may have several adapters, sorted by slice."""
    groups: dict[str, list[LoRALayer]] = {}
    for name, layer in adapter_layers(model):
        if isinstance(layer, LoRALayer):
            groups.setdefault(plain_path(name), []).append(layer)
    return {path: sorted(layers, key=lambda x: x.out_slice or (0, 0)) for path, layers in groups.items()}


def file_tensors(layers: Sequence[LoRALayer]) -> dict[str, Tensor]:
    """Return the tensors that a file holds for the adapters around one module."""
    found, tensors = list(pieces(layers)), dict[str, Tensor]()
    rank = sum(len(tensor) for name, tensor, *_ in found if name == "lora_A.weight")
    for name, tensor, place, factor in found:
        shape = {"lora_A.weight": (rank, tensor.shape[-1]), "lora_B.weight": (len(out_by_in(layers[0])), rank)}
        whole = tensors.setdefault(name, tensor.new_zeros(shape.get(name, tensor.shape)))
        whole[place] = tensor.detach() * factor
    return tensors
