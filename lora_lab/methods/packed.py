"""Train K runs together on one frozen base, without special code in any method.

    ids (K*n, tokens)     the rows of member 0, then those of member 1, ...: a single batch for the frozen base
    at each adapter       y = base_layer(x) for all rows at once, then
                          vmap(adapter)(parameters of members 0..K-1; their rows of x and y)

All trainable parameters form one table (K, N) with a row per member. The stacked parameters of an adapter are views of
its columns: A is (K, R, in) and B (K, out, R), where R is the highest rank. Lower ranks are padded with zeros, which
stay zero, since a zero row of A meets a zero column of B. A member that doesn't adapt a layer has only zeros there.

Three kinds of model share the frozen weights: the base; one ordinary model per member (`share`, then `method.attach`)
for saving and scoring, whose parameters are views of the member's row; and the model from `stack_members`, which
computes for all members. So `save_adapter` sees an ordinary adapter, the optimizer sees one long tensor, and nothing is
copied. Dropout masks differ from those of a member trained alone. PLoRA (Yan et al. 2025) trains like this.
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

# The stacked parameters are strided views of the table. torch warns about this, but it costs no speed.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

Part = AdapterLayer | Ahead
Slot = tuple[str, tuple[int, int] | None]  # path in the plain model, and the slice of its outputs


def share(model: nn.Module) -> nn.Module:
    """Copy a model's modules but share its weights: the copy takes little memory and can have its own adapter."""
    return copy.deepcopy(model, {id(t): t for t in chain(model.parameters(), model.buffers())})


