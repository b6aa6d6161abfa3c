"""K adapters side by side on one frozen base: their rows stand in one batch, their matrices in one tensor.

    x (K·rows, tokens, in)           the rows of lane 0, then those of lane 1, ...
    y = W x + b                      one product for all lanes, for they share W
    y[k] += scaling_k B_k A_k x[k]   two batched products: A (K, R, in), B (K, R, out)

R is the largest rank of any lane. Smaller ones are filled up with zeros, and stay so: a zero row of A meets a zero row
of B, so both have a gradient of exactly zero. A lane that does not adapt a layer is all zeros there.

Each lane is a plain model too, with its method attached as if it were alone (`share`, then `method.attach`). Its
parameters are made views into the tensors here, and so are their gradients: an optimizer, clipping and `save_adapter`
see an ordinary adapter, and nothing is copied back and forth. PLoRA (Yan et al. 2025) trains many adapters likewise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.layers import AdaptedLayer, LoRAEmbedding, LoRALinear, TrainedCopy
from lora_lab.methods.attach import adapted_layers, put
from lora_lab.methods.soft_prompt import SoftPrompt, prepend

PACKABLE = ("lora", "prompt", "bitfit", "head")  # methods whose lanes share a frozen base

Slot = tuple[str, tuple[int, int] | None]  # a layer's path, and which of its outputs


def share(model: nn.Module) -> nn.Module:
    """A second model on the same weights: its own modules, so that it can be adapted alone, and hardly any memory."""
    return copy.deepcopy(model, {id(t): t for t in chain(model.parameters(), model.buffers())})


def pack(base: nn.Module, lanes: Sequence[nn.Module], streams: Sequence[Stream]) -> nn.Module:
    """One model that answers for all lanes: rows of lane 0 first, then lane 1's, ...; equally many of each.

    base      the plain model that every lane is a `share` of
    lanes     each with a method of the same kind attached; their parameters become views into the packed tensors
    streams   the random numbers of each lane
    """
    model = share(base)
    for (path, _), layers in _by_slot(lanes).items():
        put(model, path, PackedLoRA(model.get_submodule(path), layers, streams))
    for path, biases in _biases(base, lanes).items():
        put(model, path, PackedBias(model.get_submodule(path), biases))
    for name, head in lanes[0].named_children():
        if isinstance(head, TrainedCopy):
            put(model, name, PackedHead([getattr(lane, name) for lane in lanes], streams))
    if hasattr(lanes[0], "soft_prompt"):
        model.soft_prompt = PackedPrompt([lane.soft_prompt for lane in lanes])  # type: ignore[misc]
        model.register_forward_pre_hook(prepend, with_kwargs=True)
    return model


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


class PackedLoRA(AdaptedLayer):
    """y = W x + b, and to lane k's rows of y scaling_k B_k A_k dropout_k(x) is added.

    Shapes: x (K·rows, tokens, in) -> y (K·rows, tokens, out); A (K, R, in), B (K, R, outputs that are adapted).
    """

    def __init__(self, base_layer: nn.Module, lanes: Sequence[LoRALinear | None], streams: Sequence[Stream]) -> None:
        super().__init__(base_layer)
        first = next(lane for lane in lanes if lane is not None)
        self.in_features, self.out_features, self.rows = first.in_features, first.out_features, first.rows
        rank, outputs = max(lane.rank for lane in lanes if lane is not None), first.lora_B.shape[0]
        self.A = _stacked((len(lanes), rank, self.in_features), first.lora_A)
        self.B = _stacked((len(lanes), rank, outputs), first.lora_B)
        scaling = torch.zeros(len(lanes), 1, 1, device=first.lora_A.device)
        for k, lane in enumerate(lanes):
            if lane is not None:
                scaling[k] = lane.scaling
                _alias(lane.lora_A, self.A, lambda t, k=k, r=lane.rank: t[k, :r])
                _alias(lane.lora_B, self.B, lambda t, k=k, r=lane.rank: t[k, :r].t())
        self.scaling: Tensor
        self.register_buffer("scaling", scaling)
        self.dropouts = [lane.dropout if lane is not None else None for lane in lanes]
        self.streams, self.drops = streams, any(isinstance(d, nn.Dropout) for d in self.dropouts)

    def forward(self, x: Tensor) -> Tensor:
        lanes = len(self.A)
        y = self.base_layer(x.reshape(-1, self.in_features)).view(lanes, -1, self.out_features)  # (K, tokens, out)
        a, b = self.A.to(y.dtype), (self.scaling * self.B).to(y.dtype)
        tokens = self._dropped(x) if self.drops and self.training else x
        h = torch.bmm(tokens.reshape(lanes, -1, self.in_features).to(y.dtype), a.transpose(1, 2))  # (K, tokens, R)
        if self.rows:
            y = y.clone()
            y[..., slice(*self.rows)].baddbmm_(h, b)
        else:
            y = torch.baddbmm(y, h, b)
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


class PackedHead(AdaptedLayer):
    """Each lane's own head on its own rows: small products, so they are done one after the other."""

    def __init__(self, heads: Sequence[TrainedCopy], streams: Sequence[Stream]) -> None:
        super().__init__(heads[0].base_layer)
        self.heads, self.streams = nn.ModuleList(head.trained for head in heads), streams
        self.drops = any(isinstance(m, nn.Dropout) and m.p for m in self.heads.modules())

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.heads, x.float().chunk(len(self.heads)), self.streams, strict=True)
        return torch.cat([self._answer(head, part, stream) for head, part, stream in parts])

    def _answer(self, head: nn.Module, part: Tensor, stream: Stream) -> Tensor:
        if not (self.drops and self.training):
            return head(part)  # type: ignore[no-any-return]
        with stream.drawing():
            return head(part)  # type: ignore[no-any-return]


