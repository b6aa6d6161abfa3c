"""LoRA itself: a frozen layer, and beside it two thin matrices that learn.

               x (tokens, in)
               |         \\
               |          A (rank, in)           A starts random, B starts at zero,
        W (out, in)       |                      so at the start the detour adds nothing.
          frozen          B (out, rank)
               |         /
               y  +  scaling * B A x             scaling = alpha / rank

    W' = W + scaling * B A          Hu et al. 2021, section 4.1

Only A and B train. They stay in fp32 even when W is bf16: a step of 1e-3 on a weight of 1 is lost in bf16's 8 bits.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.switched import AdaptedLayer, Fold, Mergeable, innermost


class LoRALayer(Mergeable):
    """What the linear and the embedding kind share: rank, scaling, merging."""

    rank: int
    scaling: float

    @abstractmethod
    def delta_weight(self) -> Tensor:
        """The update as one matrix, scaling * B A, in fp32; for a linear layer (out_features, in_features)."""

    @abstractmethod
    def frozen_weight(self) -> Tensor:
        """The slice of the frozen weight that the update is added to, as a view of delta_weight's shape."""

    def folded(self) -> list[Fold]:
        """The frozen weight with the update in it, for `merge`."""
        weight = self.frozen_weight()  # W + scaling * B A in fp32: bf16 would round B A before adding it
        return [(weight, weight.float() + self.delta_weight())]

    def unfolded(self) -> list[Fold]:
        """The frozen weight with the update taken out again, for `unmerge`."""
        weight = self.frozen_weight()
        return [(weight, weight.float() - self.delta_weight())]


class LoRALinear(LoRALayer):
    """y = W x + b + scaling * B A dropout(x), for `nn.Linear` and GPT-2's `Conv1D`.

    Shapes: x (..., in_features) -> y (..., out_features); lora_A (rank, in_features); lora_B (out, rank).
    `rows = (start, stop)` updates only those outputs: the q or the v part of a fused q-k-v layer. Wrapping a wrapped
    layer adds a second update, so that q and v of one fused layer are two LoRALinear, one around the other.
    lora_B lies transposed in memory: what asks for one dense piece, as torch's `parameters_to_vector` and safetensors'
    `save_file` do, takes `lora_B.contiguous()`; `save_adapter` does so itself.
    Source: Hu et al. 2021, section 4.1.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        rank: int,
        scaling: float,
        *,
        dropout: float = 0.0,
        init: str = "kaiming",
        rows: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(base_layer)
        weight = out_by_in(base_layer)  # (out_features, in_features)
        self.out_features, self.in_features = weight.shape
        self.rank, self.scaling, self.rows = rank, scaling, rows
        start, stop = rows or (0, self.out_features)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, dtype=torch.float32, device=weight.device))
        # (out, rank), yet in memory as (rank, out): with long rows its gradients are up to four times as fast on a CPU.
        self.lora_B = nn.Parameter(torch.zeros(rank, stop - start, dtype=torch.float32, device=weight.device).t())
        initialise_A(self.lora_A, init)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> y (..., out_features); switched off, the frozen layer's own y."""
        if not self.active:
            return self.base_layer(x)
        tokens = x.reshape(-1, self.in_features)  # (tokens, in): flat, so that one addmm can add into the output
        y = self.base_layer(tokens)  # (tokens, out)
        a, b = self.lora_A.to(y.dtype), self.lora_B.to(y.dtype)
        h = F.linear(self.dropout(tokens).to(y.dtype), a)  # (tokens, rank): everything below is as thin as this
        y = self._add(y, h, b)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def _add(self, y: Tensor, h: Tensor, b: Tensor) -> Tensor:
        # addmm adds into the base layer's output and scales on the fly: no second (tokens, out) tensor is made.
        # Not so on a view, where in place would cost a copy in backward, or where a hook may have kept that output.
        apart = y._is_view() or is_heard(self.base_layer)
        if self.rows:
            y = y.clone() if apart else y
            y[:, slice(*self.rows)].addmm_(h, b.t(), alpha=self.scaling)
            return y
        add_into = y.addmm if apart else y.addmm_
        return add_into(h, b.t(), alpha=self.scaling)

    def delta_weight(self) -> Tensor:
        """scaling * B A, (out_features or the rows, in_features), in fp32."""
        return self.scaling * (self.lora_B.float() @ self.lora_A.float())  # (out, in)

    def frozen_weight(self) -> Tensor:
        """W, (out_features or the rows, in_features), as a view."""
        weight = out_by_in(self.base_layer)
        return weight[slice(*self.rows)] if self.rows else weight

    def extra_repr(self) -> str:
        rows = f", rows={self.rows[0]}:{self.rows[1]}" if self.rows else ""
        return f"rank={self.rank}, scaling={self.scaling:g}{rows}"


