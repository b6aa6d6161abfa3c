"""K runs side by side on one frozen base, with no code for it in any method.

    ids (K*n, tokens)     the rows of member 0, then those of member 1, ...: the frozen base sees one batch
    at each adapter       y = base_layer(x) for all rows at once, then
                          vmap(adapter)(parameters of members 0..K-1; their rows of x and y)

All that trains is one table (K, N) with a row per member. The stacked parameters of an adapter are columns of it: A is
(K, R, in) and B (K, out, R), where R is the largest rank. Smaller ranks are padded with zeros, which stay zero: a zero
row of A meets a zero column of B. A member that doesn't adapt a layer is all zeros there.

Three kinds of model share the frozen weights: the base; one ordinary model per member (`share`, then `method.attach`),
whose parameters are views of its row, to save it and score it alone; and the one that `stack_members` builds, which
computes for all. So `save_adapter` sees an ordinary adapter, the optimizer one long tensor, and nothing is copied.
Dropout draws other masks than for a member alone. PLoRA (Yan et al. 2025) trains like this.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import Ahead, MethodLayer, TrainedCopy, adapters, own_parameters, plain_path, put

# The stacked parameters are strided views of the table. torch warns of it once; nothing is slower for it.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

Part = AdapterLayer | Ahead
Slot = tuple[str, tuple[int, int] | None]  # path in the plain model, and the slice of its outputs


def share(model: nn.Module) -> nn.Module:
    """A second model on the same weights, with its own modules: it can be adapted alone and takes hardly any memory."""
    return copy.deepcopy(model, {id(t): t for t in chain(model.parameters(), model.buffers())})


def stack_members(base: nn.Module, members: Sequence[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """Build the model that computes for all members. Returns it, the table of what trains (K, N), and its gradients.

    base      the plain model that every member is a `share` of
    members   each with the same method attached; ranks, scalings, targets and dropout of LoRA may differ
    Raises: BadValue for a base whose layers read more than the members' rows.
    """
    parts = _parts(members)
    beside = any(isinstance(p, AdapterLayer) and not p.head for each in parts.values() for p in each)
    if beside and getattr(getattr(base, "config", None), "relative_attention", False):
        raise BadValue(
            f"the layers of this {type(base).__name__} also read its table of relative positions, which belongs to "
            "no run: train its runs one after the other, with --solo"
        )
    stacks, numbers, gradients = _stacked(parts, len(members))
    model = share(base)
    for (path, _), each in parts.items():
        first = next(part for part in each if part is not None)
        if isinstance(first, Ahead):
            PackedAhead(each).register(model, path)
        else:
            own = {name: stacks[id(p)] for name, p in own_parameters(first) if id(p) in stacks}
            put(model, path, Packed(model.get_submodule(path), each, own))
    return model, numbers, gradients


def has_dropout(member: nn.Module) -> bool:
    """Whether what trains in a member uses dropout."""
    return any(isinstance(m, nn.Dropout) and m.p > 0 for _, part in adapters(member) for m in part.modules())


class Packed(AdapterLayer):
    """One adapter of all members: x (K*n, ...) -> y (K*n, ...).

    each   the members' own adapters here, None where a member has none; the first is the template that vmap calls
    own    the template's parameters by name, stacked: (K, *shape)
    """

    def __init__(self, base_layer: nn.Module, each: Sequence[Any], own: Mapping[str, nn.Parameter]) -> None:
        super().__init__(base_layer)
        first = next(part for part in each if part is not None)
        given = first.base_layer if isinstance(first, MethodLayer | TrainedCopy) else _Given(first.base_layer)
        memo: dict[int, Any] = {id(t): t for t in chain(first.parameters(), first.buffers())}
        self.template: Any = copy.deepcopy(first, memo | {id(first.base_layer): given})
        self.size, self.head, where = len(each), first.head, next(first.parameters()).device
        self.own = {f"template.{name}": p for name, p in own.items()}  # not registered: optimizers hold the rows
        self.scaling, self.out_slice = None, None
        if not isinstance(first, MethodLayer) and hasattr(first, "scaling"):
            self.template.scaling = 1.0  # members may differ in it: it multiplies B
            self.scaling = torch.tensor([0.0 if part is None else part.scaling for part in each], device=where)
            self.out_slice = getattr(first, "out_slice", None)
        if self.out_slice:  # the template gets and returns its slice of the outputs
            self.template.out_slice, self.template.out_features = None, self.out_slice[1] - self.out_slice[0]
        rates = [getattr(getattr(part, "dropout", None), "p", 0.0) for part in each]
        if any(rates):
            self.template.dropout = _Dropout(torch.tensor(rates, device=where))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.head:
            return self._each(lambda template, x: template(x), x)
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        if isinstance(self.template, MethodLayer):
            y: Tensor = self.base_layer(self._each(self.template.method.before, x), *args, **kwargs)
            return self._each(self.template.method.after, y, x)
        y = self.base_layer(x)
        start, stop = self.out_slice or (0, y.shape[-1])
        if type(self.template) is LoRALinear:  # B A x is added here, which saves a pass over y
            update = self._each(partial(_lora_update, dtype=y.dtype), x)
            if self.out_slice or torch.is_grad_enabled() or self.base_layer._forward_hooks:
                return y + (F.pad(update, (start, y.shape[-1] - stop)) if self.out_slice else update)
            return y.add_(update)
        updated = self._each(_with_output, x, y[..., start:stop])
        return torch.cat([y[..., :start], updated, y[..., stop:]], dim=-1) if self.out_slice else updated

    def _each(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """function(template, rows) of each member, with its parameters and on its rows."""
        own: dict[str, Tensor] = dict(self.own)
        if self.scaling is not None:
            for name in own:
                if name.endswith("_B"):  # lora_B, lora_embedding_B: no other method has a scaling
                    own[name] = own[name] * self.scaling.to(own[name]).view(-1, *[1] * (own[name].dim() - 1))
        if isinstance(getattr(self.template, "dropout", None), _Dropout):
            own["template.dropout.rate"] = self.template.dropout.rate
        module = _Call(self.template, function)
        run = vmap(lambda own, *given: functional_call(module, own, given), randomness="different")
        done: Tensor = run(own, *(one.unflatten(0, (self.size, -1)) for one in rows))
        return done.flatten(0, 1)


class _Call(nn.Module):
    """A function of an adapter, as a module: `functional_call` calls nothing else."""

    def __init__(self, template: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.template, self.function = template, function

    def forward(self, *rows: Tensor) -> Tensor:
        return self.function(self.template, *rows)


def _lora_update(part: LoRALinear, x: Tensor, *, dtype: torch.dtype) -> Tensor:
    """B A dropout(x); members' scalings are in B."""
    h = F.linear(part.dropout(x).to(dtype), part.lora_A.to(dtype))  # (..., R)
    return F.linear(h, part.lora_B.to(dtype))