class PackedBias(nn.Module):
    """A frozen layer whose bias is each lane's own. Shapes: x (K·rows, ..., in) -> y (K·rows, ..., out)."""

    def __init__(self, base_layer: nn.Module, biases: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bias = _stacked((len(biases), *biases[0].shape), biases[0])
        for k, bias in enumerate(biases):
            _alias(bias, self.bias, lambda t, k=k: t[k])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x)
        frozen: Tensor = self.base_layer.bias  # type: ignore[assignment]
        moved = self.bias - frozen.detach()  # (K, out): the frozen bias is in y already
        return (y.view(len(self.bias), -1, y.shape[-1]) + moved.unsqueeze(1)).view_as(y)


class PackedPrompt(nn.Module):
    """Each lane's soft prompt before its own rows. Shapes: (K·rows, length, hidden) -> (K·rows, p + length, hidden)."""

    def __init__(self, lanes: Sequence[SoftPrompt]) -> None:
        super().__init__()
        self.lanes = nn.ModuleList(lanes)

    @property
    def prompt(self) -> Tensor:
        """The first lane's: all are equally long."""
        return self.lanes[0].prompt  # type: ignore[return-value]

    def forward(self, embedded: Tensor) -> Tensor:
        parts = embedded.chunk(len(self.lanes))
        return torch.cat([lane(part) for lane, part in zip(self.lanes, parts, strict=True)])


def own_biases(model: nn.Module) -> None:
    """Give a `share` biases of its own, for a method that trains the base's."""
    for module in model.modules():
        bias = module._parameters.get("bias")
        if bias is not None:
            module.bias = nn.Parameter(bias.detach().clone())


def _by_slot(lanes: Sequence[nn.Module]) -> dict[Slot, list[LoRALinear | None]]:
    """What each lane has at each place that any lane adapts; None where a lane has nothing."""
    found: dict[Slot, list[LoRALinear | None]] = {}
    for k, lane in enumerate(lanes):
        for path, layer in adapted_layers(lane):
            if isinstance(layer, LoRALinear):
                slot = (path.replace(".base_layer", ""), layer.rows)
                found.setdefault(slot, [None] * len(lanes))[k] = layer
    return found


def _biases(base: nn.Module, lanes: Sequence[nn.Module]) -> dict[str, list[nn.Parameter]]:
    """The biases that train in every lane, by the path of their layer."""
    trained = [dict(lane.named_parameters()) for lane in lanes]
    paths = [name.removesuffix(".bias") for name, _ in base.named_parameters() if name.endswith(".bias")]
    return {
        path: [names[f"{path}.bias"] for names in trained]  # type: ignore[misc]
        for path in paths
        if f"{path}.bias" in trained[0] and trained[0][f"{path}.bias"].requires_grad
    }


def _stacked(shape: tuple[int, ...], like: Tensor) -> nn.Parameter:
    """A parameter of zeros whose gradient is there from the start, so that views into it stay views."""
    stack = nn.Parameter(torch.zeros(shape, dtype=like.dtype, device=like.device))
    stack.grad = torch.zeros_like(stack)
    return stack


def _alias(parameter: nn.Parameter | Tensor, stack: nn.Parameter, part: object) -> None:
    """Make a lane's parameter, and its gradient, a view of its part of the stack, with the values that it had."""
    assert callable(part)
    view = part(stack.data)
    view.copy_(parameter.data)
    parameter.grad = None
    parameter.data, parameter.grad = view, part(stack.grad)


def can_pack(model: nn.Module) -> bool:
    """Whether what is attached to a lane can stand in a pack; an adapted embedding cannot."""
    return not any(isinstance(layer, LoRAEmbedding) for _, layer in adapted_layers(model))
