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
        # The same when it runs again, which stops when all that is kept is there.
        self.run_again: list[list[Value]] = []
        self.early: list[tuple[int, list[Value]]] = []  # the same before so many of the operations

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

    def earlier(self, outside: Storage | None = None) -> int:
        """The most that variables and what is kept so far hold together at any early moment."""
        held = []
        for count, moment in self.early:
            kept = {store for node in self.nodes[:count] for store in node.kept}
            held.append(sum(s.size for s in (kept | {value.storage for value in moment}) - {outside}))
        return max(held, default=0)

    def backward(self, out: Value, outside: Storage | None = None) -> Profile:
        """Play backward from `out`, whose gradient lives already."""
        play = _Play(self.nodes, outside)
        play.run(out)
        return Profile(play.parts(), play.weights)


class _Play:
    """The state of one backward pass, which remembers its fullest moment."""

    def __init__(self, nodes: list[Node], outside: Storage | None) -> None:
        self.nodes, self.outside = nodes, outside
        self.users: dict[Storage, int] = {}
        self.live = self.flight = self.weights = self.most = 0
        self.skipped: list[Node] = []  # those that no gradient reaches keep what they hold
        self.fullest = (0, 0, 0, 0)  # gradients in flight, weights' gradients, nodes that still hold, nodes skipped
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
        for number in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[number]
            arrived = [gradients.pop(out) for out in node.outs if out in gradients]
            if not arrived:
                self.skipped.append(node)
                continue
            made = []
            for value in node.into:
                if node.alias:
                    arrived[0][1] += 1
                    made.append((value, arrived[0]))
                else:
                    made.append((value, self._new(value.size)))
            self.weights += node.weights
            self._look(number + 1, node.temporary)
            self._release(node)
            for gradient in arrived:
                self._drop(gradient)
            for value, new in made:
                self._deliver(gradients, value, new, number)

    def parts(self) -> Parts:
        """What lives at the fullest moment, by label."""
        flight, weights, holding, skipped = self.fullest
        nodes = [*self.nodes[:holding], *self.skipped[:skipped]]
        found: Parts = {}
        for store in dict.fromkeys(s for node in nodes for s in node.kept if s is not self.outside):
            found[store.label] = found.get(store.label, 0) + store.size
        found[IN_FLIGHT] = found.get(IN_FLIGHT, 0) + flight
        found[IN_HAND] = weights
        return found

    def _deliver(self, gradients: dict[Value, list[int]], value: Value, new: list[int], number: int) -> None:
        old = gradients.get(value)
        if old is None:
            gradients[value] = new
            return
        gradients[value] = self._new(value.size)  # the sum is a third tensor for a moment
        self._look(number, 0)
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

    def _look(self, holding: int, temporary: int) -> None:
        now = self.live + self.flight + self.weights + temporary
        if now > self.most:
            self.most = now
            self.fullest = (self.flight + temporary, self.weights, holding, len(self.skipped))
