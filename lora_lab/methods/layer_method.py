"""Methods that change what goes into or comes out of frozen layers:

    y = after(base_layer(before(x)))

Such a method says where (`places`), with which parameters (`start`) and how (`before`, `after`). From that alone it is
attached, counted, saved, loaded and, with `packs`, trained side by side with other runs; with `merged_weights` it is
merged, too. A stranger's method is one file like `bitfit.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_lab.methods.base import Method, Report

if TYPE_CHECKING:
    from torch import Tensor, nn


class Lazy:
    """A module that is imported with its first attribute: `torch = Lazy("torch")`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


class LayerMethod(Method):
    """A method that adapts layers one by one. In `before`, `after` and `merged_weights`, `adapter` is what stands in
    the layer's place: its `base_layer`, the parameters and what `places` said of it are attributes.
    """

    def places(self, model: nn.Module) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """The path of each layer to adapt, and what is said of it to `start`, such as {"out_slice": (0, 32)}.

        A module that is said of several layers is shared by them, and so is what trains in it.
        Raises: BadValue, NotFound where the method does not fit the model.
        """
        raise NotImplementedError

    def start(self, layer: nn.Module, **told: Any) -> Mapping[str, Tensor | nn.Module]:
        """The parameters beside a layer, by name, so that at first nothing changes. They train in fp32.

        What shall not train goes into a `Frozen`, see `attach.py`.
        """
        raise NotImplementedError

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        """The input that the frozen layer gets instead of x (..., in)."""
        return x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        """What is made of the frozen layer's output y (..., out), given its input x (..., in)."""
        return y

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The frozen layer's weight (out, in) and bias (out), in fp32, with the update in them."""
        raise NotImplementedError

    def attach(self, model: nn.Module, **more: Any) -> Report:
        """As `Method.attach`; more is said of every layer, such as to_fill=True where a file will bring the numbers."""
        from lora_lab.methods.attach import MethodLayer, attach, refuse_adapted  # imports torch

        refuse_adapted(model)
        parts = [(path, partial(MethodLayer, method=self, **told, **more)) for path, told in self.places(model)]
        return attach(model, self, parts)