class LoRAEmbedding(LoRALayer):
    """y = E[token] + scaling * B A[:, token]: the same idea where the input is a token's number, not a vector.

    Gemma's layer multiplies what it reads by a number of its own, sqrt(d): then the update is multiplied as well.
    Shapes: tokens (...) -> y (..., d); lora_embedding_A (rank, vocabulary); lora_embedding_B (d, rank).
    Here A starts at zero and B random, the other way round, as in loralib and PEFT: a token never seen keeps A = 0.
    A has a column for each token, so new tokens are added (`resize_token_embeddings`) before a method is attached.
    """

    def __init__(self, base_layer: nn.Embedding, rank: int, scaling: float) -> None:
        super().__init__(base_layer)
        vocabulary, d = base_layer.weight.shape
        device = base_layer.weight.device
        self.rank, self.scaling = rank, scaling
        self.lora_embedding_A = nn.Parameter(torch.zeros(rank, vocabulary, dtype=torch.float32, device=device))
        self.lora_embedding_B = nn.Parameter(torch.randn(d, rank, dtype=torch.float32, device=device))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> y (..., d)."""
        y: Tensor = self.base_layer(tokens)
        if not self.active:
            return y
        padding: int | None = self.base_layer.padding_idx  # type: ignore[assignment]
        h = F.embedding(tokens, self.lora_embedding_A.t(), padding)  # (..., rank)
        scaling = self.scaling * scale_of(self.base_layer)
        return y + (F.linear(h, self.lora_embedding_B) * scaling).to(y.dtype)

    def delta_weight(self) -> Tensor:
        """(scaling * B A)^T, (vocabulary, d), in fp32."""
        return self.scaling * (self.lora_embedding_B.float() @ self.lora_embedding_A.float()).t()  # (vocabulary, d)

    def frozen_weight(self) -> Tensor:
        """E, (vocabulary, d)."""
        return self.base_layer.weight  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scaling={self.scaling:g}"


class TrainedCopy(AdaptedLayer):
    """A layer trained as a whole beside its frozen original: the classifier head, which starts random.

    The copy starts in fp32, whatever the base's dtype, and its outputs are always: a loss wants exact logits.
    """

    def __init__(self, base_layer: nn.Module, trained: nn.Module) -> None:
        super().__init__(base_layer)
        self.trained = trained

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The trained copy's answer, in fp32; switched off, the frozen layer's."""
        return in_its_dtype(self.trained, x, *args, **kwargs) if self.active else self.base_layer(x, *args, **kwargs)


def in_its_dtype(head: nn.Module, x: Tensor, *args: object, **kwargs: object) -> Tensor:
    """What a head answers, in fp32; it is asked in the dtype of its weights, which `model.to(bfloat16)` may change."""
    dtype = next((p.dtype for p in head.parameters()), torch.float32)
    return head(x.to(dtype), *args, **kwargs).float()  # type: ignore[no-any-return]


def initialise_A(lora_A: Tensor, init: str) -> None:
    """Fill A (rank, in_features) in place.

    kaiming: uniform in +-1/sqrt(in_features), so that |A x| does not depend on the layer's width. loralib asks
    `kaiming_uniform_` for it with a = sqrt(5), which turns its usual bound sqrt(6 / ((1 + a^2) fan_in)) into that.
    The fan-in is A's *second* size; taking the first, the rank, makes A sqrt(in / rank) times too large.
    gaussian: normal with standard deviation 1/rank, as PEFT does; the paper says only "random Gaussian".
    """
    rank, in_features = lora_A.shape
    if init == "gaussian":
        nn.init.normal_(lora_A, std=1 / rank)
    else:
        nn.init.uniform_(lora_A, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))


def out_by_in(layer: nn.Module) -> Tensor:
    """The weight of a linear-like layer as a view of shape (out_features, in_features), through any adapters."""
    layer = innermost(layer)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.t() if is_conv1d(layer) else weight


def is_scaled_embedding(layer: nn.Module) -> bool:
    """Whether this is an embedding that computes embed_scale * E[token], as Gemma's and BART's do, and nothing more."""
    plain = isinstance(layer, nn.Embedding) and len(list(layer.parameters())) == 1
    return plain and type(layer).__name__.endswith("ScaledWordEmbedding")


def scale_of(embedding: nn.Module) -> Tensor | float:
    """What an embedding multiplies a vector of its table by, rounded as it rounds it: 1 of a plain one."""
    scale = getattr(embedding, "embed_scale", 1.0)
    return scale.to(embedding.weight.dtype) if isinstance(scale, Tensor) else scale  # type: ignore[arg-type, return-value]


def is_heard(layer: nn.Module) -> bool:
    """Whether a forward hook is told this layer's output, and may keep it: then nothing is added to it in place."""
    return bool(layer._forward_hooks)


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is GPT-2's linear layer, which stores its weight as (in, out). By name: no need to import it."""
    return type(layer).__name__ == "Conv1D"


def is_linear(layer: nn.Module) -> bool:
    """Whether it computes W x + b and no more, as far as known: Falcon's own class only writes that otherwise."""
    return type(layer) is nn.Linear or is_conv1d(layer) or type(layer).__name__ == "FalconLinear"


def site_kind(layer: nn.Module) -> str:
    """What an adapter could be put beside: "linear", "embedding", or "" for nothing.

    Exact types: a subclass may do more than W x + b, unless it says that it does not.
    """
    if is_linear(layer) or getattr(layer, "plain_linear", False):
        return "linear"
    return "embedding" if type(layer) is nn.Embedding or is_scaled_embedding(layer) else ""
