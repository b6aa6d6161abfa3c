"""What a method puts into a model: something beside a frozen layer, or something ahead of every row.

    Beside      y = after(base_layer(before(x)))              a trained bias, a factor, a bottleneck
    Ahead       [what is trained | the row's own inputs]      a soft prompt, a prefix of keys and values

Both are `Switched`: they can be switched off, and taken out again, without a word from the method that put them in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.switched import AdaptedLayer, Switched

Own = Mapping[str, Tensor]  # what trains beside a layer, by its name there: (lanes, *shape)


class Beside(AdaptedLayer):
    """A frozen layer whose input or output is changed by something small that trains.

    A subclass says how in `before` or `after`; each keeps the shape of what it is given. Both are written for lanes:
    in a pack the frozen layer works on all rows at once, and each lane's own on its rows; alone is a pack of one.
    """

    def before(self, x: Tensor, own: Own) -> Tensor:
        """The input that the frozen layer gets, (lanes, tokens, in)."""
        return x

    def after(self, y: Tensor, own: Own) -> Tensor:
        """What is made of the frozen layer's output, (lanes, tokens, out)."""
        return y

    def own(self) -> dict[str, Tensor]:
        """What trains here, as that of one lane."""
        return {name: p.unsqueeze(0) for name, p in self.named_parameters() if not name.startswith("base_layer.")}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)
        own = self.own()
        y: Tensor = self.base_layer(_by_lanes(self.before, x, own), *args, **kwargs)
        return _by_lanes(self.after, y, own)


def _by_lanes(way: Callable[[Tensor, Own], Tensor], rows: Tensor, own: Own) -> Tensor:
    """`way` with rows (lanes·n, ..., d) taken lane by lane: (lanes, tokens, d)."""
    lanes = len(next(iter(own.values())))
    return way(rows.reshape(lanes, -1, rows.shape[-1]), own).view(rows.shape)


class Ahead(Switched):
    """Trained vectors that stand ahead of every row of the whole model.

    They act through a forward pre-hook on the model, so they need no layer of their own.
    """

    unmergeable = "stands ahead of every row, and is no part of any weight of the base"

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
    """A frozen layer shared by lanes, each lane's own beside it. Shapes: x (K·rows, ...) -> y (K·rows, ...)."""

    def __init__(self, base_layer: nn.Module, lane: Beside, own: Own) -> None:
        super().__init__(base_layer)
        self.before, self.after, self.own = lane.before, lane.after, own

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        y: Tensor = self.base_layer(_by_lanes(self.before, x, self.own), *args, **kwargs)
        return _by_lanes(self.after, y, self.own)


class PackedAhead(Ahead):
    """Each lane's own vectors ahead of its own rows."""

    def __init__(self, lanes: list[Ahead]) -> None:
        super().__init__()
        self.lanes = nn.ModuleList(lanes)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return torch.cat([lane.vectors(rows // len(self.lanes), dtype) for lane in self.lanes])  # type: ignore[operator]

    def prepend(self, model: nn.Module, call: dict[str, Any], vectors: Tensor) -> dict[str, Any]:
        return self.lanes[0].prepend(model, call, vectors)  # type: ignore[operator]