def stack_members(base: nn.Module, members: Sequence[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """Build a model that computes for all members. Return it, the table of parameters (K, N), and its gradients.

    base      the plain model from which every member was made with `share`
    members   models with the same method attached; ranks, scalings, targets and dropout of LoRA may differ
    Raises: BadValue for a base whose layers read inputs that don't belong to a member.
    """
    parts = _parts(members)
    adapts_layers = any(isinstance(p, AdapterLayer) and not p.head for slot_parts in parts.values() for p in slot_parts)
    if adapts_layers and getattr(getattr(base, "config", None), "relative_attention", False):
        raise BadValue(
            f"the layers of this {type(base).__name__} also read its table of relative positions, which all "
            "runs share: train the runs one by one, with --solo"
        )
    stacks, numbers, gradients = _stacked(parts, len(members))
    model = share(base)
    for (path, _), slot_parts in parts.items():
        first = next(part for part in slot_parts if part is not None)
        if isinstance(first, Ahead):
            PackedAhead(slot_parts).register(model, path)
        else:
            stacked = {name: stacks[id(p)] for name, p in own_parameters(first) if id(p) in stacks}
            put(model, path, Packed(model.get_submodule(path), slot_parts, stacked))
    return model, numbers, gradients


def has_dropout(member: nn.Module) -> bool:
    """Return whether a member's adapters use dropout."""
    return any(isinstance(m, nn.Dropout) and m.p > 0 for _, part in adapters(member) for m in part.modules())


class Packed(AdapterLayer):
    """One adapter layer for all members: x (K*n, ...) -> y (K*n, ...).

    parts     each member's adapter of this layer, or None; the first is the template that vmap calls
    stacked   the template's parameters by name, stacked: (K, *shape)
    """

    def __init__(self, base_layer: nn.Module, parts: Sequence[Any], stacked: Mapping[str, nn.Parameter]) -> None:
        super().__init__(base_layer)
        first = next(part for part in parts if part is not None)
        inner = first.base_layer if isinstance(first, MethodLayer | TrainedCopy) else _Precomputed(first.base_layer)
        memo: dict[int, Any] = {id(t): t for t in chain(first.parameters(), first.buffers())}
        self.template: Any = copy.deepcopy(first, memo | {id(first.base_layer): inner})
        self.size, self.head, device = len(parts), first.head, next(first.parameters()).device
        self.stacked = {f"template.{name}": p for name, p in stacked.items()}  # unregistered: optimizers use the table
        self.scaling, self.out_slice = None, None
        if not isinstance(first, MethodLayer) and hasattr(first, "scaling"):
            self.template.scaling = 1.0  # members may differ in scaling, so B is multiplied by it instead
            self.scaling = torch.tensor([0.0 if part is None else part.scaling for part in parts], device=device)
            self.out_slice = getattr(first, "out_slice", None)
        if self.out_slice:  # the template receives and returns only its slice of the outputs
            self.template.out_slice, self.template.out_features = None, self.out_slice[1] - self.out_slice[0]
        rates = [getattr(getattr(part, "dropout", None), "p", 0.0) for part in parts]
        if any(rates):
            self.template.dropout = _Dropout(torch.tensor(rates, device=device))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.head:
            return self._vmap(lambda template, x: template(x), x)
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        if isinstance(self.template, MethodLayer):
            y: Tensor = self.base_layer(self._vmap(self.template.method.before, x), *args, **kwargs)
            return self._vmap(self.template.method.after, y, x)
        y = self.base_layer(x)
        start, stop = self.out_slice or (0, y.shape[-1])
        if type(self.template) is LoRALinear:  # adding B A x here saves a pass over y
            update = self._vmap(partial(_lora_update, dtype=y.dtype), x)
            if self.out_slice or torch.is_grad_enabled() or self.base_layer._forward_hooks:
                return y + (F.pad(update, (start, y.shape[-1] - stop)) if self.out_slice else update)
            return y.add_(update)
        updated = self._vmap(_with_output, x, y[..., start:stop])
        return torch.cat([y[..., :start], updated, y[..., stop:]], dim=-1) if self.out_slice else updated

    def _vmap(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Apply function(template, *inputs) for each member, with its parameters and its rows of the inputs."""
        parameters: dict[str, Tensor] = dict(self.stacked)
        if self.scaling is not None:
            for name, p in parameters.items():
                if name.endswith("_B"):  # lora_B, lora_embedding_B: no other method has a scaling
                    parameters[name] = p * self.scaling.to(p).view(-1, *[1] * (p.dim() - 1))
        if isinstance(getattr(self.template, "dropout", None), _Dropout):
            parameters["template.dropout.rate"] = self.template.dropout.rate
        module = _Call(self.template, function)
        run = vmap(lambda parameters, *rows: functional_call(module, parameters, rows), randomness="different")
        outputs: Tensor = run(parameters, *(x.unflatten(0, (self.size, -1)) for x in inputs))
        return outputs.flatten(0, 1)


class _Call(nn.Module):
    """Wrap a function of an adapter in a module, as `functional_call` requires."""

    def __init__(self, template: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.template, self.function = template, function

    def forward(self, *rows: Tensor) -> Tensor:
        return self.function(self.template, *rows)


def _lora_update(part: LoRALinear, x: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return B A dropout(x), where B includes each member's scaling."""
    h = F.linear(part.dropout(x).to(dtype), part.lora_A.to(dtype))  # (..., R)
    return F.linear(h, part.lora_B.to(dtype))


def _with_output(part: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return the adapter's output for x, given the frozen layer's output y."""
    part.base_layer.output = y
    try:
        return part(x)  # type: ignore[no-any-return]
    finally:
        del part.base_layer.output


class _Precomputed(nn.Module):
    """Replaces the frozen layer inside vmap and returns its output, computed earlier for all members at once."""

    output: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_forward_hook(lambda *_: None)  # keeps LoRALinear from adding in place

    def forward(self, x: Tensor) -> Tensor:
        return self.output.reshape(*(x.shape[:-1] if x.is_floating_point() else x.shape), -1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


class _Dropout(nn.Module):
    """Dropout with a separate rate for each member."""

    rate: Tensor

    def __init__(self, rate: Tensor) -> None:
        super().__init__()
        self.register_buffer("rate", rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand_like(x, dtype=torch.float32) >= self.rate) / (1 - self.rate).to(x.dtype)


class PackedAhead(Ahead):
    """Prepends each member's vectors to its rows."""

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members[0].method, {})
        self.members = nn.ModuleList(members)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return torch.cat([member.vectors(rows // len(self.members), dtype) for member in self.members])  # type: ignore[operator]


def _parts(members: Sequence[nn.Module]) -> dict[Slot, list[Part | None]]:
    """Group the members' adapters by slot; inner adapters come before outer ones."""
    parts: dict[Slot, list[Part | None]] = {}
    for k, member in enumerate(members):
        for path, part in reversed(list(adapters(member))):
            slot = plain_path(path), getattr(part, "out_slice", None)
            parts.setdefault(slot, [None] * len(members))[k] = part
    return parts


@torch.no_grad()
def _stacked(parts: Mapping[Slot, Sequence[Part | None]], size: int) -> tuple[dict[int, nn.Parameter], Tensor, Tensor]:
    """Stack each parameter over the members, (K, *shape), and make the members' parameters views of the stack.

    Return stacks by the id of a member's parameter, and tables of values and gradients. Shared ones are stacked once.
    """
    groups: dict[tuple[Slot, str], list[tuple[int, nn.Parameter]]] = {}
    seen = set[int]()
    for slot, slot_parts in parts.items():
        for k, part in enumerate(slot_parts):
            for name, p in own_parameters(part) if part is not None else ():
                if p.requires_grad and id(p) not in seen:
                    groups.setdefault((slot, name), []).append((k, p))
                    seen.add(id(p))
    shapes = [tuple(map(max, zip(*(p.shape for _, p in group), strict=True))) for group in groups.values()]
    ends = torch.tensor([0, *map(math.prod, shapes)]).cumsum(0).tolist()
    first = next(p for group in groups.values() for _, p in group)
    values = torch.zeros(size, ends[-1], device=first.device, dtype=first.dtype)
    gradients, stacks = torch.zeros_like(values), dict[int, nn.Parameter]()
    for group, shape, start, end in zip(groups.values(), shapes, ends[:-1], ends[1:], strict=True):
        strides = group[0][1].stride()
        order = sorted(range(len(shape)), key=lambda d: -strides[d])  # keep the memory layout: B may be transposed

        def columns(table: Tensor) -> Tensor:
            view = table[:, start:end].view(size, *(shape[d] for d in order))  # noqa: B023
            return view.permute(0, *(1 + order.index(d) for d in range(len(shape))))  # noqa: B023

        stack = nn.Parameter(columns(values))
        stack.grad = columns(gradients)
        for k, p in group:
            index: Any = (k, *map(slice, p.shape))
            stack[index] = p
            p.data, p.grad = stack.data[index], stack.grad[index]
            stacks[id(p)] = stack
    return stacks, values, gradients
