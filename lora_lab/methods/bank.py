"""Keep many adapters on one base model. Select one by name, blend several, or use a different one for each row.

    bank = AdapterBank(model)
    bank.load("captain", folder)
    bank.use("captain")                        # use one adapter for every row; use(None) selects the base alone
    bank.blend({"a": 0.5, "b": 0.5}, "mix")    # add an adapter with the weights W + 0.5 * delta_a + 0.5 * delta_b
    with bank.mixed(["a", None, "mix"]):       # use one adapter per row
        model(**batch)

Each adapter is loaded into its own copy of the model, which shares the base's weights. Each `BankLayer` in `model`
holds the adapted versions of one layer, so selecting another adapter changes only a name and moves no weights.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer, has_hook
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.layers import LoRALinear
from lora_lab.methods import attach
from lora_lab.methods.base import Report, is_number, plain
from lora_lab.methods.io import load_adapter, open_for, save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.lora_layers import DoRALinear, LoRALayer, file_tensors
from lora_lab.methods.packed import mixes_rows, share
from lora_lab.methods.peft import only

Name = str | None  # an adapter's name; None means the base alone


class AdapterBank:
    """Named adapters on one base model. The base model is frozen and never changes.

    Raises: BadValue if the model already has an adapter or a bank of adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        attach.refuse_adapted(model)
        self.model, self._plain = model.requires_grad_(False), share(model)
        self._models: dict[str, nn.Module] = {}  # for each adapter, its own copy of the model
        self._layers: dict[str, BankLayer] = {}
        self._choice = SimpleNamespace(used=None)  # shared by all layers

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all adapters, in the order in which they were added."""
        return tuple(self._models)

    @property
    def used(self) -> Name | tuple[Name, ...]:
        """The name of the adapter in use, None for the base alone, or, within `mixed`, a tuple with a name per row."""
        return self._choice.used  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def report(self, name: str) -> Report:
        """Return an adapter's report. Raises: NotFound for an unknown name."""
        return attach.report_of(self._models[self._check_name(name)])

    # ---- adding and removing

    def load(self, name: str, folder: str | Path) -> Report:
        """Add the adapter in `folder`, saved by lora_lab or PEFT, under `name`. The adapter in use doesn't change.

        Raises: BadValue if `name` is taken, or if the method trains the base model or works on the whole model. For
        other errors, see `load_adapter`.
        """
        self._check_free(name)
        _, method = open_for(self._plain, folder)
        if method.trains_base:
            raise BadValue(f"{method.name} trains the base itself, so it cannot share the base with other adapters")
        adapted = share(self._plain)
        report = load_adapter(adapted, folder)
        if any(hasattr(part, "hook") for _, part in attach.adapter_layers(adapted)):
            raise BadValue(f"{method.name} adapts the whole model, but a bank adapts only layers: use load_adapter")
        self._insert(name, adapted)
        return report

    def add(self, name: str, adapted: nn.Module) -> Report:
        """Add a copy of the adapter that is attached to another model. For errors, see `load`."""
        with tempfile.TemporaryDirectory() as folder:
            return self.load(name, save_adapter(adapted, folder))

    @torch.no_grad()
    def blend(self, weights: Mapping[str, float], name: str) -> Report:
        """Add a weighted sum of several LoRA adapters under `name`: W plus the exact sum of weight * scaling * B A.

        The result is a LoRA adapter whose A and B are the stacked A and B of the given adapters. Heads are averaged
        with the same weights, normalized to sum to 1.
        Raises: BadValue if `name` is taken, `weights` is empty, a weight is not a finite number, there are heads and
        the weights sum to zero, or an adapter is not plain LoRA; NotFound for an unknown adapter.
        """
        self._check_free(name)
        if not isinstance(weights := plain(weights), Mapping) or not weights:
            raise BadValue("a blend needs at least one adapter and its weight")
        for part, weight in weights.items():
            self._check_name(part)
            if not is_number(weight) or not math.isfinite(weight):
                raise BadValue(f"the weight of '{part}' must be a finite number, not {weight!r}")
        terms: dict[str, list[tuple[Tensor, Tensor]]] = {}  # by path: A (rank, in), weight * B^T (rank, out)
        for path, bank_layer in self._layers.items():
            for part in [part for part in weights if part in bank_layer.adapted]:
                layer = bank_layer.adapted[part]
                if _loras(layer):
                    a, b = _pair(layer)
                    terms.setdefault(path, []).append((a, weights[part] * b))
                elif not isinstance(layer, attach.TrainedCopy):
                    raise BadValue(f"'{part}' is not plain LoRA, so it cannot be blended: leave it out")
        if not terms:
            raise BadValue("none of these adapters changes a layer, so there is nothing to blend")
        ranks = {only(path): sum(len(a) for a, _ in pairs) for path, pairs in terms.items()}
        rank, blended = max(ranks.values()), share(self._plain)
        method = LoRA(rank, rank, tuple(ranks), rank_pattern=ranks, alpha_pattern=ranks)  # scaling 1
        method.attach(blended, to_fill=True)
        for path, pairs in terms.items():
            (_, lora_A), (_, lora_B) = attach.own_parameters(blended.get_submodule(path))
            lora_A.copy_(torch.cat([a for a, _ in pairs]))
            lora_B.copy_(torch.cat([b for _, b in pairs]).t())
        total = sum(weights.values())
        for path, head in attach.adapter_layers(blended):
            if isinstance(head, attach.TrainedCopy):
                if abs(total) < 1e-6:
                    raise BadValue("the weights sum to 0, so the heads cannot be averaged: use weights that sum to 1")
                states = {part: self._models[part].get_submodule(f"{path}.trained").state_dict() for part in weights}
                for key, value in head.trained.state_dict().items():
                    value.copy_(sum(weight / total * states[part][key] for part, weight in weights.items()))
        self._insert(name, blended)
        return attach.report_of(blended)

    def save(self, name: str, folder: str | Path) -> Path:
        """Save an adapter or a blend with `save_adapter`. Raises: NotFound for an unknown name."""
        return save_adapter(self._models[self._check_name(name)], folder)

    def remove(self, name: str) -> None:
        """Remove an adapter. If the adapter is in use, switch to the base model alone.

        Raises: NotFound for an unknown name, and BadValue within `mixed` if a row uses the adapter.
        """
        if isinstance(self.used, tuple) and self._check_name(name) in self.used:
            raise BadValue(f"'{name}' is used by rows of this batch: remove it after the mixed block")
        del self._models[self._check_name(name)]
        if self.used == name:
            self._choice.used = None
        for path, layer in list(self._layers.items()):
            layer.change({other: adapted for other, adapted in layer.adapted.items() if other != name})
            if not layer.adapted:
                attach.put(self.model, path, self._layers.pop(path).base_layer)
        if not self._models:
            attach.remove_adapters(self.model)  # lets torch's encoders use nested tensors again

    def close(self) -> None:
        """Remove all adapters, and leave the plain base model, which stays frozen."""
        self.use(None)
        for name in self.names:
            self.remove(name)

    def _check_free(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise BadValue(f"an adapter's name must be a non-empty string, not {name!r}")
        if name in self._models:
            raise BadValue(f"the bank already has an adapter '{name}': remove('{name}') first, or choose another name")

    def _check_name(self, name: str) -> str:
        if not isinstance(name, str) or name not in self._models:
            hint = f"nearest: {nearest(str(name), self._models)}" if self._models else "it is empty"
            raise NotFound(f"the bank has no adapter '{name}'; {hint}")
        return name

    def _insert(self, name: str, adapted: nn.Module) -> None:
        self._models[name] = adapted.requires_grad_(False)
        for part in adapted.modules():
            if isinstance(part, LoRALinear):
                part.dropout = nn.Identity()  # a bank does not train
        for path in dict.fromkeys(attach.plain_path(path) for path, _ in attach.adapter_layers(adapted)):
            if path not in self._layers:
                frozen = self.model.get_submodule(path)
                self._layers[path] = BankLayer(frozen, self._choice).train(frozen.training)
                attach.put(self.model, path, self._layers[path])
            layer = self._layers[path]
            layer.change({**layer.adapted, name: adapted.get_submodule(path).train(layer.training)})

    # ---- selecting

    def use(self, name: Name) -> None:
        """Use one adapter for every row, or the base alone if `name` is None. Raises: NotFound for an unknown name."""
        self._choice.used = None if name is None else self._check_name(name)

    @contextmanager
    def mixed(self, names: Sequence[Name]) -> Iterator[None]:
        """In the `with` block, use a different adapter for each row of a batch. None stands for the base model alone.

        names   A list with one name per row, in order, or with one name per beam for beam search (decoders only).
        Raises: NotFound for an unknown name, and BadValue if `names` is empty or differs in length from the batch.
        """
        if isinstance(names := plain(names), str) or not isinstance(names, Sequence) or not names:
            raise BadValue(f"mixed takes a list of names, one per row, not {names!r}")
        if mixes_rows(self.model, self._layers):
            kind = type(self.model).__name__
            raise BadValue(f"the layers of {kind} mix or reorder rows: call use(name) for one adapter at a time")
        rows = tuple(None if name is None else self._check_name(name) for name in names)
        before, self._choice.used = self.used, rows

        def check_rows(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # During generation, an encoder-decoder receives new tokens as decoder_input_ids.
            inputs = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
            values = (*args, *map(kwargs.get, inputs), *kwargs.values())  # image and audio inputs have other names
            n = next((len(value) for value in values if isinstance(value, Tensor) and value.dim()), 0)
            if isinstance(self.used, tuple) and n != len(self.used):
                raise BadValue(f"the batch has {n} rows, but mixed was given {len(self.used)} names: pass one per row")

        hook = self.model.register_forward_pre_hook(check_rows, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self._choice.used = before if isinstance(before, tuple) or before in self._models else None


class BankLayer(AdapterLayer):
    """A frozen layer, together with one adapted version of the layer for each adapter that changes it.

    In a mixed batch, heads and methods other than LoRA are computed separately for each adapter. For LoRA:

        y = W x                       # once for all rows; x is (rows, ..., in)
        y[n] += B[n] A[n] x[n]        # two batched products, in which lower ranks are padded with zeros
    """

    def __init__(self, base_layer: nn.Module, choice: SimpleNamespace) -> None:
        super().__init__(base_layer)
        self.choice = choice
        self.change({})

    def change(self, adapted: dict[Name, nn.Module]) -> None:
        """Set the adapted versions of this layer: a mapping from adapter names to layers."""
        self.adapted = adapted
        self.held = nn.ModuleList(adapted.values())  # registered, so that moving the model to a device moves them too
        self.head = any(isinstance(layer, attach.TrainedCopy) for layer in self.held)
        self.low_rank = [n for n, layer in adapted.items() if isinstance(layer, LoRALinear) and _loras(layer)]
        self._stacked: Tensor | None = None
        self._batch: object = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        used: Any = self.choice.used if self.enabled else None
        names = self.adapted.keys() & set(used) if isinstance(used, tuple) else set[Name]()
        if not names:  # `used` is one name, or a tuple, which is never a key, so `get` returns the base layer
            return self.adapted.get(used, self.base_layer)(x, *args, **kwargs)  # type: ignore[no-any-return]
        batched = names.issubset(self.low_rank)
        if len(x) != len(used) and not (batched and x.dim() == 2 and len(x) % len(used) == 0):
            why = f"a layer gets an input of shape {tuple(x.shape)}, whose first dimension is not the number of rows"
            raise BadValue(f"{why}, so rows cannot have different adapters: call use(name) for one adapter at a time")
        if batched:
            in_features = x.shape[-1]
            y: Tensor = self.base_layer(x.reshape(-1, in_features))  # (rows * tokens, out)
            a, b = self._gathered(y).tensor_split([in_features], dim=2)  # (rows, R, in), (rows, R, out)
            h = torch.bmm(x.reshape(len(a), -1, in_features).to(y.dtype), a.transpose(1, 2))  # (rows, tokens, R)
            y = y.view(len(a), -1, y.shape[-1])
            add = y.baddbmm if has_hook(self.base_layer) else y.baddbmm_  # a hook may have kept y
            return add(h, b).view(*x.shape[:-1], y.shape[-1])
        groups = {name: [row for row, other in enumerate(used) if other == name] for name in dict.fromkeys(used)}
        frozen_x = x.to(next(self.base_layer.parameters()).dtype) if self.head else x  # a trained head returns fp32
        layers = ((self.adapted[n], x) if n in self.adapted else (self.base_layer, frozen_x) for n in groups)
        parts = [layer(z[rows], *args, **kwargs) for (layer, z), rows in zip(layers, groups.values(), strict=True)]
        return torch.cat(parts)[torch.tensor([row for rows in groups.values() for row in rows]).argsort()]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _gathered(self, y: Tensor) -> Tensor:
        """Return [A | B^T] of each row as a tensor (rows, R, in + out), where R is the highest rank in this layer."""
        batch = self.choice.used, y.dtype, y.device
        if batch != self._batch:  # during generation, every step has the same rows
            if self._stacked is None or (self._stacked.dtype, self._stacked.device) != batch[1:]:
                pairs = [torch.cat(_pair(self.adapted[name]), 1).to(y) for name in self.low_rank]
                zeros = pairs[0].new_zeros(1, pairs[0].shape[1])  # for rows without an adapter
                self._stacked = nn.utils.rnn.pad_sequence([*pairs, zeros], batch_first=True)
            indices = {name: index for index, name in enumerate(self.low_rank)}
            self._cached = self._stacked[[indices.get(name, -1) for name in self.choice.used]]
            self._batch = batch
        return self._cached


def _loras(layer: nn.Module) -> list[LoRALayer]:
    """Return the LoRA layers around a frozen layer, one per slice, or an empty list for other methods such as DoRA."""
    loras: list[LoRALayer] = []
    while isinstance(layer, LoRALayer) and not isinstance(layer, DoRALinear):
        loras.append(layer)
        layer = layer.base_layer
    return [] if isinstance(layer, AdapterLayer) else loras


def _pair(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Combine the LoRA layers around a frozen layer and return one A (rank, in) and one scaling * B^T (rank, out)."""
    loras = _loras(layer)
    a, b = file_tensors(loras).values()
    return a, loras[0].scaling * b.t()
