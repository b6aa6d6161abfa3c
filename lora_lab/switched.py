"""What a method puts into a model: it can be switched off, taken out and, where a weight can hold it, merged.

    Switched        enabled = False switches it off; take_out removes it
    AdaptedLayer    one beside a frozen layer, which it calls base_layer
    Mergeable       one whose frozen layer could compute the same: merge writes its numbers, unmerge takes them back

Which layers there are and what they compute is elsewhere: LoRA's in `layers.py`, the other methods' in `methods/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue

Fold = tuple[Tensor, Tensor]  # a frozen tensor or a view of it, and what is to stand there, of the same shape


class Switched(nn.Module):
    """Something trained that was put into a model: `enabled = False` switches it off, `take_out` removes it."""

    unmergeable: ClassVar[str] = "computes what no weight of the base could"  # why not, of those that are not Mergeable

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def take_out(self, model: nn.Module, path: str) -> None:
        """Leave `model`, in which this stands at `path`, as it was before."""
        raise NotImplementedError


class AdaptedLayer(Switched):
    """A frozen layer with something trained beside it, which can be switched off.

    `enabled = False` gives back the frozen layer's own output; `merged` says that the update lies inside the weight.
    """

    base_layer: nn.Module

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged = False

    def take_out(self, model: nn.Module, path: str) -> None:
        """Put the frozen layer back where it stood."""
        model.set_submodule(path, self.base_layer)

    @property
    def weight(self) -> Tensor:
        """The frozen layer's: model code asks the layer that it knows for it, T5 to learn what dtype to send there."""
        return innermost(self).weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """Likewise the frozen layer's."""
        return innermost(self).bias  # type: ignore[return-value]

    @property
    def active(self) -> bool:
        """Whether the forward pass has to add anything to the frozen layer."""
        return self.enabled and not self.merged


class Mergeable(AdaptedLayer, ABC):
    """An adapted layer that computes what the frozen one would with other numbers: they can be written into it."""

    moves_weight: ClassVar[bool] = True  # and not the bias alone
    _aside: tuple[nn.Module, ...] = ()  # the frozen layer while another stands in; in a tuple it is no part of this one

    @property
    def undoable(self) -> bool:
        """Whether merging loses nothing but a rounding: what was multiplied by 0 is gone."""
        return True

    @abstractmethod
    def folded(self) -> list[Fold]:
        """Each frozen tensor that merging changes, and what it becomes, in fp32."""

    @abstractmethod
    def unfolded(self) -> list[Fold]:
        """The same tensors of a merged layer, and what they were."""

    @torch.no_grad()
    def merge(self, watch: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """Write the update into the frozen layer, so that the forward pass costs what it did without an adapter.

        watch   is told each frozen tensor and what it is to become, before it is written
        Raises: BadValue, before anything is written, for what the frozen layer cannot hold.
        """
        if self.merged:
            return
        if self.moves_weight and hasattr(innermost(self), "dequantized"):
            raise BadValue("cannot merge into codes of a few bits: merge(model) puts a plain layer in their place")
        folds = self.folded()
        for frozen, new in folds:
            _check(frozen, new)
        for frozen, new in folds:
            if watch:
                watch(frozen, new)
            frozen.copy_(new)
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again; exact up to one rounding in the frozen tensor's dtype."""
        if self.merged:
            for frozen, old in self.unfolded():
                frozen.copy_(old)
            self.merged = False

    def stand_in(self, layer: nn.Module) -> None:
        """Let `layer` be merged into in the place of the frozen one, which is kept as it is."""
        self._aside, self.base_layer = (self.base_layer,), layer

    @property
    def stood_in_for(self) -> bool:
        """Whether another layer is in the frozen one's place."""
        return bool(self._aside)

    def put_back(self) -> nn.Module | None:
        """Put the frozen layer that was stood in for where it was; returns it, None where there was no stand-in."""
        if not self._aside:
            return None
        (self.base_layer,), self._aside = self._aside, ()
        return self.base_layer


def _check(frozen: Tensor, new: Tensor) -> None:
    """Raises BadValue where `new` cannot be written into `frozen`."""
    if not frozen.is_floating_point():
        raise BadValue(f"cannot merge into a weight of {frozen.dtype}: load the base in fp32 or bf16 first")
    if not new.to(frozen.dtype).isfinite().all():
        why = "the adapter holds NaN or infinity" if not new.isfinite().all() else f"{frozen.dtype} cannot hold it"
        raise BadValue(f"cannot merge: the merged weight would not be finite, for {why}")


def innermost(layer: nn.Module) -> nn.Module:
    """The frozen layer itself, through any adapters around it."""
    while isinstance(layer, AdaptedLayer):
        layer = layer.base_layer
    return layer
