"""What a method puts into a model: something beside a frozen layer, or something ahead of every row.

    Beside      y = after(base_layer(before(x)))              a trained bias, a factor, a bottleneck
    Ahead       [what is trained | the row's own inputs]      a soft prompt, a prefix of keys and values

Both are `Switched`: they can be switched off, and taken out again, without a word from the method that put them in.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.layers import AdaptedLayer, Switched

__all__ = ["Ahead", "Beside", "Switched"]


class Beside(AdaptedLayer):
    """A frozen layer whose input or output is changed by something small that trains.

    A subclass says how in `before` or `after`; each keeps the shape of what it is given. In a pack each lane's own
    works on the rows of that lane, and the frozen layer on all of them at once.
    """

    def before(self, x: Tensor) -> Tensor:
        """The input that the frozen layer gets, (..., in)."""
        return x

    def after(self, y: Tensor) -> Tensor:
        """What is made of the frozen layer's output, (..., out)."""
        return y

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)
        return self.after(self.base_layer(self.before(x), *args, **kwargs))


class Ahead(Switched):
    """Trained vectors that stand ahead of every row of the whole model.

    They act through a forward pre-hook on the model, so they need no layer of their own.
    """

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        """What stands ahead of each of so many rows, (rows, ...)."""
        raise NotImplementedError

    def prepend(self, model: nn.Module, call: dict[str, Any], vectors: Tensor) -> dict[str, Any]:
        """The model's keyword arguments, `input_ids` (rows, tokens) among them, with the vectors ahead of them."""
        raise NotImplementedError

    def hang(self, model: nn.Module, name: str) -> None:
        """Become `model.<name>` and act on all that is put into the model."""
        setattr(model, name, self)
        self.hook = model.register_forward_pre_hook(partial(_prepended, name), with_kwargs=True)

    def take_out(self, model: nn.Module, path: str) -> None:
        """Remove the hook and the vectors."""
        self.hook.remove()
        delattr(model, path)


def _prepended(name: str, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    # Found by name: a pack hangs all lanes' vectors where one lane's own were.
    ahead: Ahead = getattr(model, name)
    if not ahead.enabled:
        return None
    call = {**dict(zip(inspect.signature(model.forward).parameters, args, strict=False)), **kwargs}
    rows = next(len(call[given]) for given in ("input_ids", "inputs_embeds") if call.get(given) is not None)
    dtype = model.get_input_embeddings().weight.dtype  # type: ignore[operator]
    return (), ahead.prepend(model, call, ahead.vectors(rows, dtype))


class PackedBeside(AdaptedLayer):
    """A frozen layer shared by lanes, each lane's own part beside it. Shapes: x (K·rows, ...) -> y (K·rows, ...)."""

    def __init__(self, base_layer: nn.Module, lanes: list[Beside]) -> None:
        super().__init__(base_layer)
        self.lanes = nn.ModuleList(lanes)
        kind = type(lanes[0])
        self.befores = [lane.before for lane in lanes] if kind.before is not Beside.before else []
        self.afters = [lane.after for lane in lanes] if kind.after is not Beside.after else []

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = self.base_layer(_each(self.befores, x), *args, **kwargs)
        return _each(self.afters, y)


class PackedAhead(Ahead):
    """Each lane's own vectors ahead of its own rows."""

    def __init__(self, lanes: list[Ahead]) -> None:
        super().__init__()
        self.lanes = nn.ModuleList(lanes)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return torch.cat([lane.vectors(rows // len(self.lanes), dtype) for lane in self.lanes])  # type: ignore[operator]

    def prepend(self, model: nn.Module, call: dict[str, Any], vectors: Tensor) -> dict[str, Any]:
        return self.lanes[0].prepend(model, call, vectors)  # type: ignore[operator]


def _each(ways: list[Any], whole: Tensor) -> Tensor:
    """Each lane's way with its own rows of `whole`; all of it where lanes have none."""
    if not ways:
        return whole
    return torch.cat([way(part) for way, part in zip(ways, whole.chunk(len(ways)), strict=True)])
