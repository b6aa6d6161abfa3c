"""The module that every method puts around a frozen layer, and how to find the frozen layer inside."""

from __future__ import annotations

from torch import Tensor, nn


class AdapterLayer(nn.Module):
    """A frozen layer with something trained beside it.

    enabled       False: the output is the frozen layer's own
    merged        True: the update is in the weights of a copy, which replaces the frozen layer
    original      while merged, the frozen layer itself; in a tuple, so that it is not a submodule
    tied          while merged, whether the original shares its weight with another layer
    head          whether it replaces the task's head
    unmergeable   why there are no `merged_weights`, such as "has a nonlinearity in its middle"
    """

    head = tied = False
    unmergeable = ""
    original: tuple[nn.Module, ...] = ()

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.enabled, self.merged = True, False

    @property
    def active(self) -> bool:
        """Whether something is added to the frozen layer's output."""
        return self.enabled and not self.merged

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The frozen layer's weight (out, in) and bias (out), in fp32, with the update added."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The frozen layer's: T5 asks its layers for their dtype."""
        return innermost(self).weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """Its own, if the method trains one; else the frozen layer's."""
        return self._parameters["bias"] if "bias" in self._parameters else innermost(self).bias  # type: ignore[return-value]


def innermost(layer: nn.Module) -> nn.Module:
    """The layer inside any adapters: the frozen one or, while they are merged, the copy that replaces it."""
    while isinstance(layer, AdapterLayer):
        layer = layer.base_layer
    return layer


def out_by_in(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as (out, in), a view: `Conv1D` stores (in, out)."""
    layer = innermost(layer)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.t() if is_conv1d(layer) else weight


def is_conv1d(layer: nn.Module) -> bool:
    """Whether this is GPT-2's linear layer. By name, so that transformers need not be imported."""
    return type(layer).__name__ == "Conv1D"