def _with_output(part: Any, x: Tensor, y: Tensor) -> Tensor:
    """The adapter's answer to x, where y is the output of its frozen layer."""
    part.base_layer.output = y
    try:
        return part(x)  # type: ignore[no-any-return]
    finally:
        del part.base_layer.output


class _Given(nn.Module):
    """Stands for the frozen layer inside vmap: its output was computed before, for all members at once."""

    output: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_forward_hook(lambda *_: None)  # LoRALinear adds in place only where nothing hooks the layer

    def forward(self, x: Tensor) -> Tensor:
        return self.output.reshape(*(x.shape[:-1] if x.is_floating_point() else x.shape), -1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


class _Dropout(nn.Module):
    """Dropout at a rate of each member's own."""

    rate: Tensor

    def __init__(self, rate: Tensor) -> None:
        super().__init__()
        self.register_buffer("rate", rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand_like(x, dtype=torch.float32) >= self.rate) / (1 - self.rate).to(x.dtype)


class PackedAhead(Ahead):
    """Each member's own vectors ahead of its own rows."""

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members[0].method, {})
        self.members = nn.ModuleList(members)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return torch.cat([member.vectors(rows // len(self.members), dtype) for member in self.members])  # type: ignore[operator]


def _parts(members: Sequence[nn.Module]) -> dict[Slot, list[Part | None]]:
    """What each member has at each place; of two adapters around one layer the inner one comes first."""
    found: dict[Slot, list[Part | None]] = {}
    for k, member in enumerate(members):
        for path, part in reversed(list(adapters(member))):
            slot = plain_path(path), getattr(part, "out_slice", None)
            found.setdefault(slot, [None] * len(members))[k] = part
    return found


@torch.no_grad()
def _stacked(parts: Mapping[Slot, Sequence[Part | None]], size: int) -> tuple[dict[int, nn.Parameter], Tensor, Tensor]:
    """Each parameter stacked over the members (K, *shape), by the id of every member's own, which becomes a view of it.

    A parameter that several layers share is stacked once. And the tables of the numbers and of their gradients.
    """
    each: dict[tuple[Slot, str], list[tuple[int, nn.Parameter]]] = {}
    seen = set[int]()
    for slot, own in parts.items():
        for k, part in enumerate(own):
            for name, p in own_parameters(part) if part is not None else ():
                if p.requires_grad and id(p) not in seen:
                    each.setdefault((slot, name), []).append((k, p))
                    seen.add(id(p))
    shapes = [tuple(map(max, zip(*(p.shape for _, p in some), strict=True))) for some in each.values()]
    ends = torch.tensor([0, *map(math.prod, shapes)]).cumsum(0).tolist()
    first = next(p for some in each.values() for _, p in some)
    numbers = torch.zeros(size, ends[-1], device=first.device, dtype=first.dtype)
    gradients, stacks = torch.zeros_like(numbers), dict[int, nn.Parameter]()
    for some, shape, start, end in zip(each.values(), shapes, ends[:-1], ends[1:], strict=True):
        strides = some[0][1].stride()
        order = sorted(range(len(shape)), key=lambda d: -strides[d])  # as it lies in memory: B may lie transposed

        def columns(table: Tensor) -> Tensor:
            laid = table[:, start:end].view(size, *(shape[d] for d in order))  # noqa: B023
            return laid.permute(0, *(1 + order.index(d) for d in range(len(shape))))  # noqa: B023

        stack = nn.Parameter(columns(numbers))
        stack.grad = columns(gradients)
        for k, p in some:
            here: Any = (k, *map(slice, p.shape))
            stack[here] = p
            p.data, p.grad = stack.data[here], stack.grad[here]
            stacks[id(p)] = stack
    return stacks, numbers, gradients
