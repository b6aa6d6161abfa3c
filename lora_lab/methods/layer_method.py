"""Base class of methods that adapt single layers. Each such method is one file, like `bitfit.py`.

Methods import torch, and what imports it, from here, so that they can be created without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lora_lab.lazy import Lazy
from lora_lab.methods.base import Method, Report

__all__ = ["F", "LayerMethod", "adapter_layer", "attach", "lora_layers", "peft", "torch"]


if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from lora_lab import adapter_layer
    from lora_lab.methods import attach, lora_layers, peft
else:
    torch, F, adapter_layer = map(Lazy, ("torch", "torch.nn.functional", "lora_lab.adapter_layer"))
    attach, lora_layers, peft = (Lazy(f"lora_lab.methods.{name}") for name in ("attach", "lora_layers", "peft"))


class LayerMethod(Method):
    """A method that changes the input or output of single layers: y = after(base_layer(before(x))).

    `places` selects the layers and `start` creates their parameters. In the other methods, `adapter` is the module that
    replaces the layer; `base_layer`, the parameters and the options from `places` are its attributes.
    """

    def places(self, model: nn.Module) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the path of each layer with options for `start`, such as {"out_slice": (0, 32)}.

        Layers given the same module as an option share its trainable parameters.
        Raises: BadValue, NotFound if the method does not fit the model.
        """
        raise NotImplementedError

    def start(self, layer: nn.Module, **options: Any) -> Mapping[str, Tensor | nn.Module]:
        """Return a layer's trainable parameters by name. They train in fp32 and must not change the initial output.

        Put tensors that do not train into a `Frozen`; see `attach.py`.
        """
        raise NotImplementedError

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        """Return the input for the frozen layer, given x (..., in)."""
        return x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        """Return the output, given the frozen layer's output y (..., out) and input x (..., in)."""
        return y

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the frozen layer's weight (out, in) and bias (out), given in fp32, with the update added."""
        raise NotImplementedError

    def attach(self, model: nn.Module, **common: Any) -> Report:
        """Like `Method.attach`; `common` options are passed to `start` for every layer."""

        def insert() -> None:
            for path, options in list(self.places(model)):
                attach.wrap(model, path, partial(attach.MethodLayer, method=self, **options, **common))

        return attach.attach(model, self, insert)
