"""LoRA drawn to scale: a layer with A and B beside it, a map of a whole model, and a toy layer with its arithmetic.

The browser draws the panel and counts parameters (`js/lora_panel.js`); Python sends the shapes of the models' layers.
The zoo's shapes ship in `zoo_layers.json`, written by docs/zoo.py, so opening the panel does not import torch.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import NAMED, Row, break_even_rank, params, without_adapter
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.methods.base import one_of, words
from lora_lab.methods.lora import LoRA
from lora_lab.methods.targets import ALL_LINEAR
from lora_lab.widgets.base import Panel

VIEWS = ("size", "model", "start", "steps", "merge")
TOY = {
    "start": "B starts at zero, so a new adapter adds nothing to W x.",
    "steps": "Take a step: which matrix moves, A or B?",
    "merge": "Merging adds scaling * B A to W: the output stays the same, without the extra products.",
}
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
FIRST = "llama-3-8b"  # the default model of the view "model"
ZOO_LAYERS = Path(__file__).with_name("zoo_layers.json")
GROUPS = {
    "q": "attention", "k": "attention", "v": "attention", "o": "attention", "gate": "feed-forward",
    "up": "feed-forward", "down": "feed-forward", "embed": "embedding", "position": "embedding", "head": "head",
}  # fmt: skip


class LoRAPanel(Panel, file="lora_panel.js"):
    """LoRA drawn to scale, on one layer and on a whole model, and how its output is computed.

    view     the initial view: "size", "model", "start", "steps" or "merge"
    views    the views that the reader can choose
    model    a zoo name, a folder, a config, or your own model; "" for a square layer of width `d`
    layer    the layer to show: "q", "down", "q of q+k+v", ...
    rank, targets    as in `LoRA`; a target is a role or all-linear
    models   the models in the menu; by default the whole zoo
    customers   number of customers, each with an adapter, for the slider in the view "model"; 0 hides the slider
    Raises: BadValue for an unknown view or target, or an invalid rank; NotFound for an unknown model or layer, or for a
    role that the model lacks.
    """

    view = T.Enum(VIEWS, "size").tag(sync=True)
    views = T.List(T.Enum(VIEWS), minlen=1).tag(sync=True)
    models = T.Dict().tag(sync=True)  # {name: {"rows": [...]}} as `layers_of` makes them
    model, layer = (T.Unicode().tag(sync=True) for _ in range(2))
    d = T.Int(4096, min=1).tag(sync=True)
    rank = T.Int(8).tag(sync=True)
    targets = T.List(T.Unicode()).tag(sync=True)
    toy_rank = T.Int(2, min=1, max=4).tag(sync=True)
    alpha = T.Enum((1, 2, 4, 8), 4).tag(sync=True)
    customers = T.Int(0, min=0, max=1_000_000).tag(sync=True)

    def __init__(
        self, view: str = "size", views: Sequence[str] | str = VIEWS, *, model: Any = "", layer: str = "",
        d: int = 4096, rank: int = 8, targets: Sequence[str] | str = ("q", "v"),
        models: Sequence[str] | str | None = None, customers: int = 0,
    ) -> None:  # fmt: skip
        views = (views,) if isinstance(views, str) else tuple(views) or VIEWS
        models = [models] if isinstance(models, str) else models
        view = views[0] if view in VIEWS and view not in views else view
        zoo = zoo_layers()
        own = not isinstance(model, str) or model not in ("", *zoo)
        if not isinstance(model, NAMED):
            model = without_adapter(model)
        name = architecture_of(model).name or "your model" if own else model
        menu = [*(zoo if models is None else models), *([model] if model and not own else [])]
        menu = menu or ([] if own else [*zoo])  # without a model, there is nothing to show
        if unknown := [entry for entry in menu if entry not in zoo]:
            raise NotFound(f"no model '{unknown[0]}' in the zoo; did you mean {nearest(unknown[0], zoo)}?")
        layers = {name: {"rows": layers_of(model)}} if own else {}
        layers |= {entry: {"rows": zoo[entry]} for entry in menu if entry not in layers}
        targets = words(targets)
        for target in targets:
            one_of("a target of this panel", target, (ALL_LINEAR, *ROLES))
        shown = [ALL_LINEAR] if ALL_LINEAR in targets else list(targets)  # so that no layer counts twice
        super().__init__(
            view=view, views=list(views), models=layers, model=name, layer=layer, d=d, rank=rank, targets=shown,
            customers=customers,
        )  # fmt: skip
        m, n = self.shape
        if not 1 <= rank <= min(m, n):
            raise BadValue(f"rank must be from 1 to {min(m, n):,} for a {m:,} x {n:,} layer, not {rank:,}")
        if view == "model":  # raises for a role that the model lacks
            params(model if own else self._map_model, LoRA(rank, targets=targets))

    @T.validate("model")
    def _check_model(self, proposal: Any) -> str:
        if proposal["value"]:
            one_of("model", proposal["value"], tuple(self.models))
        return str(proposal["value"])

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (outputs, inputs) of the layer on display. Raises: NotFound if the model lacks that layer."""
        if not self.model:
            return self.d, self.d
        layers: dict[str, tuple[int, int]] = {}
        for row in self.models[self.model]["rows"]:
            if row["trains"]:
                layers[row["label"]] = row["out"], row["in"]
            for role, width in row.get("slices", {}).items():
                layers[f"{role} of {row['label']}"] = width, row["in"]
        if self.layer and self.layer not in layers:
            raise NotFound(f"{self.model} has no layer '{self.layer}'; it has {', '.join(layers)}")
        return layers[self.layer or next(iter(layers))]

    @property
    def _map_model(self) -> str:
        """The name of the model in the view "model"."""
        return self.model or (FIRST if FIRST in self.models else next(iter(self.models)))

    def describe(self) -> str:
        if self.view == "model":
            name = self._map_model
            rows = self.models[name]["rows"]
            targets = [t for t in self.targets if any(t in row["trains"] for row in rows)]
            targets = targets or [ALL_LINEAR] * bool(self.targets)  # as in the browser, like the rank's limit below
            adapted = [(row, t) for row in rows for t in targets if t in row["trains"]]
            sides = [side for row, t in adapted for side in (row["in"], row.get("slices", {}).get(t, row["out"]))]
            rank, total = max(1, min([self.rank, *sides])), sum(row["numbers"] for row in rows)
            trained = rank * sum(row["trains"][t] for row, t in adapted)
            adapter = f"rank-{rank:,} LoRA on {', '.join(targets)} adds {trained:,} ({trained / total:.3%})"
            less = self.customers * total / (total + self.customers * trained)
            disk = f" {self.customers:,} customers need {less:,.1f} times less disk." if self.customers > 1 else ""
            frozen = f"{name} has {total:,} parameters, which stay frozen"
            return f"LoRA to scale: {frozen}; {adapter}, which are trained.{disk}"
        if self.view in TOY:
            return f"LoRA to scale: a toy layer of 8 x 8. {TOY[self.view]}"
        m, n = self.shape
        full, rank = m * n, max(1, min(self.rank, m, n))
        trained = rank * (m + n)
        frozen = f"W of {m:,} x {n:,} has {full:,} parameters, which stay frozen"
        adapter = f"A and B of rank {rank:,} add {trained:,} ({trained / full:.3%}), which are trained"
        return f"LoRA to scale: {frozen}; {adapter}. Break-even is at rank {break_even_rank(n, m):,.0f}."


