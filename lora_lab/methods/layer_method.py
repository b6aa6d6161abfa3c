"""Base classes of methods that adapt single layers. Each such method is one file, like `bottleneck.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import F, Tensor, nn, torch
from lora_lab.methods.base import Method, attach, peft
from lora_lab.methods.targets import PREFIX, ROLES, choose


class LayerMethod(Method):
    """A method that changes the input or output of single layers: y = after(base_layer(before(x))).

    `places` selects the layers and `start` creates their parameters. In the functions below, `adapter` is the module
    that replaces the layer; `base_layer`, the parameters and the options from `places` are attributes of `adapter`.
    """

    def places(self, model: nn.Module) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the path of each layer with options for `start`, such as {"rows": ((0, 32),)}.

        Layers whose options hold the same module share its trainable parameters.
        Raises: BadValue, NotFound if the method does not fit the model.
        """
        raise NotImplementedError

    def start(self, layer: nn.Module, **options: Any) -> Mapping[str, Tensor | nn.Module]:
        """Return a layer's trainable parameters by name. They train in fp32 and must not change the initial output.

        Put tensors that do not train into a `Frozen`; see `attach.py`.
        """
        raise NotImplementedError

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        """Return the input for the frozen layer, given x (..., in)."""
        return x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        """Return the output, given the frozen layer's output y (..., out) and input x (..., in)."""
        return y

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the frozen layer's weight (out, in) and bias (out), given in fp32, with the update added."""
        raise NotImplementedError

    def insert(self, model: nn.Module, to_fill: bool, **common: Any) -> None:
        """Wrap the layers; `common` options are passed to `start` for every layer."""
        for path, chosen in list(self.places(model)):
            layer, options = model.get_submodule(path), {**chosen, **common}
            start = {**options, **self.start(layer, **options)}
            attach.wrap(model, path, attach.MethodLayer(layer, self, start))


Rows = tuple[tuple[int, int], ...]  # slices of a fused layer's outputs that are adapted; () means all outputs


class TargetMethod(LayerMethod):
    """Base class of methods that adapt linear layers named by `targets` and write files in PEFT's layout.

    `start` gets two options: `rows`, the adapted outputs, and `empty`, True if the values will be loaded from a file.

    in_peft     maps PEFT's options to ours; a file's config and header must agree on them
    always      PEFT options with fixed values
    by_output   maps names in files to our names, for parameters that files hold for all outputs, not only for `rows`
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
                message = f"{self.name} is for linear layers, and {site.name} is an {site.kind}"
                raise BadValue(f"{message}: leave it out of the targets")
            rows[site.module] = rows.get(site.module, ()) + ((site.out_slice,) if site.out_slice else ())
        return [(path, {"rows": slices}) for path, slices in rows.items()]

    def insert(self, model: nn.Module, to_fill: bool, **common: Any) -> None:
        super().insert(model, to_fill, empty=to_fill)

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        """Return the tensors that files hold for one layer, with keys that begin with `key`."""
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
    """Select `rows` of `values` (out_features, ...), or all of `values` if `rows` is empty."""
    return torch.cat([values[start:stop] for start, stop in rows]) if rows else values


def scatter(values: Tensor, rows: Rows, out_features: int, fill: float = 0.0) -> Tensor:
    """Invert `gather` along the last dimension: return (..., out_features), with `fill` in all other places."""
    if not rows:
        return values
    parts, ends = values.split([stop - start for start, stop in rows], dim=-1), [0, *(stop for _, stop in rows)]
    padded = [F.pad(p, (start - end, 0), value=fill) for p, (start, _), end in zip(parts, rows, ends, strict=False)]
    return F.pad(torch.cat(padded, dim=-1), (0, out_features - ends[-1]), value=fill)
