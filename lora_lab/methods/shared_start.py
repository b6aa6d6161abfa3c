"""Where lanes of a pack read the same rows, the frozen start of the model is computed once for all of them.

    ids (K·rows, tokens)  ->  embeddings  ->  W_q x, W_k x, W_v x of the first layer

Up to there nothing depends on a lane but its rows, and those are the same for lanes of one seed, and for all lanes when
a split is scored. What LoRA adds to q and v comes after. Of a model with six layers that is 4 % of a forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.methods.attach import put
from lora_lab.switched import AdaptedLayer, innermost

KINDS = ("bert", "roberta", "xlm-roberta")


class SharedEmbeddings(nn.Module):
    """Embeddings of the different rows only; `first[k]` is the first lane whose rows are those of lane k."""

    def __init__(self, embeddings: nn.Module, lanes: int) -> None:
        super().__init__()
        self.embeddings, self.lanes = embeddings, lanes
        self.first: list[int] = list(range(lanes))

    @property
    def alike(self) -> bool:
        """Whether all lanes read the same rows in the batch at hand."""
        return not any(self.first)

    @property
    def word_embeddings(self) -> nn.Module:
        """The table of words, which is asked for from outside where a soft prompt goes before it."""
        return self.embeddings.word_embeddings  # type: ignore[return-value]

    def forward(self, input_ids: Tensor | None = None, token_type_ids: Tensor | None = None, **kwargs: Any) -> Tensor:
        """input_ids and token_type_ids (K·rows, tokens) -> (K·rows, tokens, d)."""
        if input_ids is None:
            self.first = list(range(self.lanes))
            return self.embeddings(token_type_ids=token_type_ids, **kwargs)  # type: ignore[no-any-return]
        read = input_ids if token_type_ids is None else torch.stack([input_ids, token_type_ids], dim=1)
        parts = read.chunk(self.lanes)
        self.first = [next(j for j in range(k + 1) if torch.equal(parts[j], parts[k])) for k in range(self.lanes)]
        if self.alike and not any(isinstance(value, Tensor) and len(value) > 1 for value in kwargs.values()):
            ids, types = (None if t is None else t.chunk(self.lanes)[0] for t in (input_ids, token_type_ids))
            once: Tensor = self.embeddings(input_ids=ids, token_type_ids=types, **kwargs)
            return once.repeat(self.lanes, 1, 1)
        return self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, **kwargs)  # type: ignore[no-any-return]


class SharedProduct(nn.Module):
    """A frozen layer right after the embeddings: one product for lanes that read the same rows."""

    def __init__(self, base_layer: nn.Module, start: SharedEmbeddings) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.start = [start]  # in a list: it is no part of this layer

    def forward(self, x: Tensor) -> Tensor:
        """x (K·rows, ..., in) -> (K·rows, ..., out)."""
        lanes, first = self.start[0].lanes, self.start[0].first
        different = sorted(set(first))
        if len(different) == lanes:
            return self.base_layer(x)  # type: ignore[no-any-return]
        by_lane = x.reshape(lanes, -1, *x.shape[1:])
        y: Tensor = self.base_layer(by_lane[different] if len(different) > 1 else by_lane[0])
        if len(different) == 1:
            return y.repeat(lanes, *[1] * (y.dim() - 1))
        return y[[different.index(k) for k in first]].flatten(0, 1)


def share_start(model: nn.Module, lanes: int) -> None:
    """Let an encoder of BERT's kind compute its start once for lanes with the same rows; others are left alone.

    A start in which something trains, as biases do, is left alone too.
    """
    config: Any = getattr(model, "config", None)
    body: Any = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if getattr(config, "model_type", "") not in KINDS or not hasattr(body, "encoder"):
        return
    if any(isinstance(module, AdaptedLayer) for module in body.embeddings.modules()):
        return
    body.embeddings = SharedEmbeddings(body.embeddings, lanes)
    attention = body.encoder.layer[0].attention.self
    for name in ("query", "key", "value"):
        layer = getattr(attention, name)
        if type(innermost(layer)) is nn.Linear and type(layer).__name__ in ("Linear", "PackedLoRA"):
            if isinstance(layer, AdaptedLayer):
                layer.base_layer = SharedProduct(layer.base_layer, body.embeddings)
            else:
                put(attention, name, SharedProduct(layer, body.embeddings))
