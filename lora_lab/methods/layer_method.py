"""Methods that adapt layers one by one. Each such method is one file, like `bitfit.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_lab.methods.base import Method, Report

if TYPE_CHECKING:
    from torch import Tensor, nn


class Lazy:
    """A module that is imported when its first attribute is used: `torch = Lazy("torch")`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


class LayerMethod(Method):
    """A method that changes what goes into or comes out of single layers: y = after(base_layer(before(x))).

    `places` says which layers, `start` with which parameters. In the other functions, `adapter` is the module in the
    layer's place: its `base_layer`, the parameters and the options from `places` are its attributes.
    """

    def places(self, model: nn.Module) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """The path of each layer, with options for `start`, such as {"out_slice": (0, 32)}.

        Layers that get the same module as an option share what trains in it.
        Raises: BadValue, NotFound if the method does not fit the model.
        """
        raise NotImplementedError

    def start(self, layer: nn.Module, **options: Any) -> Mapping[str, Tensor | nn.Module]:
        """The parameters of a layer's adapter by name, chosen so that at first nothing changes. They train in fp32.

        Tensors that do not train go into a `Frozen`, see `attach.py`.
        """
        raise NotImplementedError

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        """The input of the frozen layer, from x (..., in)."""
        return x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        """The output, from the frozen layer's output y (..., out) and input x (..., in)."""
        return y

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The frozen layer's weight (out, in) and bias (out), in fp32, with the update added."""
        raise NotImplementedError

    def attach(self, model: nn.Module, **more: Any) -> Report:
        """As `Method.attach`; `more` are options for `start` in every layer."""
        from lora_lab.methods.attach import MethodLayer, attach, wrap  # imports torch

        def put_in() -> None:
            for path, options in list(self.places(model)):
                wrap(model, path, partial(MethodLayer, method=self, **options, **more))

        return attach(model, self, put_in)
