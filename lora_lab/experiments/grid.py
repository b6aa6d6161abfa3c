"""A grid of recipes: every combination of ranks, alphas, rates, seeds and targets, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, LabError, nearest
from lora_lab.methods.base import Method, make_plain
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import TASKS

Values = Sequence[Any] | Any
MOST = 1_000  # values on one axis
RULES: dict[str, Callable[[int, float], float]] = {
    "fixed": lambda rank, number: number,
    "rank": lambda rank, number: rank,
    "2rank": lambda rank, number: 2 * rank,
    "sqrt": lambda rank, number: number * math.sqrt(rank),
}
DEFAULTS = {"fixed": 16.0, "sqrt": 16 / math.sqrt(8)}  # for a rule without a number: alpha 16 at rank 8
"""fixed:16 keeps alpha; rank and 2rank keep alpha / rank; sqrt:c keeps alpha / sqrt(rank). Kalajdzievski 2023."""


def alpha_of(rule: str, rank: int) -> float:
    """Return alpha at a rank by a rule: "fixed:16", "rank", "2rank", "sqrt" or "sqrt:4" (alpha = 4 sqrt(rank)).

    Raises: BadValue for an unknown rule.
    """
    name, _, number = rule.partition(":")
    if name not in RULES:
        raise BadValue(f"unknown alpha rule '{rule}'; known: {nearest(name, RULES)}, as in fixed:16 or sqrt:4")
    try:
        return RULES[name](rank, float(number) if number else DEFAULTS.get(name, 0.0))
    except ValueError:
        raise BadValue(f"the alpha rule '{rule}' needs a number after its colon, as in fixed:16") from None


@dataclass(frozen=True)
class Grid:
    """Every combination of the given values; a single value counts as a list of one.

    alpha    numbers, or one rule such as "2rank" (see `alpha_of`)
    targets  one choice ("q,v" or ("q", "v")), or a list of choices (["q,v", "all-linear"])
    method   its other options are kept; ranks, alphas and targets vary only for lora
    Raises: BadValue for an empty list or an impossible value, and for ranks, alphas or targets with another method.
    """

    rank: Values = 8
    alpha: Values = "fixed:16"
    lr: Values = 2e-3
    seed: Values = 0
    targets: Values = "q,v"
    method: Method = field(default_factory=LoRA)

    def __post_init__(self) -> None:
        make_plain(self)

    def recipes(self, model: str, task: str, **fields: Any) -> list[Recipe]:
        """Return the recipes, seeds innermost; all share `fields`. Raises: as Recipe.

        validations is 1 by default (at the end, enough to choose by), or 8 with patience.
        """
        fields = {"validations": 8 if fields.get("patience") else 1} | fields
        rates = list(product(_list("lr", self.lr), _list("seed", self.seed)))
        made = (Recipe(model, task, one, lr=lr, seed=seed, **fields) for one in self._methods() for lr, seed in rates)
        return list(dict.fromkeys(made))  # two rules may give the same alpha

    def _methods(self) -> list[Method]:
        if not isinstance(self.method, LoRA):
            if (self.rank, self.alpha, self.targets) != (Grid.rank, Grid.alpha, Grid.targets):
                raise BadValue(
                    f"only lora has a grid of ranks, alphas and targets; set {self.method.name}'s options in method"
                )
            return [self.method]
        one = isinstance(self.targets, tuple) and not any("," in t or t == "all-linear" for t in self.targets)
        found: list[Method] = []
        for targets in [self.targets] if one else _list("targets", self.targets):
            for rank, alpha in product(_list("rank", self.rank), _list("alpha", self.alpha)):
                own: dict[str, Any] = {"rank": rank, "targets": targets}
                method = replace(self.method, **own)  # before the rule, which needs a checked rank
                found.append(replace(method, alpha=alpha_of(alpha, rank) if isinstance(alpha, str) else alpha))
        return found


def _list(name: str, values: Values) -> list[Any]:
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not found:
        raise BadValue(f"the grid has no {name}: give at least one value, for example {name}=[1]")
    return found


def share(recipes: Sequence[Recipe], words: str) -> list[Recipe]:
    """Return part i of n, "i/n" with i from 1: every n-th recipe, so that parts are similar and cover the grid.

    Raises: BadValue for anything else.
    """
    i, _, n = words.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise BadValue(f"share must be i/n with i from 1 to n, such as 3/40, not '{words}'")
    return list(recipes[int(i) - 1 :: int(n)])


def check(recipes: Iterable[Recipe]) -> None:
    """Refuse impossible recipes before anything is trained, by counting parameters without loading a model.

    Raises: BadValue or NotFound for the first impossible one. A model that cannot be counted is let through.
    """
    for recipe in {(r.model, r.task, r.method): r for r in recipes}.values():
        try:
            labels = len(TASKS[recipe.task].labels) or None if recipe.task in TASKS else None
            if architecture_of(recipe.model).task == "encoder":
                labels = labels or 2  # the number of classes in a file is known once it is read
        except LabError:
            return  # no config here, or a family that cannot be counted
        params(recipe.model, recipe.method, labels)


def numbers(name: str, text: str, kind: type) -> list[Any]:
    """Parse "1,2,4" or, for whole numbers, "0-4". Raises: BadValue for what is not a number."""
    found: list[Any] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            found += range(int(first), int(last) + 1)[: MOST + 1] if kind is int and first and dash else [kind(part)]
        except ValueError:
            raise BadValue(f"{name} takes numbers and commas, such as 1,2,4; '{part}' is not a number") from None
    if not 0 < len(found) <= MOST:
        raise BadValue(
            f"{name} takes at most {MOST:,} values" if found else f"{name} is empty: give at least one value"
        )
    return found
