"""Autograd on paper: the memory of a piece of a network without its numbers, by PyTorch's own rules.

Forward, each operation makes a storage and keeps, for backward, those of its inputs that its gradients need. A kept
storage lives until that operation's backward has run; everything else is gone when the piece is done. Backward runs the
operations in reverse: for a moment the incoming gradient, the outgoing ones and all that is still kept live together.

    x --linear--> y --silu--> z        kept: x if W trains, y          (silu needs its input)
    backward of silu: gz, gy live; then y and gz go, and linear makes gx and gW

Sizes are bytes. Nothing here knows of layers or models: `blocks` builds on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Label = tuple[str, str, str]  # category, symbol, formula
Parts = dict[Label, int]  # bytes
IN_FLIGHT: Label = ("temporaries", "gradients in flight", "what one operation of the backward pass reads and writes")
VARIABLES: Label = ("temporaries", "variables of the layer in hand", "T·(f + 2·d)·b")
IN_HAND: Label = ("gradients", "weights of the piece in hand", "bytes that train there")


class Storage:
    """A piece of memory: how large, and what it is for."""

    __slots__ = ("label", "size")

    def __init__(self, size: int, label: Label = IN_FLIGHT) -> None:
        self.size, self.label = size, label


class Value:
    """A tensor: its bytes, the storage it lies in (views share one), and whether a gradient flows back through it."""

    __slots__ = ("needs_grad", "size", "storage")

    def __init__(self, size: int, needs_grad: bool, storage: Storage) -> None:
        self.size, self.needs_grad, self.storage = size, needs_grad, storage


class Node:
    """One operation as backward sees it: what it keeps, where gradients go, its weights' gradients (bytes)."""

    __slots__ = ("alias", "into", "kept", "outs", "temporary", "weights")

    def __init__(
        self, outs: list[Value], kept: list[Storage], into: list[Value], alias: bool, weights: int, temporary: int
    ) -> None:
        self.outs, self.kept, self.into, self.alias = outs, kept, into, alias
        self.weights, self.temporary = weights, temporary


@dataclass
class Profile:
    """Backward of a piece, in bytes: the most of its own that lives at once, what that is, and its weights' gradients.

    What lives is what the piece keeps, its gradients in flight and those of its weights so far.
    """

    parts: Parts
    weights: int


class Tape:
    """Records operations and plays them backwards."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.variables: list[list[Value]] = []  # what the code's variables hold at moments late in forward
        self.run_again: list[
            list[Value]
        ] = []  # the same when it runs again, which stops when all that is kept is there

    def op(
        self,
        size: int,
        inputs: Sequence[Value],
        keeps: Iterable[Value | Storage] = (),
        *,
        weights: int = 0,
        alias: bool = False,
        temporary: int = 0,
        label: Label = IN_FLIGHT,
        inside: Storage | None = None,
    ) -> Value:
        """An operation with an output of `size` bytes; it takes part in backward if an input or a weight trains.

        keeps      what its gradients are made from
        weights    bytes of the gradients of its own trained weights
        alias      the gradient passes on as it is (an addition)
        temporary  bytes that live only while its backward runs
        inside     the storage that the output is a view of
        """
        into = [x for x in inputs if x.needs_grad]
        out = Value(size, bool(into) or weights > 0, inside or Storage(size, label))
        if out.needs_grad:
            kept = [k.storage if isinstance(k, Value) else k for k in keeps]
            self.nodes.append(Node([out], kept, into, alias, weights, temporary))
        return out

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        """Views of the parts of x; backward puts their gradients together again in one new tensor."""
        parts = [Value(size, x.needs_grad, x.storage) for size in sizes]
        if x.needs_grad:
            self.nodes.append(Node(parts, [], [x], False, 0, 0))
        return parts

    def kept(self, outside: Storage | None = None) -> Parts:
        """Bytes that stay after forward, by label, each storage once; `outside` is kept by somebody else."""
        stores = {id(s): s for node in self.nodes for s in node.kept if s is not outside}
        total: Parts = {}
        for store in stores.values():
            total[store.label] = total.get(store.label, 0) + store.size
        return total

    def beside(self, moments: Iterable[Iterable[Value]], outside: Storage | None = None) -> Parts:
        """The most that variables hold, at any of these moments, besides what is kept."""
        kept = {s for node in self.nodes for s in node.kept} | {outside}
        held = (sum(s.size for s in {value.storage for value in moment} - kept) for moment in moments)
        return {VARIABLES: max(held, default=0)}

    def backward(self, out: Value, outside: Storage | None = None) -> Profile:
        """Play backward from `out`, whose gradient lives already."""
        first = _Play(self.nodes, outside)
        first.run(out)
        second = _Play(self.nodes, outside, stop=first.where)
        second.run(out)
        return Profile(second.parts, first.weights)


class _Play:
    """The state of one backward pass; with `stop` it ends at that moment and says what lives."""

    def __init__(self, nodes: list[Node], outside: Storage | None, stop: int = -1) -> None:
        self.nodes, self.stop = nodes, stop
        self.users: dict[Storage, int] = {}
        self.live = self.flight = self.weights = self.most = self.moment = 0
        self.where = -1
        self.parts: Parts = {}
        for node in nodes:
            for store in node.kept:
                if store is not outside:
                    if store not in self.users:
                        self.users[store] = 0
                        self.live += store.size
                    self.users[store] += 1

    def run(self, out: Value) -> None:
        """From the last operation to the first."""
        gradients: dict[Value, list[int]] = {out: [out.size, 1]}  # bytes, and by how many it is held
        self.flight = out.size
        for node in reversed(self.nodes):
            arrived = [gradients.pop(out) for out in node.outs if out in gradients]
            if not arrived:
                continue
            made = []
            for value in node.into:
                if node.alias:
                    arrived[0][1] += 1
                    made.append((value, arrived[0]))
                else:
                    made.append((value, self._new(value.size)))
            self.weights += node.weights
            self._look(node.temporary)
            self._release(node)
            for gradient in arrived:
                self._drop(gradient)
            for value, new in made:
                self._deliver(gradients, value, new)
            if self.parts:
                return

    def _deliver(self, gradients: dict[Value, list[int]], value: Value, new: list[int]) -> None:
        old = gradients.get(value)
        if old is None:
            gradients[value] = new
            return
        gradients[value] = self._new(value.size)  # the sum is a third tensor for a moment
        self._look(0)
        self._drop(old)
        self._drop(new)

    def _new(self, size: int) -> list[int]:
        self.flight += size
        return [size, 1]

    def _drop(self, gradient: list[int]) -> None:
        gradient[1] -= 1
        if not gradient[1]:
            self.flight -= gradient[0]

    def _release(self, node: Node) -> None:
        for store in node.kept:
            if store in self.users:
                self.users[store] -= 1
                if not self.users[store]:
                    self.live -= store.size

    def _look(self, temporary: int) -> None:
        now = self.live + self.flight + self.weights + temporary
        if self.moment == self.stop:
            self._describe(temporary)
        elif now > self.most:
            self.most, self.where = now, self.moment
        self.moment += 1

    def _describe(self, temporary: int) -> None:
        for store, users in self.users.items():
            if users:
                self.parts[store.label] = self.parts.get(store.label, 0) + store.size
        self.parts[IN_FLIGHT] = self.parts.get(IN_FLIGHT, 0) + self.flight + temporary
        self.parts[IN_HAND] = self.weights
