"""The base class for all adapters, which wrap frozen layers, and functions that find the frozen layer."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks


class AdapterLayer(nn.Module):
    """A frozen layer with trainable parameters beside it.

    enabled       If False, the output is that of the frozen layer alone.
    merged        If True, the frozen layer is replaced by a copy whose weights include the update.
    original      While merged, a tuple with the frozen layer, so that torch doesn't register the layer as a submodule.
    tied          While merged, whether the frozen layer shares its weight with another layer.
    out_slice     A (start, stop) pair if only these outputs are adapted.
    head          Whether this layer replaces the task head.
    strength      The factor by which `at_strength` currently multiplies the update.
    unmergeable   Why the update cannot be merged, such as "contains a nonlinearity", or "" if it can be merged.
    """

    head = tied = False
    strength = 1.0
    unmergeable = ""
    original: tuple[nn.Module, ...] = ()
    out_slice: tuple[int, int] | None = None
    _tied_weights_keys: ClassVar = {"": ""}  # some layers share parameters, which transformers saves only once

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.enabled, self.merged = True, False

    @property
    def active(self) -> bool:
        """Whether the adapter changes the frozen layer's output."""
        return self.enabled and not self.merged

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the frozen layer's fp32 `weight` (out, in) and `bias` (out) with the update added."""
        raise NotImplementedError

    def frozen_weight(self) -> Tensor:
        """Return a view of the original weight (out, in), without the update, even if the update is merged."""
        layer: Any = self
        while isinstance(layer, AdapterLayer):  # within `disabled`, the original is the base layer again
            layer = layer.original[0] if layer.original and layer.enabled else layer.base_layer
        weight = out_by_in(layer)
        return weight[slice(*self.out_slice)] if self.out_slice else weight

    @property
    def weight(self) -> Tensor:
        """The frozen layer's weight. T5's code reads its dtype."""
        return innermost(self).weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The trained bias if the method has one, otherwise the frozen layer's bias."""
        return self._parameters["bias"] if "bias" in self._parameters else innermost(self).bias  # type: ignore[return-value]


def has_hook(layer: nn.Module) -> bool:
    """Return whether a hook on this layer, or a global hook on all modules, may keep the layer's output."""
    return bool(layer._forward_hooks or _global_forward_hooks)


def innermost(layer: nn.Module) -> nn.Module:
    """Return the layer inside all adapters: the frozen layer or, while merged, the copy that replaces it."""
    while isinstance(layer, AdapterLayer):
        layer = layer.base_layer
    return layer


def out_by_in(layer: nn.Module) -> Tensor:
    """Return a view of a linear layer's weight as (out, in). `Conv1D` stores the weight as (in, out)."""
    layer = innermost(layer)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.t() if is_conv1d(layer) else weight


def is_conv1d(layer: nn.Module) -> bool:
    """Return whether a layer is GPT-2's `Conv1D`. The check compares names, to avoid importing transformers."""
    return type(layer).__name__ == "Conv1D"
