"""Base classes for methods that adapt individual layers. Each such method has its own file, like `bottleneck.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import F, Tensor, nn, torch
from lora_lab.methods.base import Method, attach, peft
from lora_lab.methods.targets import PREFIX, ROLES, choose


class LayerMethod(Method):
    """A method that changes the input or output of individual layers: `y = after(base_layer(before(x)))`.

    `places` selects the layers, and `start` creates their parameters. In the methods below, `adapter` is the module
    that replaces a layer. The adapter has `base_layer`, the parameters from `start`, and the options from `places`.
    """

    def places(self, model: nn.Module) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return a (path, options for `start`) pair for each layer. The options may be {"rows": ((0, 32),)}.

        If the options of several layers hold the same module, these layers share the module's trainable parameters.
        Raises: BadValue or NotFound if the method does not fit the model.
        """
        raise NotImplementedError

    def start(self, layer: nn.Module, **options: Any) -> Mapping[str, Tensor | nn.Module]:
        """Return {name: trainable fp32 parameter} for a layer. The initial parameters must not change the output.

        Put tensors that are not trained into a `Frozen` module; see `attach.py`.
        """
        raise NotImplementedError

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        """Return the input of the frozen layer, computed from the adapter's input x (..., in)."""
        return x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        """Return the adapter's output, computed from the frozen layer's output y (..., out) and input x (..., in)."""
        return y

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add the update to the frozen layer's fp32 weight (out, in) and fp32 bias (out), and return both sums."""
        raise NotImplementedError

    def insert(self, model: nn.Module, to_fill: bool, **common: Any) -> None:
        """Wrap each selected layer. The `common` options are passed to `start` for every layer."""
        for path, chosen in list(self.places(model)):
            layer, options = model.get_submodule(path), {**chosen, **common}
            start = {**options, **self.start(layer, **options)}
            attach.wrap(model, path, attach.MethodLayer(layer, self, start))


Rows = tuple[tuple[int, int], ...]  # slices of a fused layer's outputs that are adapted; () means all outputs


class TargetMethod(LayerMethod):
    """Base class for methods that adapt the linear layers named by `targets` and write files in PEFT's layout.

    `start` gets two options: `rows` selects the adapted outputs, and `empty` is True if a file will provide the values.

    in_peft     A mapping from PEFT's options to ours. A file's config and header must agree on these options.
    always      PEFT's options that have the same values in every file.
    by_output   A mapping from names in files to our names, for parameters that files store with one value per output.
    """

    can_pack, unmergeable = True, ""
    in_peft: ClassVar[Mapping[str, str]] = {}
    by_output: ClassVar[Mapping[str, str]] = {}
    always: ClassVar[Mapping[str, Any]]
    targets: tuple[str, ...]

    def places(self, model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
        rows: dict[str, Rows] = {}
        for site in choose(self.targets, attach.sites_of(model)):
            if site.kind != "linear":
                message = f"{self.name} is for linear layers, but {site.name} is an {site.kind}"
                raise BadValue(f"{message}: leave it out of the targets")
            rows[site.module] = rows.get(site.module, ()) + ((site.out_slice,) if site.out_slice else ())
        return [(path, {"rows": slices}) for path, slices in rows.items()]

    def insert(self, model: nn.Module, to_fill: bool, **common: Any) -> None:
        super().insert(model, to_fill, empty=to_fill)

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        """Return the tensors that a file holds for one layer, under keys that begin with `key`."""
        raise NotImplementedError

    def to_peft(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        adapted = dict(attach.method_layers(model))
        tensors: dict[str, Tensor] = {}
        for path, adapter in adapted.items():
            tensors |= self.saved(adapter, f"{PREFIX}{path}.")
        options = {key: getattr(self, option) for key, option in self.in_peft.items()}
        return tensors, {"peft_type": self.peft_type, **self.always, **options, **peft.layer_config(model, adapted)}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        sites = attach.sites_of(model)
        targets = peft.shortest_names(peft.matched(config, sites), [site.module for site in sites], taken=ROLES)
        options = {option: peft.required(config, key) for key, option in cls.in_peft.items()}
        return cls(targets=tuple(targets), **options)  # type: ignore[call-arg]

    def fill(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().fill(model, tensors)
        for path, adapter in attach.method_layers(model):
            for key, name in self.by_output.items():
                adapter.get_parameter(name).data.copy_(gather(tensors[f"{PREFIX}{path}.{key}"].flatten(), adapter.rows))


def gather(values: Tensor, rows: Rows) -> Tensor:
    """Select the given `rows` of `values` (out_features, ...), or return all values if `rows` is empty."""
    return torch.cat([values[start:stop] for start, stop in rows]) if rows else values


def scatter(values: Tensor, rows: Rows, out_features: int, fill: float = 0.0) -> Tensor:
    """Invert `gather` along the last dimension, with `fill` in all other places of the result (..., out_features)."""
    if not rows:
        return values
    parts, ends = values.split([stop - start for start, stop in rows], dim=-1), [0, *(stop for _, stop in rows)]
    padded = [F.pad(p, (start - end, 0), value=fill) for p, (start, _), end in zip(parts, rows, ends, strict=False)]
    return F.pad(torch.cat(padded, dim=-1), (0, out_features - ends[-1]), value=fill)
