"""Train K runs together on one frozen base model, without special code in any method.

    ids (K*n, tokens)         # one batch holds the rows of member 0, then the rows of member 1, and so on
    y = base_layer(x)         # at each adapter, the frozen layer computes all rows at once
    vmap(adapter)(p, x, y)    # then each member's parameters p are applied to its own rows of x and y

All trainable parameters form one table (K, N), with one row per member. The stacked parameters of an adapter are views
of the table's columns: A is (K, R, in) and B is (K, out, R), where R is the highest rank. Lower ranks are padded with
zeros, which stay zero, since zero rows of A multiply zero columns of B. A member has zeros for layers it doesn't adapt.

Three kinds of model share the frozen weights: the base, the members, and the model from `stack_members`, which computes
for all members. For saving and scoring, a member is an ordinary model (`share`, then `method.attach`) whose parameters
are views of its row of the table. Thus, `save_adapter` sees an ordinary adapter, the optimizer sees one long tensor,
and nothing is copied. Only dropout masks differ from those of a single run. PLoRA (Yan et al. 2025) trains this way.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer, has_hook
from lora_lab.errors import BadValue
from lora_lab.methods.attach import Ahead, adapter_layers, own_parameters, plain_path, put, quantized_layers
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.methods.targets import roles_of

# The stacked parameters are strided views of the table. torch warns about this, but training is just as fast.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

# Each member's adapter or None; the key is a path in the plain model and a slice of the layer's outputs
Parts = dict[tuple[str, tuple[int, int] | None], list[AdapterLayer | None]]


def share(model: nn.Module) -> nn.Module:
    """Copy a model's modules but share its weights. The copy takes little memory and can have its own adapter."""
    # Share quantized layers too, because moving a layer replaces its buffers, and a copy would keep the old buffers.
    shared = chain(model.parameters(), model.buffers(), quantized_layers(model))
    return copy.deepcopy(model, {id(part): part for part in shared})


