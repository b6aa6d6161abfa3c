"""A layer with many adapters, of which one answers; or, in a mixed batch, each row's own.

    one         y = W x + s B A x          the chosen adapter's layer as it is: choosing sets a name, and moves nothing
    mixed       y = W x                    one product for all rows, for they share W
                y[g] += B[g] A[g] x[g]     two batched products over groups of rows

Neighbouring rows with the same adapter make a group, as far as all groups can be equally long: 16 rows of one adapter
are one group, 16 rows in any order 16 groups of one. All [A | B] of a layer lie one below the other in one matrix (sum
of ranks, in + out); a batch picks its groups' rows from it, and what is missing to the largest rank is a row of zeros.
So ranks may differ, and an adapter that leaves this layer alone is all zeros here.

What is picked goes into memory that all layers share, which is in the cache still: each layer's own took 4 % of a
batch longer. Only where the rows are those of the batch before, as in generation, does a layer keep its own.

Other ways, measured on layers of MiniLM (16 adapters of rank 8, a row each; fp32 and bf16, one core): one wide product
with all adapters, masked, takes 1.3 to 1.6 times as long; a loop over them up to 1.3, and 2.4 with one token a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import AdapterLayer, LoRALinear
from lora_lab.methods.lora_files import one_for_all_slices
from lora_lab.methods.lora_layers import DoRALinear

Name = str | None  # of an adapter; None is the base alone
Spans = tuple[tuple[str, int, int], ...]  # for each adapter of a layer, its first row in the stack, and its rank
Pair = tuple[Tensor, Tensor]  # A (rank, in) and B (rank, out), the scaling in it


@dataclass(frozen=True)
class Rows:
    """The adapter of each row of a batch."""

    names: tuple[Name, ...]
    picks: dict[str, Tensor] = field(default_factory=dict, compare=False)  # layers with the same spans share one

    @cached_property
    def groups(self) -> tuple[Name, ...]:
        """One name for each group: so many neighbouring rows as divide every run of equal names."""
        runs = [len(list(run)) for _, run in groupby(self.names)]
        return self.names[:: gcd(*runs)]

    @cached_property
    def of_each(self) -> dict[Name, list[int]]:
        """The rows of each adapter."""
        found: dict[Name, list[int]] = {}
        for row, name in enumerate(self.names):
            found.setdefault(name, []).append(row)
        return found

    @cached_property
    def back(self) -> list[int]:
        """Where each row lies when the rows of each adapter follow one another, in the order of `of_each`."""
        there = [row for rows in self.of_each.values() for row in rows]
        return sorted(range(len(there)), key=there.__getitem__)


class Room:
    """Memory that layers write to in turn; each finds there what the one before it has left, which it may lose."""

    def __init__(self) -> None:
        self._held: dict[Any, Tensor] = {}

    def of(self, shape: torch.Size, like: Tensor) -> Tensor:
        """So much of it, in the dtype and place of `like`."""
        kind = like.dtype, like.device, torch.is_inference_mode_enabled()  # what is made in there is for there alone
        held = self._held.get(kind)
        if held is None or held.numel() < shape.numel():
            held = self._held[kind] = like.new_empty(shape.numel())
        return held[: shape.numel()].view(shape)


@dataclass
class Choice:
    """Who answers: an adapter, the base (None), or each row's own. One for all layers of a model, with their room."""

    now: Name | Rows = None
    room: Room = field(default_factory=Room)


class BankedLayer(AdapterLayer):
    """A frozen layer, and for each adapter that changes it the layer that stands here when that one is used.

    Shapes: whatever the frozen layer's are; in a mixed batch rows come first, x (rows, ..., in).
    """

    def __init__(self, base_layer: nn.Module, choice: Choice) -> None:
        super().__init__(base_layer)
        self.choice, self.held = choice, nn.ModuleList()
        self._ways: dict[Any, nn.Module] = {}
        self._other: set[Any] = set()  # those that are not the frozen layer plus a product of two thin matrices
        self._forget()

    def __len__(self) -> int:
        return len(self._ways)

    def hold(self, name: str, way: nn.Module) -> None:
        """Answer as `way` when this adapter is used."""
        self.drop(name)
        self._ways[name] = way.train(self.training)
        if not is_low_rank(way):
            self._other.add(name)

    def drop(self, name: str) -> None:
        """Forget an adapter, which need not be here."""
        self._ways.pop(name, None)
        self._other.discard(name)
        self._forget()

    def _forget(self) -> None:
        self.held = nn.ModuleList(self._ways.values())  # registered, so that they follow the model to another device
        self._stack: Stack | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        now = self.choice.now if self.enabled else None
        if not isinstance(now, Rows):
            return self._ways.get(now, self.base_layer)(x, *args, **kwargs)
        if self._ways.keys().isdisjoint(now.of_each):
            return self.base_layer(x, *args, **kwargs)
        if self._other.isdisjoint(now.of_each):
            return self._mixed(x, now)
        return self._each(x, now, *args, **kwargs)

    def _mixed(self, x: Tensor, rows: Rows) -> Tensor:
        """All rows at once."""
        _check_rows(len(x) == len(rows.names) or (x.dim() == 2 and len(x) % len(rows.names) == 0), x)
        y: Tensor = self.base_layer(x.reshape(-1, x.shape[-1]))  # (rows * tokens, out)
        if self._stack is None or not self._stack.fits(y):
            pairs = {name: pair_of(lora_around(way)) for name, way in self._ways.items() if name not in self._other}
            self._stack = Stack(pairs, y)
        picked, inputs = self._stack.of(rows, self.choice.room), x.shape[-1]  # (groups, R, in + out)
        grouped = x.reshape(len(picked), -1, inputs).to(y.dtype)
        by_group = y.view(len(picked), -1, y.shape[-1])
        add_into = by_group.baddbmm if self.base_layer._forward_hooks else by_group.baddbmm_
        return add_into(thin(grouped, picked[..., :inputs]), picked[..., inputs:]).view(*x.shape[:-1], y.shape[-1])

    def _each(self, x: Tensor, rows: Rows, *args: Any, **kwargs: Any) -> Tensor:
        """Adapter by adapter: for heads, and for what is no sum of a frozen layer's output and a product."""
        _check_rows(len(x) == len(rows.names), x)
        of_each = rows.of_each.items()
        parts = [self._ways.get(name, self.base_layer)(x[own], *args, **kwargs) for name, own in of_each]
        return torch.cat(parts)[rows.back]


