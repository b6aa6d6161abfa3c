"""A run's recipe, which is everything that determines its result, and a hash that identifies the recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

from lora_lab.errors import BadValue, nearest
from lora_lab.methods import method_from
from lora_lab.methods.base import Method, check_method, make_plain, whole
from lora_lab.methods.lora import LoRA

# Fields added later. The hash omits those that have their default (0, False or ""), so that old hashes stay valid.
ADDED_LATER = ("examples", "subset", "label_smoothing", "token_mean", "start")
LIMITS = {"warmup": 1, "label_smoothing": 1}  # upper limits; other numbers have none
MAX_SEED = 2**63 - 1  # the largest seed that torch accepts


@dataclass(frozen=True)
class Recipe:
    """A run to train.

    model, task       A bundled name or a path. The model may also be a hub id.
    method            The fine-tuning method.
    lr                The peak learning rate of AdamW.
                      The rate rises linearly over a fraction `warmup` of the steps and then falls linearly to 0.
    steps, batch      The number of updates, and the number of texts per update.
    seed              The seed for the head, A, dropout and the order of the data, but not for the split.
    clip              The maximum gradient norm, or 0 for no clipping.
    dropout           Whether the base model's own dropout is enabled in training.
    validations       The number of evenly spaced validations, or 0 for none.
    patience          Stop after this many validations without improvement. 0 means no early stopping.
    examples          The number of training texts, drawn once with the data's class balance, or 0 for all texts.
    subset            The seed for drawing `examples`, so that every method gets the same texts; see `at_seed`.
    label_smoothing   As in `torch.nn.CrossEntropyLoss`. It has no effect on tasks that predict a number.
    token_mean        Average a batch's loss over tokens, so that long answers weigh more than short ones.
    start             The folder of an adapter to start from, with the same method. The adapter's head is not used.
    dtype, attention, device   "auto" for the fastest choice on this machine; see `training/device.py`.
    Raises: BadValue for an invalid value.
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
        check_method(self.method)
        if self.max_length is not None:
            whole("max_length", self.max_length)
        for name, kind in Recipe.__annotations__.items():
            value, low, high = getattr(self, name), int(name in ("steps", "batch")), LIMITS.get(name, math.inf)
            if kind == "str" and not isinstance(value, str):
                raise BadValue(f"{name} must be a string, not {value!r}")
            if kind == "int":
                whole(name, value, low, MAX_SEED)
            if kind == "float" and not (isinstance(value, int | float) and 0 <= value <= high and math.isfinite(value)):
                limits = f"number from 0 to {high}" if high < math.inf else "finite number of at least 0"
                raise BadValue(f"{name} must be a {limits}, not {value!r}")
            if kind == "bool" and value not in (False, True):
                hint = "; pass a rate to the method: LoRA(dropout=0.1)" if name == "dropout" else ""
                raise BadValue(f"{name} must be True or False, not {value!r}{hint}")
            if kind == "bool":  # so that 1 and True have the same hash
                object.__setattr__(self, name, bool(value))
        if self.subset and not self.examples:
            raise BadValue(f"subset {self.subset} needs a number of examples too, such as examples=50")
        if self.patience and not self.validations:
            raise BadValue("patience counts validations: set validations to at least 1, or patience to 0")
        if self.lr == 0:
            raise BadValue("lr must be positive: with lr 0, nothing is learned")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of update `step`, from 1 to `steps`: linear warmup, and then linear decay to 0."""
        warmup = max(1, round(self.warmup * self.steps))
        return self.lr * min(step / warmup, (self.steps - step + 1) / max(1, self.steps - warmup + 1), 1.0)

    def at_seed(self, seed: int) -> Recipe:
        """Return the recipe with another seed. If the recipe has `examples`, the seed is also added to `subset`."""
        return replace(self, seed=seed, subset=self.subset + seed if self.examples else 0)

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON, which `recipe_from` reads back."""
        values = {
            name: value for name in Recipe.__annotations__ if (value := getattr(self, name)) or name not in ADDED_LATER
        }
        return values | {"method": self.method.settings()}

    @property
    def hash(self) -> str:
        """Twelve hex digits that are equal for equal recipes on every machine."""
        settings = _plain(self.settings())
        ordered = {k: [*v.items()] for k, v in settings["method"].items() if isinstance(v, dict) and [*v] != sorted(v)}
        settings["method"] |= ordered  # the order of a pattern's keys matters, but the next line sorts a dict's keys
        return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def computed(self) -> dict[str, str]:
        """Arguments for `device.choose`.

        With dtype "auto", full fine-tuning keeps its weights in fp32, since bf16 would lose small updates, but its
        matrix products may be rounded to bf16.
        """
        in_fp32 = self.method.trains_base and self.dtype == "auto"
        dtype, products = ("fp32", "auto") if in_fp32 else (self.dtype, "fp32")
        return {"device": self.device, "dtype": dtype, "attention": self.attention, "products": products}

    def describe(self) -> str:
        """Return a short label for legends and logs."""
        subset = [f"{self.examples} examples, subset {self.subset}"] if self.examples else []
        return ", ".join([describe(self.method), f"lr {self.lr:g}", f"seed {self.seed}", *subset])


def describe(method: Method) -> str:
    """Return "lora, rank 8, alpha 16, q+v" (LoRA's main settings) or "prompt, tokens 40" (the changed settings)."""
    if isinstance(method, LoRA):
        size = f"rank {method.rank}, alpha {method.alpha:g}"
        return ", ".join([method.name, size, "+".join(method.targets), *method.variants])
    return ", ".join([method.name, *changed(method, "+").values()])


def changed(method: Method, joint: str) -> dict[str, str]:
    """Return {"tokens": "tokens 40", ...} for the settings that aren't at their defaults. Join lists with `joint`."""
    words = {}
    for f in fields(method):  # type: ignore[arg-type]
        if (value := getattr(method, f.name)) != f.default:
            text = joint.join(map(str, value)) or "none" if isinstance(value, tuple) else value
            words[f.name] = f"{f.name} {text:g}" if isinstance(text, float) else f"{f.name} {text}"
    return words


def _plain(value: Any) -> Any:
    """Turn whole floats into integers, so that alpha=16 and alpha=16.0 have the same hash."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def recipe_from(settings: Mapping[str, Any]) -> Recipe:
    """Create a recipe from its settings. Raises: BadValue for an unknown field, or for a method without settings."""
    check_fields(settings)
    if not isinstance(method := settings.get("method"), Mapping):
        raise BadValue(f"method must be a mapping of settings, such as {{'name': 'lora', 'rank': 8}}, not {method!r}")
    return Recipe(**{**settings, "method": method_from(method)})


def check_fields(names: Iterable[str]) -> None:
    """Check that these names are fields of `Recipe`. Raises: BadValue for any other name."""
    field_names = [f.name for f in fields(Recipe)]
    for name in names:
        if name not in field_names:
            raise BadValue(f"a recipe has no field '{name}'; nearest: {nearest(name, field_names)}")
