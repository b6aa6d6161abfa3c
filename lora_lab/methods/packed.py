"""K adapters side by side on one frozen base: their rows stand in one batch, their matrices in one tensor.

    x (K·rows, tokens, in)           the rows of lane 0, then those of lane 1, ...
    y = W x + b                      one product for all lanes, for they share W
    y[k] += scaling_k B_k A_k x[k]   two batched products: A (K, R, in), B (K, R, out)

R is the largest rank of any lane. Smaller ones are filled up with zeros, and stay so: a zero row of A meets a zero row
of B, so both have a gradient of exactly zero. A lane that does not adapt a layer is all zeros there.

All that trains lies in one table with a row for each lane; A and B of a layer are a block of its columns. Each lane is
a plain model too, with its method attached as if it were alone (`share`, then `method.attach`): its parameters are made
views into its row, and so are their gradients. So `save_adapter` sees an ordinary adapter, the optimizer one long
tensor, and nothing is copied back and forth. PLoRA (Yan et al. 2025) trains many adapters likewise.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import (
    Ahead,
    MethodLayer,
    TrainedCopy,
    adapter_layers,
    adapters,
    in_its_dtype,
    own_parameters,
    plain_path,
    put,
    report_of,
)
from lora_lab.methods.lora_layers import LoRAEmbedding

# The blocks of a table are no dense pieces of memory, which torch remarks upon once; nothing is the slower for it.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

Slot = tuple[str, tuple[int, int] | None]  # a layer's path, and which of its outputs
Room = dict[Slot, tuple[int, int, int]]  # R, in, outputs that are adapted: what a slot takes in the table


def share(model: nn.Module) -> nn.Module:
    """A second model on the same weights: its own modules, so that it can be adapted alone, and hardly any memory."""
    return copy.deepcopy(model, {id(t): t for t in chain(model.parameters(), model.buffers())})


def pack(
    base: nn.Module, lanes: Sequence[nn.Module], streams: Sequence[Stream], room: Room | None = None
) -> tuple[nn.Module, Table]:
    """One model that answers for all lanes: rows of lane 0 first, then lane 1's, ...; equally many of each.

    base      the plain model that every lane is a `share` of
    lanes     each with a method of the same kind attached; their parameters become views into the table returned
    streams   the random numbers of each lane
    room      `room_of` a larger set of lanes, so that tables of its subsets have the same layout
    Raises: BadValue for a base whose layers read more than the lanes' rows.
    """
    _check_reads_rows(base, lanes)
    model, slots = share(base), _by_slot(lanes)
    room = room or room_of(lanes)
    others = [_others(lane) for lane in lanes]
    table = Table(room, len(lanes), [p.shape for p in others[0].values()], next(iter(others[0].values()), None))
    for slot, (rank, inputs, outputs) in room.items():
        a, b = table.take((rank, inputs)), table.take((rank, outputs))
        if slot in slots:
            put(model, slot[0], PackedLoRA(model.get_submodule(slot[0]), slots[slot], streams, a, b))
    blocks = {name: table.take(p.shape) for name, p in others[0].items()}
    for name, block in blocks.items():
        for k, parameters in enumerate(others):
            _alias(parameters[name], *(t[k] for t in both(block)))
    _pack_others(model, lanes, streams, {id(p): blocks[name] for name, p in others[0].items()})
    return model, table


def _check_reads_rows(base: nn.Module, lanes: Sequence[nn.Module]) -> None:
    """Raises BadValue where lanes adapt DeBERTa's layers, which read its table of relative positions as well."""
    adapted = (part for lane in lanes for _, part in adapter_layers(lane) if not isinstance(part, TrainedCopy))
    if getattr(getattr(base, "config", None), "relative_attention", False) and any(True for _ in adapted):
        said = f"the layers of this {type(base).__name__} also read its table of relative positions"
        raise BadValue(f"{said}, which is no run's own: train its runs one after the other, with --solo")


def _pack_others(
    model: nn.Module, lanes: Sequence[nn.Module], streams: Sequence[Stream], blocks: Mapping[int, nn.Parameter]
) -> None:
    """Heads and vectors ahead of rows, which lanes keep as modules of their own, and what all have beside a layer.

    blocks   by the id of the first lane's parameter, which may have several names: layers can share it
    """
    for path, part in reversed(list(adapters(lanes[0]))):  # of two around one layer, the inner one first
        place = plain_path(path)
        if isinstance(part, LoRALinear):
            continue  # lanes may adapt different layers, and then the same path leads elsewhere
        each: list[Any] = [lane.get_submodule(path) for lane in lanes]
        if isinstance(part, TrainedCopy):
            put(model, place, PackedHead(each, streams))
        elif isinstance(part, Ahead):
            PackedAhead(each).register(model, place)
        elif isinstance(part, MethodLayer):
            own = {name: blocks[id(p)] for name, p in own_parameters(part)}
            put(model, place, PackedMethodLayer(model.get_submodule(place), part, own))