class Stack:
    """All adapters of one layer: [A | B] (sum of ranks + 1, in + out), the last row zeros."""

    def __init__(self, pairs: Mapping[str, Pair], like: Tensor) -> None:
        ranks = [len(a) for a, _ in pairs.values()]
        starts = list(accumulate(ranks, initial=0))
        self.end = starts.pop()
        self.spans: Spans = tuple(zip(pairs, starts, ranks, strict=True))
        self._last: tuple[Rows, bool] | None = None  # of the last batch, and whether in inference mode
        self._kept: Tensor | None = None
        both = [torch.cat(pair, dim=1) for pair in pairs.values()]
        zeros = both[0].new_zeros(1, both[0].shape[1])
        self.matrix = torch.cat([*both, zeros]).to(device=like.device, dtype=like.dtype)
        self._alike = f"{self.spans} on {like.device}"  # as words, for their hash is computed once

    def fits(self, y: Tensor) -> bool:
        """Whether it has the dtype of the layer's output, and lies where that does."""
        return self.matrix.dtype == y.dtype and self.matrix.device == y.device

    def of(self, rows: Rows, room: Room) -> Tensor:
        """What each group needs, (groups, R, in + out) where R is the largest rank among them.

        It lies in the room, unless the last batch had the same rows or backward will want it.
        """
        batch = rows, torch.is_inference_mode_enabled()
        again, self._last = batch == self._last, batch
        if torch.is_grad_enabled():
            return self._pick(rows, None)
        if not again:
            self._kept = None
        elif self._kept is None:
            self._kept = self._pick(rows, None)
        return self._kept if again and self._kept is not None else self._pick(rows, room)

    def _pick(self, rows: Rows, room: Room | None) -> Tensor:
        """New memory takes longer than what goes into it; so would matrix[index], and four times."""
        index = rows.picks.get(self._alike)  # (groups, R)
        if index is None:
            index = rows.picks[self._alike] = self._index(rows.groups)
        shape = torch.Size([*index.shape, self.matrix.shape[1]])
        into = room.of(shape, self.matrix) if room else self.matrix.new_empty(shape)
        torch.index_select(self.matrix, 0, index.view(-1), out=into.view(-1, shape[-1]))
        return into

    def _index(self, groups: Sequence[Name]) -> Tensor:
        """The rows of the stack that each group needs, then as often that of zeros as makes them R."""
        spans: dict[Name, range] = {name: range(start, start + rank) for name, start, rank in self.spans}
        wanted = [spans.get(name, range(0)) for name in groups]
        most = max(len(span) for span in wanted)
        rows = [[*span, *[self.end] * (most - len(span))] for span in wanted]
        return torch.tensor(rows, device=self.matrix.device)


def thin(x: Tensor, a: Tensor) -> Tensor:
    """x A^T of each group, (groups, tokens, R), for x (groups, tokens, in) and A (groups, R, in).

    To MKL, R columns cost as much as 16. R rows cost half of that at R = 8, but more from 16 on.
    """
    if a.shape[1] < 16:
        return torch.bmm(a, x.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(x, a.transpose(1, 2))


def lora_around(way: nn.Module) -> list[LoRALinear]:
    """The LoRA layers around one frozen layer, in the order of their rows."""
    found = list(_around(way))
    return sorted(found, key=lambda layer: layer.out_slice or (0, 0))


def _around(way: nn.Module) -> Iterator[LoRALinear]:
    while isinstance(way, AdapterLayer):
        if isinstance(way, LoRALinear):
            yield way
        way = way.base_layer


def is_low_rank(way: nn.Module) -> bool:
    """Whether the layer is the frozen one plus a product of two thin matrices. DoRA's also scales the frozen one."""
    while isinstance(way, LoRALinear) and not isinstance(way, DoRALinear):
        way = way.base_layer
    return not isinstance(way, AdapterLayer)


def pair_of(layers: Sequence[LoRALinear]) -> Pair:
    """A (rank, in) and B (rank, out) of the one update that equals these on one layer; slices' ranks add up."""
    a, b = one_for_all_slices(list(layers))
    return a.detach(), layers[0].scaling * b.detach().t()


def _check_rows(fit: bool, x: Tensor) -> None:
    if not fit:
        raise BadValue(
            f"a layer of this model works on {tuple(x.shape)}, which is not row by row, so rows cannot differ in "
            "their adapter there: use(name) one after the other"
        )
