"""The one description of a run: everything that decides what comes out, and a hash to know it by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any

from lora_lab.errors import BadValue, nearest
from lora_lab.methods import method_from
from lora_lab.methods.base import Method, make_plain
from lora_lab.methods.lora import LoRA

# Fields that the first records lack: left out where they are 0, False or "", so that a hash stays.
LATER = ("examples", "subset", "label_smoothing", "token_mean", "start")


@dataclass(frozen=True)
class Recipe:
    """A run to be made.

    model, task     a bundled name, a path, or (model) a hub id
    method          what trains
    lr              peak learning rate of AdamW: it rises over the first `warmup` share of the steps, then falls to 0
    steps, batch    updates, and texts per update
    seed            of the head, of A, of dropout and of the order of the data, but not of the split
    clip            largest norm of the gradient; 0 for no clipping
    dropout         keep the base model's own dropout on while training; off, the frozen base answers as it will in use
    validations     how often, evenly spread, the validation split is scored; 0 for never
    patience        stop early after this many validations without a better one; 0 for never
    examples        training texts, drawn once and balanced as the data are; 0 for all of them
    subset          which draw of so many: the same texts for every method and seed
    label_smoothing share of the loss that asks for all classes, or tokens, alike; not where a number is predicted
    token_mean      a batch's loss is the mean over its tokens, so that long answers count for more; off, each row has
                    the same weight
    start           the folder of an adapter, of the same method, whose numbers training begins with; its head is left
    dtype, attention, device   "auto" for the fastest on the machine, see `training/device.py`
    Raises: BadValue for an impossible value.
    """

    model: str
    task: str
    method: Method = field(default_factory=LoRA)
    lr: float = 2e-3
    steps: int = 400
    batch: int = 16
    seed: int = 0
    warmup: float = 0.06
    weight_decay: float = 0.0
    clip: float = 1.0
    dropout: bool = False
    validations: int = 8
    patience: int = 0
    max_length: int | None = None
    text_column: str = "text"
    label_column: str = "label"
    dtype: str = "auto"
    attention: str = "auto"
    device: str = "auto"
    examples: int = 0
    subset: int = 0
    label_smoothing: float = 0.0
    token_mean: bool = False
    start: str = ""

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("steps", "batch", "seed", "validations", "patience", "examples", "subset"):
            value, least = getattr(self, name), 1 if name in ("steps", "batch") else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadValue(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.seed >= 2**63:
            raise BadValue(f"seed must be below 2**63, not {self.seed}")
        if self.subset and not self.examples:
            raise BadValue(f"subset {self.subset} is of how many texts? give examples too, such as examples=50")
        for name in ("lr", "warmup", "weight_decay", "clip", "label_smoothing"):
            value, low, high = getattr(self, name), 0, 1 if name in ("warmup", "label_smoothing") else math.inf
            if not (isinstance(value, int | float) and low <= value <= high and math.isfinite(value)):
                raise BadValue(f"{name} must be a number from {low} to {high}, not {value!r}")
        for name, hint in (("dropout", "; a rate is a method's own, such as LoRA(dropout=0.1)"), ("token_mean", "")):
            value = getattr(self, name)
            if value not in (False, True):
                raise BadValue(f"{name} must be True or False, not {value!r}{hint}")
            object.__setattr__(self, name, bool(value))  # 1 is True, and has its hash
        if self.patience and not self.validations:
            raise BadValue("patience counts validations: give at least one, or patience 0")
        if self.lr == 0:
            raise BadValue("lr must be above 0: with a rate of 0 nothing trains")

    def lr_at(self, step: int) -> float:
        """The learning rate of update `step`, 1 to steps: a linear rise, then a linear fall to 0 after the last."""
        rise = max(1, round(self.warmup * self.steps))
        return self.lr * min(step / rise, (self.steps - step + 1) / max(1, self.steps - rise + 1), 1.0)

    def settings(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `recipe_from` reads them back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {name: value for name, value in values.items() if name not in LATER or value}
        return values | {"method": self.method.settings()}

    @property
    def hash(self) -> str:
        """Twelve hex digits: equal for equal recipes, on every machine."""
        return sha256(json.dumps(_plain(self.settings()), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def base_dtype(self) -> str:
        """The dtype to load the base in: a weight that trains is fp32, in bf16 a small step would be lost on it."""
        return "fp32" if self.method.trains_base and self.dtype == "auto" else self.dtype

    @property
    def computed(self) -> dict[str, str]:
        """What `device.choose` is asked for. Where full fine-tuning's dtype is left to it, products may be rounded."""
        products = "auto" if self.method.trains_base and self.dtype == "auto" else "fp32"
        return {"device": self.device, "dtype": self.base_dtype, "attention": self.attention, "products": products}

    def describe(self) -> str:
        """A short line for legends and logs: what differs between runs most often."""
        few = [f"{self.examples} examples, subset {self.subset}"] if self.examples else []
        return ", ".join([describe(self.method), f"lr {self.lr:g}", f"seed {self.seed}", *few])


def describe(method: Method) -> str:
    """ "lora, rank 8, alpha 16, q+v" or "prompt, tokens 40": what differs most often, else what is unusual."""
    settings = method.settings()
    name = settings.pop("name")
    if isinstance(method, LoRA):
        size = f"rank {settings['rank']}, alpha {settings['alpha']:g}"
        return ", ".join([name, size, "+".join(settings["targets"]), *method.variants])
    usual = type(method)().settings()
    unusual = {key: value for key, value in settings.items() if value != usual[key]}
    for key, value in unusual.items():
        if isinstance(value, list):
            unusual[key] = "+".join(map(str, value)) or "none"
        elif isinstance(value, float):
            unusual[key] = f"{value:g}"
    return ", ".join([name, *(f"{key} {value}" for key, value in unusual.items())])


def _plain(value: Any) -> Any:
    """The value with whole floats as integers: alpha=16 and alpha=16.0 are one recipe, so they have one hash."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def recipe_from(settings: Mapping[str, Any]) -> Recipe:
    """A recipe from its settings. Raises BadValue for a field that recipes do not have."""
    values, known = dict(settings), [f.name for f in fields(Recipe)]
    for name in values:
        if name not in known:
            raise BadValue(f"a recipe has no field '{name}'; nearest: {nearest(name, known)}")
    return Recipe(**{**values, "method": method_from(values["method"])})