class Table:
    """All that trains in a pack: `numbers` and `gradients`, each (lanes, N) in fp32, handed out block by block."""

    def __init__(self, room: Room, lanes: int, others: Sequence[torch.Size], like: Tensor | None) -> None:
        width = sum(rank * (i + o) for rank, i, o in room.values()) + sum(shape.numel() for shape in others)
        device = like.device if like is not None else None
        self.room, self._taken = room, 0
        self.numbers = torch.zeros(lanes, width, device=device)
        self.gradients = torch.zeros_like(self.numbers)

    def take(self, shape: Sequence[int]) -> nn.Parameter:
        """The next columns as a parameter (lanes, *shape), its gradient the same columns of `gradients`."""
        columns = slice(self._taken, self._taken + math.prod(shape))
        self._taken = columns.stop
        block = nn.Parameter(self.numbers[:, columns].view(-1, *shape))
        block.grad = self.gradients[:, columns].view(-1, *shape)
        return block


class Stream:
    """One lane's random numbers, beginning where `torch.manual_seed(seed)` begins.

    Inside `drawing` torch's own generator goes on where the lane left it, so dropout draws for a lane what it would
    draw if it were alone. `width`: tokens of the lane's own rows in the batch at hand; None for all there are.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.torch: Any = torch.random if device == "cpu" else torch.get_device_module(device)
        self.state: Tensor = torch.Generator(device).manual_seed(seed).get_state()
        self.width: int | None = None

    def note(self) -> None:
        """Take down where torch's generator stands: it draws for this lane alone."""
        self.state = self.torch.get_rng_state()

    def go_on(self) -> None:
        """Let torch's generator go on from there."""
        self.torch.set_rng_state(self.state)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Random numbers are the lane's own inside the block."""
        before = self.torch.get_rng_state()
        self.torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = self.torch.get_rng_state()
            self.torch.set_rng_state(before)


class PackedLoRA(AdapterLayer):
    """y = W x + b, and to lane k's rows of y scaling_k B_k A_k dropout_k(x) is added.

    Shapes: x (K·rows, tokens, in) -> y (K·rows, tokens, out); A (K, R, in), B (K, R, outputs that are adapted).
    """

    def __init__(
        self, base_layer: nn.Module, lanes: Sequence[LoRALinear | None], streams: Sequence[Stream],
        a: nn.Parameter, b: nn.Parameter,
    ) -> None:  # fmt: skip
        super().__init__(base_layer)
        first = next(lane for lane in lanes if lane is not None)
        self.in_features, self.out_features, self.out_slice = first.in_features, first.out_features, first.out_slice
        self.A, self.B = a, b
        scaling = torch.zeros(len(lanes), 1, 1, device=first.lora_A.device)
        for k, lane in enumerate(lanes):
            if lane is not None:
                scaling[k] = lane.scaling
                _alias(lane.lora_A, *(t[k, : lane.rank] for t in both(self.A)))
                _alias(lane.lora_B, *(t[k, : lane.rank].t() for t in both(self.B)))
        self.scaling: Tensor
        self.register_buffer("scaling", scaling)
        self.dropouts = [lane.dropout if lane is not None else None for lane in lanes]
        self.streams, self.drops = streams, any(isinstance(d, nn.Dropout) for d in self.dropouts)

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base_layer(x)  # type: ignore[no-any-return]
        lanes = len(self.A)
        y = self.base_layer(x.reshape(-1, self.in_features)).view(lanes, -1, self.out_features)  # (K, tokens, out)
        a, b = self.A.to(y.dtype), (self.scaling * self.B).to(y.dtype)
        tokens = self._dropped(x) if self.drops and self.training else x
        h = torch.bmm(tokens.reshape(lanes, -1, self.in_features).to(y.dtype), a.transpose(1, 2))  # (K, tokens, R)
        if self.out_slice:
            y = y.clone()
            y[..., slice(*self.out_slice)].baddbmm_(h, b)
        else:
            apart = torch.is_grad_enabled() or bool(self.base_layer._forward_hooks)  # else in place
            add_into = y.baddbmm if apart else y.baddbmm_
            y = add_into(h, b)
        return y.view(*x.shape[:-1], self.out_features)

    def _dropped(self, x: Tensor) -> Tensor:
        """Each lane's dropout on its own rows, drawn at their own width; what stands beyond it is padding."""
        parts = []
        for part, dropout, stream in zip(x.chunk(len(self.A)), self.dropouts, self.streams, strict=True):
            own = part[:, : stream.width]
            if isinstance(dropout, nn.Dropout):
                with stream.drawing():
                    own = F.dropout(own.reshape(-1, self.in_features), dropout.p).view_as(own)
            parts.append(torch.cat([own, part[:, own.shape[1] :]], dim=1))
        return torch.cat(parts)


