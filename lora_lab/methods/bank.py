"""Many adapters on one base: load them by name, choose one, weigh several into one, or give each row its own.

    bank = AdapterBank(model)
    bank.load("captain", folder)
    bank.use("captain")                        every row; use(None) is the base alone
    bank.blend({"a": 0.5, "b": 0.5}, "mix")    W + 0.5 * delta_a + 0.5 * delta_b
    with bank.mixed(["a", None, "mix"]):       row by row
        model(**batch)

Each adapter is loaded into a model of its own that shares all of the base's weights, by `load_adapter` with all its
checks. What that put around a layer is then one of the answers of that layer in `model`, see `mixed.py`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.methods.attach import adapter_layers, adapters, plain_path, put, refuse_adapted, report_of
from lora_lab.methods.base import Report
from lora_lab.methods.blend import blended
from lora_lab.methods.io import load_adapter, method_saved_in, save_adapter
from lora_lab.methods.mixed import BankedLayer, Choice, Name, Rows, lora_around
from lora_lab.methods.options import is_number
from lora_lab.methods.packed import share


class AdapterBank:
    """The adapters of one base model, by name. Its weights stay frozen, and as they are.

    Raises: BadValue when the model carries an adapter, or another bank.
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_adapted(model)
        self.model, self._plain = model.requires_grad_(False), share(model)
        self._alone: dict[str, nn.Module] = {}  # each adapter on a model of its own
        self._layers: dict[str, BankedLayer] = {}
        self._choice, self._rows = Choice(), Rows(())

    @property
    def names(self) -> tuple[str, ...]:
        """Every adapter, in the order in which they came."""
        return tuple(self._alone)

    @property
    def used(self) -> Name | tuple[Name, ...]:
        """The adapter that answers, None for the base alone; in a mixed batch that of each row."""
        now = self._choice.now
        return now.names if isinstance(now, Rows) else now

    def __contains__(self, name: object) -> bool:
        return name in self._alone

    def __len__(self) -> int:
        return len(self._alone)

    def report(self, name: str) -> Report:
        """What an adapter touches. Raises: NotFound for an unknown name."""
        return report_of(self._alone[self._known(name)])

    # ---- which there are

    def load(self, name: str, folder: str | Path) -> Report:
        """Hold the adapter in `folder`, ours or PEFT's, as `name`; what is in use stays in use.

        Raises: as `load_adapter`, for one of another base too; BadValue for a name that is taken, and for a method that
        a bank cannot hold: one that trains the base itself, or puts vectors ahead of the rows.
        """
        self._free(name)
        method = method_saved_in(folder, self._plain)
        if method.trains_base:
            raise BadValue(f"{method.name} trains the base's own weights, so it cannot share the base with others")
        alone = share(self._plain)
        report = load_adapter(alone, folder)
        if any(hasattr(part, "hook") for _, part in adapters(alone)):
            raise BadValue(
                f"a bank holds what stands beside single layers (lora, bitfit, bottleneck, ia3); '{name}' is of the "
                f"method {method.name}, which works on the whole model: load_adapter alone"
            )
        self._hold(name, alone)
        return report

    def add(self, name: str, adapted: nn.Module) -> Report:
        """Hold a copy of the adapter that another model carries, as saving and loading would. Raises: as `load`."""
        with tempfile.TemporaryDirectory() as folder:
            return self.load(name, save_adapter(adapted, folder))

    def blend(self, weights: Mapping[str, float], name: str) -> Report:
        """Hold the weighted sum of several LoRAs as `name`: W + sum of weight * scaling * B A, exactly.

        Heads are averaged with the same weights, divided by their sum.
        Raises: BadValue for a name that is taken, no weights, one that is no finite number, heads whose weights sum to
        zero, or an adapter that is no sum (DoRA, and what is no LoRA); NotFound for an unknown adapter.
        """
        self._free(name)
        for part, weight in weights.items():
            if not is_number(weight) or not math.isfinite(weight):
                raise BadValue(f"the weight of '{self._known(part)}' must be a finite number, not {weight!r}")
        alone = blended(share(self._plain), {part: (self._alone[self._known(part)], w) for part, w in weights.items()})
        self._hold(name, alone)
        return report_of(alone)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write an adapter, a blend too, as `save_adapter` does. Raises: NotFound for an unknown name."""
        return save_adapter(self._alone[self._known(name)], folder)

    def remove(self, name: str) -> None:
        """Forget an adapter; if it is in use, the base answers alone from now on.

        Raises: NotFound for an unknown name; BadValue inside `mixed` for an adapter of one of its rows.
        """
        now = self._choice.now
        if isinstance(now, Rows) and self._known(name) in now.names:
            raise BadValue(f"'{name}' answers for rows of the batch at hand: remove it after the mixed block")
        del self._alone[self._known(name)]
        if now == name:
            self._choice.now = None
        for path, layer in list(self._layers.items()):
            layer.drop(name)
            if not len(layer):
                put(self.model, path, self._layers.pop(path).base_layer)

    def close(self) -> None:
        """Forget all adapters: the model is the plain base again, still frozen."""
        self.use(None)
        for name in self.names:
            self.remove(name)

    # ---- which answers

    def use(self, name: Name) -> None:
        """Let this adapter answer for every row, None the base alone. Moves no weight: it sets a name.

        Raises: NotFound for an unknown name.
        """
        self._choice.now = self._known_or_base(name)

    @contextmanager
    def mixed(self, names: Sequence[Name]) -> Iterator[None]:
        """Inside the block each row of a batch has the adapter named for it; None is the base alone.

        names   one for each row, in the rows' order; the same may stand there again. With beams each row counts as
                often as it has beams.
        Raises: NotFound for an unknown name; BadValue for no names, and in the model's call where rows are not as many.
        """
        if isinstance(names, str) or not names:
            raise BadValue(f"mixed takes a list with the adapter of each row, not {names!r}")
        rows = tuple(self._known_or_base(name) for name in names)
        if rows != self._rows.names:  # the same as last time: what the layers picked for them still holds
            self._rows = Rows(rows)
        before, self._choice.now = self._choice.now, self._rows
        hook = self.model.register_forward_pre_hook(self._check_rows, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self._choice.now = before

    # ---- inside

    def _check_rows(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What a decoder goes on with while it generates; what its encoder had read comes as hidden states then.
        names = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
        given = [*args, *(kwargs.get(name) for name in names)]
        rows = next(len(value) for value in given if isinstance(value, torch.Tensor))
        if isinstance(self._choice.now, Rows) and rows != len(self._choice.now.names):
            raise BadValue(
                f"the batch has {rows} rows, but mixed was given {len(self._choice.now.names)} names: one a row"
            )

    def _known_or_base(self, name: Name) -> Name:
        return None if name is None else self._known(name)

    def _known(self, name: str) -> str:
        if name not in self._alone:
            there = f"nearest: {nearest(str(name), self._alone)}" if self._alone else "it is empty"
            raise NotFound(f"the bank holds no adapter '{name}'; {there}")
        return name

    def _free(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise BadValue(f"an adapter's name is a word, not {name!r}")
        if name in self._alone:
            raise BadValue(f"the bank holds an adapter '{name}' already: remove('{name}') first, or take another name")

    def _hold(self, name: str, alone: nn.Module) -> None:
        self._alone[name] = alone.requires_grad_(False)
        for path in {plain_path(path): None for path, _ in adapter_layers(alone)}:
            way = alone.get_submodule(path)
            for layer in lora_around(way):
                layer.dropout = nn.Identity()  # a bank answers, it does not train
            self._layer(path).hold(name, way)

    def _layer(self, path: str) -> BankedLayer:
        if path not in self._layers:
            frozen = self.model.get_submodule(path)
            self._layers[path] = BankedLayer(frozen, self._choice).train(frozen.training)
            put(self.model, path, self._layers[path])
        return self._layers[path]