def stack_members(base: nn.Module, members: Sequence[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a model that computes all members at once, a table of their parameters (K, N), and a table of gradients.

    base      The plain model from which every member was made with `share`.
    members   Models with the same method (`can_pack`). The ranks, scalings, targets and dropout may differ.
    Raises: BadValue if the base model's layers mix rows of different members or read an input that all members share.
    """
    parts: Parts = {}
    for k, member in enumerate(members):
        for path, part in reversed(list(adapter_layers(member))):  # inner adapters come before outer ones
            parts.setdefault((plain_path(path), part.out_slice), [None] * len(members))[k] = part
    adapts_layers = any(not (p is None or p.head or isinstance(p, Ahead)) for slot in parts.values() for p in slot)
    mixed = mixes_rows(base, (path for path, _ in parts))
    why = "mix or reorder rows, so the runs would read each other's rows" if mixed else ""
    tables = (path for path, _ in parts if "position" in roles_of(path))  # most are read once for all rows
    read_once = any(not path.endswith(("token_type_embeddings", "shared")) for path in tables)
    if read_once or getattr(getattr(base, "config", None), "relative_attention", False):
        why = "also read positions, which all runs may share"
    if adapts_layers and why:
        raise BadValue(f"the layers of this {type(base).__name__} {why}: train the runs one by one, with --solo")
    stacks, numbers, gradients = _stacked(parts, len(members))
    model = share(base)
    for (path, _), slot_parts in parts.items():
        first = next(part for part in slot_parts if part is not None)
        if isinstance(first, Ahead):
            Ahead(first.method, {}, slot_parts).register(model, path)  # type: ignore[arg-type]
        else:
            stacked = {name: stacks[id(p)] for name, p in own_parameters(first) if id(p) in stacks}
            put(model, path, Packed(model.get_submodule(path), slot_parts, stacked))
    return model, numbers, gradients


def mixes_rows(model: nn.Module, paths: Iterable[str]) -> bool:
    """Return whether one of these layers reads inputs whose first dimension isn't the rows, as in (tokens, rows, d)."""
    experts = any(".experts." in path for path in paths)  # in Switch and NLLB-MoE, they read tokens from any row
    kind = getattr(getattr(model, "config", None), "model_type", "")
    return experts or kind in ("fsmt", "led", "longformer", "xlnet")


def has_dropout(member: nn.Module) -> bool:
    """Return whether a member's adapters use dropout."""
    return any(isinstance(m, nn.Dropout) and m.p > 0 for _, part in adapter_layers(member) for m in part.modules())


class Packed(AdapterLayer):
    """One adapter layer for all members, with an input x (K*n, ...) and an output y (K*n, ...).

    parts     Each member's adapter for this layer, or None. `vmap` uses the first adapter as a template.
    stacked   The template's parameters by name, each stacked over the members: (K, *shape).
    """

    def __init__(self, base_layer: nn.Module, parts: Sequence[Any], stacked: Mapping[str, nn.Parameter]) -> None:
        super().__init__(base_layer)
        first = next(part for part in parts if part is not None)
        shared = {id(t): t for t in (first.base_layer, *first.parameters(), *first.buffers())}
        self.template: Any = copy.deepcopy(first, shared)
        self.size, self.head = len(parts), first.head
        self.stacked = {f"template.{name}": p for name, p in stacked.items()}  # unregistered: optimizers use the table
        self.scaling, self.rate = None, None  # for LoRA, each member's scaling and dropout, (K,)
        if isinstance(first, LoRALayer):
            self.out_slice, own = first.out_slice, next(iter(stacked.values()))
            self.scaling = own.new_tensor([0.0 if part is None else part.scaling for part in parts])
            rates = [getattr(getattr(part, "dropout", None), "p", 0.0) for part in parts]
            if any(rates):
                self.rate, self.template.dropout = own.new_tensor(rates), nn.Identity()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.head:
            return self._vmap(lambda head, x: head(x), x)
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        if self.scaling is None:
            y: Tensor = self.base_layer(self._vmap(self.template.method.before, x), *args, **kwargs)
            return self._vmap(self.template.method.after, y, x)
        y = self.base_layer(x)
        if self.rate is not None and self.training:
            rows = x.unflatten(0, (self.size, -1))
            rate = self.rate.view(-1, *[1] * (rows.dim() - 1))
            x = (rows * (torch.rand_like(rows, dtype=torch.float32) >= rate) / (1 - rate).to(x.dtype)).flatten(0, 1)
        update = self._vmap(lambda lora, x: lora.update(x, y.dtype), x)  # added outside vmap, which saves a pass over y
        if self.out_slice:
            update = F.pad(update, (self.out_slice[0], y.shape[-1] - self.out_slice[1]))
        return y + update if torch.is_grad_enabled() or has_hook(self.base_layer) else y.add_(update)

    def _vmap(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Apply function(template, *inputs) for each member, with its parameters and its rows of the inputs."""
        parameters: dict[str, Tensor] = dict(self.stacked)
        if self.scaling is not None:
            b = next(name for name in parameters if name.endswith("_B"))  # lora_B, or lora_embedding_B
            parameters[b] = parameters[b] * self.scaling[:, None, None]
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


@torch.no_grad()
def _stacked(parts: Parts, size: int) -> tuple[dict[int, nn.Parameter], Tensor, Tensor]:
    """Stack each parameter over the members, and make the members' parameters views of the stack (K, *shape).

    Return {id of a parameter: its stack}, and tables of values and gradients. A shared parameter is stacked only once.
    """
    groups: dict[Any, list[tuple[int, nn.Parameter]]] = {}  # by slot and name
    seen = set[int]()
    for slot, slot_parts in parts.items():
        for k, part in enumerate(slot_parts):
            for name, p in own_parameters(part) if part is not None else ():
                if p.requires_grad and id(p) not in seen:
                    groups.setdefault((slot, name), []).append((k, p))
                    seen.add(id(p))
    shapes = [tuple(map(max, zip(*(p.shape for _, p in group), strict=True))) for group in groups.values()]
    ends = torch.tensor([0, *map(math.prod, shapes)]).cumsum(0).tolist()
    first = next((p for group in groups.values() for _, p in group), torch.empty(0))  # loaded P-tuning trains nothing
    values = torch.zeros(size, ends[-1], device=first.device, dtype=first.dtype)
    gradients, stacks = torch.zeros_like(values), dict[int, nn.Parameter]()
    for group, shape, start, end in zip(groups.values(), shapes, ends[:-1], ends[1:], strict=True):
        stack = nn.Parameter(values[:, start:end].view(size, *shape))
        stack.grad = gradients[:, start:end].view(size, *shape)
        for k, p in group:
            index: Any = (k, *map(slice, p.shape))
            stack[index] = p
            p.data, p.grad = stack.data[index], stack.grad[index]
            stacks[id(p)] = stack
    return stacks, values, gradients