@cache
def zoo_layers() -> dict[str, list[dict[str, Any]]]:
    """Load `layers_of` for every model of the zoo from the shipped file."""
    return read_json(ZOO_LAYERS)


def layers_of(model: Any) -> list[dict[str, Any]]:
    """Return a row per kind of module, from `params`, with label, group, in, out, count, numbers, trains and slices.

    trains   {target: parameters of rank-1 LoRA over all `count` modules} for each target that matches
    slices   {role: outputs} of a fused layer, if their order is known
    Modules that LoRA cannot adapt (norms) share one row, "the rest".
    """
    architecture, table = architecture_of(model), dict[str, dict[str, Any]]()
    rows = [row for row in params(architecture, LoRA(rank=1, targets=(ALL_LINEAR,))).modules if row.full]
    for row in rows:
        trains = {ALL_LINEAR: row.trained} if row.trained else {}
        group = GROUPS.get(row.role.split("+")[0]) or ("attention" if "att" in row.name else "rest")
        group = "experts" if ".experts." in row.name else group
        sizes = {"in": row.in_features, "out": row.out_features, "count": row.count, "numbers": row.full}
        table[row.name] = {"label": "", "group": group, **sizes, "trains": trains}
    for role in ROLES:
        with suppress(NotFound):  # there is no such layer, or it is part of a fused layer whose order is unknown
            for row in params(architecture, LoRA(rank=1, targets=(role,))).modules:
                name, _, sliced = row.name.partition("[")
                if row.trained:
                    table[name]["trains"][role] = row.trained
                if row.trained and sliced:
                    table[name].setdefault("slices", {})[role] = row.out_features
    kept = [row for row in rows if row.break_even_rank or row.role == "router" or table[row.name]["trains"]]
    rest = sum(row.full for row in rows) - sum(row.full for row in kept)
    last = {"label": "the rest", "group": "rest", "in": 0, "out": 0, "count": 1, "numbers": rest, "trains": {}}
    labeled = [table[row.name] | {"label": label} for row, label in zip(kept, _labels(kept), strict=True)]
    return labeled + ([last] if rest else [])


def _labels(rows: Sequence[Row]) -> list[str]:
    """Name the rows: the role and, if several rows share it, the parts of the path that distinguish them.

    "self_attn.q_proj" -> "q"; "mlp.shared_experts.gate_proj" -> "gate shared_experts"; without a role, the module name.
    """
    names = {"embed": "embedding", "other": ""}
    paths = [[part for part in row.name.split(".") if part.isidentifier()] for row in rows]
    labels = []
    for row, path in zip(rows, paths, strict=True):
        same_role = [p for p, other in zip(paths, rows, strict=True) if other.role == row.role]
        unique = [part for part in path[:-1] if not all(part in other[:-1] for other in same_role)]
        role = names.get(row.role, row.role)
        labels.append(" ".join([role, *unique]) if role and (unique or len(same_role) == 1) else path[-1])
    named = zip(labels, paths, strict=True)
    return [label if labels.count(label) == 1 else ".".join(path[-2:]) for label, path in named]
