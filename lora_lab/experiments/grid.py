"""A grid of recipes: every combination of ranks, alphas, rates, seeds and targets, in a fixed order."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, LabError, nearest
from lora_lab.methods.base import Method, make_plain
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe, check_fields
from lora_lab.training.tasks import TASKS

Values = Sequence[Any] | Any
MAX_VALUES = 1_000  # maximum number of values on one axis
RULES = ("fixed", "rank", "2rank", "sqrt")
DEFAULTS = {"fixed": 16.0, "sqrt": 16 / math.sqrt(8)}  # for rules given without a number: alpha 16 at rank 8


def alpha_of(rule: str, rank: int) -> float:
    """Return a rule's alpha for a rank: "fixed:16", "rank", "2rank", "sqrt" or "sqrt:4" (alpha = 4 sqrt(rank)).

    "fixed:16" keeps alpha constant, "rank" and "2rank" keep alpha / rank constant, and "sqrt:c" keeps alpha /
    sqrt(rank) constant (Kalajdzievski 2023). Raises: BadValue for an unknown rule.
    """
    name, _, number = rule.partition(":")
    if name not in RULES or (number and name not in DEFAULTS):
        raise BadValue(f"unknown alpha rule '{rule}'; known: {nearest(name, RULES)}, also fixed:16 or sqrt:4")
    try:
        given = float(number) if number else DEFAULTS.get(name, 0.0)
    except ValueError:
        raise BadValue(f"the alpha rule '{rule}' needs a number after the colon, as in fixed:16") from None
    return {"fixed": given, "rank": rank, "2rank": 2 * rank, "sqrt": given * math.sqrt(rank)}[name]


@dataclass(frozen=True)
class Grid:
    """Every combination of the given values; a single value counts as a list of one.

    alpha    numbers, or one rule such as "2rank" (see `alpha_of`)
    targets  one choice ("q,v" or ("q", "v")), or a list of choices (["q,v", "all-linear"])
    method   the method, which supplies the rank, alpha or targets that are not given; only LoRA allows lists
    Raises: BadValue for an empty list, an invalid rank, alpha or targets, or any of these three without LoRA.
    """

    rank: Values = None
    alpha: Values = None
    lr: Values = 2e-3
    seed: Values = 0
    targets: Values = None
    method: Method = field(default_factory=LoRA)

    def __post_init__(self) -> None:
        make_plain(self)
        _list("lr", self.lr), _list("seed", self.seed), self._methods()  # raise BadValue

    def recipes(self, model: str, task: str, **fields: Any) -> list[Recipe]:
        """Return the recipes, which all share `fields`; seeds vary fastest. Raises: see `Recipe`.

        `validations` defaults to 1 (one at the end is enough to choose a configuration), or to 8 if `patience` is set.
        """
        if own := sorted({*fields} & {*Grid.__dataclass_fields__}):
            raise BadValue(f"a grid has its own {' and '.join(own)}: pass Grid({own[0]}=...)")
        check_fields(fields)
        fields = {"validations": 8 if fields.get("patience") else 1} | fields
        pairs = list(product(_list("lr", self.lr), _list("seed", self.seed)))
        recipes = (Recipe(model, task, m, lr=lr, seed=seed, **fields) for m in self._methods() for lr, seed in pairs)
        return list(dict.fromkeys(recipes))  # two rules may give the same alpha

    def _methods(self) -> list[Method]:
        given: dict[str, Any] = {"rank": self.rank, "alpha": self.alpha, "targets": self.targets}
        if not isinstance(own := self.method, LoRA):
            if any(values is not None for values in given.values()):
                raise BadValue(f"only lora has a grid of ranks, alphas and targets, not {own.name}")
            return [own]
        rank, alpha, targets = (getattr(own, name) if values is None else values for name, values in given.items())
        single = self.targets is None or (  # a tuple with several sets of targets is a list of choices
            isinstance(targets, tuple) and not any("," in str(t) or t == "all-linear" for t in targets)
        )
        methods: list[Method] = []
        for t in [targets] if single else _list("targets", targets):
            for r, a in product(_list("rank", rank), _list("alpha", alpha)):
                method = replace(own, rank=r, targets=t)  # before the rule, which needs a checked rank
                methods.append(replace(method, alpha=alpha_of(a, r) if isinstance(a, str) else a))
        return methods


def _list(name: str, values: Values) -> list[Any]:
    items = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not items:
        value = ["q,v"] if name == "targets" else [1]
        raise BadValue(f"the grid has no {name}: pass at least one value, for example {name}={value}")
    return items


def share(recipes: Sequence[Recipe], part: str) -> list[Recipe]:
    """Return part "i/n", with i from 1 to n: every n-th recipe, so that all parts are similar. Raises: BadValue."""
    i, _, n = part.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise BadValue(f"share must be i/n with i from 1 to n, such as 3/40, not '{part}'")
    return list(recipes[int(i) - 1 :: int(n)])


def check(recipes: Iterable[Recipe]) -> None:
    """Count the parameters of each recipe, if possible. Raises: BadValue or NotFound for an impossible recipe."""
    for model, task, method in dict.fromkeys((recipe.model, recipe.task, recipe.method) for recipe in recipes):
        try:
            encoder = architecture_of(model).task == "encoder"
        except LabError:
            continue  # no local config, or a model family that cannot be counted
        labels = (len(TASKS[task].labels) if task in TASKS else 0) or 2 * encoder
        if labels or task in TASKS or method.name not in ("head", "probe"):  # another task may have labels
            params(model, method, labels or None)


def numbers(name: str, text: str, kind: type) -> list[Any]:
    """Parse numbers such as "1,2,4" or, for integers, a range such as "0-4". Raises: BadValue for other text."""
    values: list[Any] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            is_range = kind is int and first and dash
            added = range(int(first), int(last) + 1)[: MAX_VALUES + 1] if is_range else [kind(part)]
        except ValueError:
            raise BadValue(f"{name} takes comma-separated numbers, such as 1,2,4; '{part}' is not a number") from None
        if not added:
            raise BadValue(f"{name} takes ascending ranges, such as 0-4, not '{part}'")
        values += added
    if not values:
        raise BadValue(f"{name} is empty: pass numbers such as 1,2,4 or a range such as 0-4, not '{text}'")
    if len(values) > MAX_VALUES:
        raise BadValue(f"{name} takes at most {MAX_VALUES:,} values")
    return values
