"""Many adapters on one base: choose one by name, blend several into one, or give each row of a batch its own.

    bank = AdapterBank(model)
    bank.load("captain", folder)
    bank.use("captain")                        every row; use(None) is the base alone
    bank.blend({"a": 0.5, "b": 0.5}, "mix")    W + 0.5 * delta_a + 0.5 * delta_b
    with bank.mixed(["a", None, "mix"]):       row by row
        model(**batch)

Each adapter is loaded into a model of its own that shares the base's weights. Its adapted layers are then also held
by the `BankLayer` in their place in `model`, so switching sets a name and moves no weight.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import (
    TrainedCopy,
    adapter_layers,
    adapters,
    own_parameters,
    plain_path,
    put,
    refuse_adapted,
    report_of,
)
from lora_lab.methods.base import Report, is_number
from lora_lab.methods.io import load_adapter, method_saved_in, save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.lora_layers import DoRALinear, LoRAEmbedding, one_for_all_slices
from lora_lab.methods.packed import share

Name = str | None  # of an adapter; None is the base alone


class AdapterBank:
    """The adapters of one base model, by name. The base is frozen and its weights never change.

    Raises: BadValue when the model carries an adapter, or another bank.
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_adapted(model)
        self.model, self._plain = model.requires_grad_(False), share(model)
        self._alone: dict[str, nn.Module] = {}  # each adapter on a model of its own
        self._layers: dict[str, BankLayer] = {}
        self._choice = Choice()

    @property
    def names(self) -> tuple[str, ...]:
        """Every adapter, in the order in which they were added."""
        return tuple(self._alone)

    @property
    def used(self) -> Name | tuple[Name, ...]:
        """The adapter in use, None for the base alone; in a mixed batch that of each row."""
        return self._choice.used

    def __contains__(self, name: object) -> bool:
        return name in self._alone

    def report(self, name: str) -> Report:
        """What an adapter touches. Raises: NotFound for an unknown name."""
        return report_of(self._alone[self._known(name)])

    # ---- adding and removing

    def load(self, name: str, folder: str | Path) -> Report:
        """Add the adapter in `folder`, saved here or by PEFT, as `name`. What is in use stays in use.

        Raises: as `load_adapter`; BadValue for a name that is taken, and for a method that a bank cannot hold: one that
        trains the base itself, or that works on the whole model.
        """
        self._check_free(name)
        method = method_saved_in(folder, self._plain)
        if method.trains_base:
            raise BadValue(f"{method.name} trains the base's own weights, so it cannot share the base with others")
        alone = share(self._plain)
        report = load_adapter(alone, folder)
        if any(hasattr(part, "hook") for _, part in adapters(alone)):
            raise BadValue(f"{method.name} works on the whole model, a bank on single layers: use load_adapter instead")
        self._hold(name, alone)
        return report

    def add(self, name: str, adapted: nn.Module) -> Report:
        """Add a copy of the adapter that another model carries. Raises: as `load`."""
        with tempfile.TemporaryDirectory() as folder:
            return self.load(name, save_adapter(adapted, folder))

    @torch.no_grad()
    def blend(self, weights: Mapping[str, float], name: str) -> Report:
        """Add the weighted sum of several LoRAs as `name`: W + sum of weight * scaling * B A, exactly.

        It is a LoRA again, whose A and B are those of its parts one below the other. Heads are averaged with the same
        weights, divided by their sum.
        Raises: BadValue for a name that is taken, no weights, a weight that is not a finite number, heads whose weights
        sum to zero, and an adapter that is not a plain LoRA; NotFound for an unknown adapter.
        """
        self._check_free(name)
        if not weights:
            raise BadValue("a blend needs at least one adapter and its weight")
        terms: dict[str, list[tuple[Tensor, Tensor]]] = {}  # of each path: A (rank, in), weight * B^T (rank, out)
        for part, weight in weights.items():
            self._known(part)
            if not is_number(weight) or not math.isfinite(weight):
                raise BadValue(f"the weight of '{part}' must be a finite number, not {weight!r}")
            for path, held in self._layers.items():
                layer = held.adapted.get(part)
                if isinstance(layer, LoRAEmbedding) or part in held.low_rank:
                    a, b = _pair(held.adapted[part])
                    terms.setdefault(path, []).append((a, weight * b))
                elif layer and not isinstance(layer, TrainedCopy):
                    raise BadValue(f"'{part}' is not a plain LoRA, so it cannot be part of a sum: blend without it")
        if not terms:
            raise BadValue("none of these adapters changes a layer: there is nothing to add up")
        sums = {path: _sum(pairs) for path, pairs in terms.items()}
        ranks = {path: len(a) for path, (a, _) in sums.items()}
        rank, alone = max(ranks.values()), share(self._plain)
        LoRA(rank, alpha=rank, targets=tuple(ranks), rank_pattern=ranks, alpha_pattern=ranks).attach(alone)  # scaling 1
        for path, (a, b) in sums.items():
            for (_, parameter), value in zip(own_parameters(alone.get_submodule(path)), (a, b.t()), strict=True):
                parameter.copy_(value)
        total = sum(weights.values())
        for path, head in adapters(alone):
            if isinstance(head, TrainedCopy):
                if abs(total) < 1e-6:
                    raise BadValue("the weights sum to 0, so the heads have no mean: give weights that sum to 1")
                states = {part: self._alone[part].get_submodule(f"{path}.trained").state_dict() for part in weights}
                for key, value in head.trained.state_dict().items():
                    value.copy_(sum(weight / total * states[part][key] for part, weight in weights.items()))
        self._hold(name, alone)
        return report_of(alone)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write an adapter, also a blend, as `save_adapter` does. Raises: NotFound for an unknown name."""
        return save_adapter(self._alone[self._known(name)], folder)

    def remove(self, name: str) -> None:
        """Forget an adapter. If it is in use, the base answers alone from now on.

        Raises: NotFound for an unknown name; BadValue inside `mixed` for an adapter of one of its rows.
        """
        if self._known(name) in self._choice.rows:
            raise BadValue(f"'{name}' answers for rows of this batch: remove it after the mixed block")
        del self._alone[name]
        if self.used == name:
            self._choice.set(None)
        for path, layer in list(self._layers.items()):
            if layer.adapted.pop(name, None):
                layer.changed()
            if not layer.adapted:
                put(self.model, path, self._layers.pop(path).base_layer)

    def close(self) -> None:
        """Forget all adapters: the model is the plain base again, still frozen."""
        self.use(None)
        for name in self.names:
            self.remove(name)

    # ---- choosing

    def use(self, name: Name) -> None:
        """Let this adapter answer for every row, None the base alone. Raises: NotFound for an unknown name."""
        self._choice.set(None if name is None else self._known(name))

    @contextmanager
    def mixed(self, names: Sequence[Name]) -> Iterator[None]:
        """Inside the block each row of a batch has the adapter named for it; None is the base alone.

        names   one for each row, in order; with beam search each row counts as often as it has beams
        Raises: NotFound for an unknown name; BadValue for no names, and in the model's call for a batch of other size.
        """
        if isinstance(names, str) or not names:
            raise BadValue(f"mixed takes a list with the adapter of each row, not {names!r}")
        rows = tuple(None if name is None else self._known(name) for name in names)
        before = self.used
        self._choice.set(rows)
        hook = self.model.register_forward_pre_hook(self._check_rows, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self._choice.set(before)

    def _check_rows(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # An encoder-decoder that generates gets its new tokens as decoder_input_ids, beside what its encoder made.
        inputs = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
        given = [*args, *(kwargs.get(name) for name in inputs)]
        rows = next(len(value) for value in given if isinstance(value, torch.Tensor))
        if isinstance(self.used, tuple) and rows != len(self.used):
            raise BadValue(f"the batch has {rows} rows, but mixed was given {len(self.used)} names: give one a row")

    def _known(self, name: str) -> str:
        if name not in self._alone:
            there = f"nearest: {nearest(str(name), self._alone)}" if self._alone else "it is empty"
            raise NotFound(f"the bank holds no adapter '{name}'; {there}")
        return name

    def _check_free(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise BadValue(f"an adapter's name is a word, not {name!r}")
        if name in self._alone:
            raise BadValue(f"the bank holds an adapter '{name}' already: remove('{name}') first, or take another name")

    def _hold(self, name: str, alone: nn.Module) -> None:
        self._alone[name] = alone.requires_grad_(False)
        for part in alone.modules():
            if isinstance(part, LoRALinear):
                part.dropout = nn.Identity()  # a bank does not train
        for path in dict.fromkeys(plain_path(path) for path, _ in adapter_layers(alone)):
            if path not in self._layers:
                frozen = self.model.get_submodule(path)
                self._layers[path] = BankLayer(frozen, self._choice).train(frozen.training)
                put(self.model, path, self._layers[path])
            self._layers[path].adapted[name] = alone.get_submodule(path).train(self._layers[path].training)
            self._layers[path].changed()


class Choice:
    """Which adapter answers, the same for all layers of a model.

    used     an adapter, None for the base, or in a mixed batch that of each row
    rows     in a mixed batch, the rows of each adapter
    groups   in a mixed batch, the adapter of each group of neighboring rows; groups are equally long
    """

    def __init__(self) -> None:
        self.set(None)

    def set(self, used: Name | tuple[Name, ...]) -> None:
        self.used, self.rows, self.groups = used, dict[Name, list[int]](), tuple[Name, ...]()
        if isinstance(used, tuple):
            for row, name in enumerate(used):
                self.rows.setdefault(name, []).append(row)
            self.groups = used[:: math.gcd(*(len(list(run)) for _, run in groupby(used)))]


class BankLayer(AdapterLayer):
    """A frozen layer, and for each adapter that changes it the layer that stands here when that one is used.

    In a mixed batch all rows share the frozen layer's product, and each group of rows adds that of its LoRA:

        y = W x                       x (rows, ..., in)
        y[g] += B[g] A[g] x[g]        two batched products; smaller ranks are filled up with rows of zeros

    One wide masked product with all adapters, or a loop over them, takes 1.3 times as long and more. Heads and other
    methods compute adapter by adapter.
    """

    def __init__(self, base_layer: nn.Module, choice: Choice) -> None:
        super().__init__(base_layer)
        self.choice = choice
        self.adapted: dict[Name, nn.Module] = {}
        self.changed()

    def changed(self) -> None:
        """Call this after changing `adapted`."""
        self.held = nn.ModuleList(self.adapted.values())  # as submodules, they move to another device with the model
        self.low_rank = {name for name, layer in self.adapted.items() if _loras(layer)}
        self._stacks: dict[Name, Tensor] = {}  # [A | B^T] (rank, in + out) of each, as y needs it; None: zeros
        self._last: object = None  # the last mixed batch
        self._kept: Tensor | None = None  # what was gathered for it

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        used = self.choice.used if self.enabled else None
        if not isinstance(used, tuple):
            return self.adapted.get(used, self.base_layer)(x, *args, **kwargs)  # type: ignore[no-any-return]
        rows = self.choice.rows
        adapted = self.adapted.keys() & rows.keys()
        if not adapted:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        together = adapted <= self.low_rank
        if len(x) != len(used) and not (together and x.dim() == 2 and len(x) % len(used) == 0):
            raise BadValue(
                f"a layer of this model works on {tuple(x.shape)}, which is not row by row, so rows cannot differ in "
                "their adapter there: use(name) one after the other"
            )
        if together:
            return self._mixed(x)
        parts = [self.adapted.get(name, self.base_layer)(x[own], *args, **kwargs) for name, own in rows.items()]
        order = torch.tensor([row for own in rows.values() for row in own])
        return torch.cat(parts)[order.argsort()]

    def _mixed(self, x: Tensor) -> Tensor:
        inputs = x.shape[-1]
        y: Tensor = self.base_layer(x.reshape(-1, inputs))  # (rows * tokens, out)
        a, b = self._gathered(y).tensor_split([inputs], dim=2)  # (groups, R, in), (groups, R, out)
        h = torch.bmm(x.reshape(len(a), -1, inputs).to(y.dtype), a.transpose(1, 2))  # (groups, tokens, R)
        y = y.view(len(a), -1, y.shape[-1])
        add = y.baddbmm if self.base_layer._forward_hooks else y.baddbmm_  # a hook may keep y
        return add(h, b).view(*x.shape[:-1], y.shape[-1])

    def _gathered(self, y: Tensor) -> Tensor:
        """[A | B^T] of each group, (groups, R, in + out) where R is the largest rank among them."""
        batch = self.choice.used, y.dtype, y.device, torch.is_inference_mode_enabled()
        if batch == self._last and self._kept is not None:
            return self._kept
        zeros = self._stacks.get(None)
        if zeros is None or zeros.dtype != y.dtype or zeros.device != y.device:
            self._stacks = {name: torch.cat(_pair(self.adapted[name]), 1).detach().to(y) for name in self.low_rank}
            zeros = self._stacks[None] = torch.zeros_like(max(self._stacks.values(), key=len))
        stacks = [self._stacks.get(name, zeros[:0]) for name in self.choice.groups]
        rank = max(map(len, stacks))
        own = torch.cat([part for stack in stacks for part in (stack, zeros[: rank - len(stack)])])
        own = own.view(len(stacks), rank, -1)
        self._kept = own if batch == self._last else None  # the same rows again, as in generation
        self._last = batch
        return own


def _loras(layer: nn.Module) -> list[LoRALinear]:
    """The LoRAs around a frozen linear layer, one for each slice; none if anything else is: DoRA also scales W."""
    found: list[LoRALinear] = []
    while isinstance(layer, LoRALinear) and not isinstance(layer, DoRALinear):
        found.append(layer)
        layer = layer.base_layer
    return [] if isinstance(layer, AdapterLayer) else found


def _pair(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B^T (rank, out), the scaling in it, of the one LoRA that equals those around a layer."""
    if isinstance(layer, LoRAEmbedding):
        return layer.lora_embedding_A, layer.scaling * layer.lora_embedding_B.t()
    loras = _loras(layer)
    a, b = one_for_all_slices(loras)
    return a, loras[0].scaling * b.t()


def _sum(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The pair whose product is the sum of these; its rank is at most min(in, out)."""
    a, b = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])  # (R, in), (R, out)
    inputs, outputs = a.shape[1], b.shape[1]
    if len(a) > min(inputs, outputs):  # the product on one side, the identity on the other
        product = b.t() @ a  # (out, in)
        return (torch.eye(inputs).to(a), product.t()) if inputs <= outputs else (product, torch.eye(outputs).to(b))
    return a, b