class PackedHead(AdapterLayer):
    """Each lane's own head on its own rows: small products, so they are done one after the other."""

    head = True

    def __init__(self, heads: Sequence[TrainedCopy], streams: Sequence[Stream]) -> None:
        super().__init__(heads[0].base_layer)
        self.heads, self.streams = nn.ModuleList(head.trained for head in heads), streams
        self.frozen = nn.ModuleList(head.base_layer for head in heads)  # lanes of different seeds have different ones
        self.drops = any(isinstance(m, nn.Dropout) and m.p for m in self.heads.modules())

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return torch.cat([head(part) for head, part in zip(self.frozen, x.chunk(len(self.frozen)), strict=True)])
        parts = zip(self.heads, x.chunk(len(self.heads)), self.streams, strict=True)
        return torch.cat([self._answer(head, part, stream) for head, part, stream in parts])

    def _answer(self, head: nn.Module, part: Tensor, stream: Stream) -> Tensor:
        if not (self.drops and self.training):
            return in_its_dtype(head, part)
        with stream.drawing():
            return in_its_dtype(head, part)


class PackedMethodLayer(AdapterLayer):
    """A frozen layer shared by lanes, each lane's own parameters beside it. Shapes: x (K·rows, ...) -> y (K·rows, ...).

    own   the parameters of all lanes by name, each (K, *shape)
    """

    def __init__(self, base_layer: nn.Module, first: MethodLayer, own: Mapping[str, nn.Parameter]) -> None:
        super().__init__(base_layer)
        self.lanes, self.own = len(next(iter(own.values()))), {f"adapter.{name}": block for name, block in own.items()}
        self.parts = [_Half(first, first.method.before), _Half(first, first.method.after)]  # of no lane: not registered

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        before, after = self.parts
        y: Tensor = self.base_layer(self._each(before, x), *args, **kwargs)
        return self._each(after, y, x)

    def _each(self, part: nn.Module, *rows: Tensor) -> Tensor:
        """What the part of each lane makes of its own rows."""
        parted = [one.view(self.lanes, -1, *one.shape[1:]) for one in rows]
        done: Tensor = vmap(lambda own, *given: functional_call(part, own, given))(self.own, *parted)
        return done.flatten(0, 1)


class _Half(nn.Module):
    """What a method does before or after the frozen layer, as a module, so that `functional_call` can fill it."""

    def __init__(self, adapter: MethodLayer, way: Callable[..., Tensor]) -> None:
        super().__init__()
        self.adapter, self.way = adapter, way

    def forward(self, *rows: Tensor) -> Tensor:
        return self.way(self.adapter, *rows)


class PackedAhead(Ahead):
    """Each lane's own vectors ahead of its own rows."""

    def __init__(self, lanes: list[Ahead]) -> None:
        super().__init__(lanes[0].method, {})
        self.lanes = nn.ModuleList(lanes)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return torch.cat([lane.vectors(rows // len(self.lanes), dtype) for lane in self.lanes])  # type: ignore[operator]


def _by_slot(lanes: Sequence[nn.Module]) -> dict[Slot, list[LoRALinear | None]]:
    """What each lane has at each place that any lane adapts; None where a lane has nothing."""
    found: dict[Slot, list[LoRALinear | None]] = {}
    for k, lane in enumerate(lanes):
        for path, layer in adapter_layers(lane):
            if isinstance(layer, LoRALinear):
                slot = (plain_path(path), layer.out_slice)
                found.setdefault(slot, [None] * len(lanes))[k] = layer
    return found


def room_of(lanes: Sequence[nn.Module]) -> Room:
    """What each slot takes: as many rows as the largest rank there."""
    there = {slot: [layer for layer in layers if layer is not None] for slot, layers in _by_slot(lanes).items()}
    return {
        slot: (max(layer.rank for layer in layers), layers[0].in_features, layers[0].lora_B.shape[0])
        for slot, layers in there.items()
    }


def drops(lane: nn.Module) -> bool:
    """Whether the trained part of a lane uses dropout."""
    return any(isinstance(m, nn.Dropout) and m.p for _, part in adapters(lane) for m in part.modules())


def _others(lane: nn.Module) -> dict[str, nn.Parameter]:
    """What trains in a lane besides A and B: its head, its prompt, what is beside a layer."""
    return {
        name: p
        for name, p in lane.named_parameters()
        if p.requires_grad and name.rpartition(".")[2] not in ("lora_A", "lora_B")
    }


def both(block: nn.Parameter) -> tuple[Tensor, Tensor]:
    """The numbers of a block and their gradients."""
    assert block.grad is not None
    return block.data, block.grad


def _alias(parameter: Tensor, numbers: Tensor, gradients: Tensor) -> None:
    """Make a lane's parameter a view of these numbers, with the values that it had, and its gradient one of those."""
    numbers.copy_(parameter.data)
    parameter.grad = None
    parameter.data, parameter.grad = numbers, gradients


def can_pack(model: nn.Module) -> bool:
    """Whether what is attached to a lane can stand in a pack: a method that packs, no adapted embedding, all fp32."""
    embeddings = any(isinstance(layer, LoRAEmbedding) for _, layer in adapter_layers(model))
    whole = all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    return report_of(model).method.packs and whole and not embeddings
