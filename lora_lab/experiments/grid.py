"""A grid of recipes: every combination of ranks, alphas, rates, seeds and targets, in an order that never changes."""

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
DEFAULTS = {"fixed": 16.0, "sqrt": 16 / math.sqrt(8)}  # the number if a rule names none: alpha 16 at rank 8
"""fixed:16 keeps alpha; rank and 2rank keep alpha / rank; sqrt:c keeps alpha / sqrt(rank). Kalajdzievski 2023."""


def alpha_of(rule: str, rank: int) -> float:
    """alpha at this rank by a rule: "fixed:16", "rank", "2rank", "sqrt" or "sqrt:4" (alpha = 4 sqrt(rank)).

    Raises: BadValue for another rule, naming the known ones.
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
    """Every combination of the values given; a single value may stand for a list of one.

    alpha    numbers, or one rule such as "2rank" (see `alpha_of`)
    targets  one choice ("q,v" or ("q", "v")), or a list of choices (["q,v", "all-linear"])
    method   for lora, what ranks, alphas and targets are set in; its other options stay
    Raises: BadValue for an empty list or an impossible value, and for ranks, alphas or targets of another method.
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
        """The recipes, seeds innermost; `fields` are those that all share. Raises: as the recipe does.

        validations is 1 by default, at the end, which is what a choice needs; and 8 with patience.
        """
        fields = {"validations": 8 if fields.get("patience") else 1} | fields
        rates = list(product(_list("lr", self.lr), _list("seed", self.seed)))
        made = (Recipe(model, task, one, lr=lr, seed=seed, **fields) for one in self._methods() for lr, seed in rates)
        return list(dict.fromkeys(made))  # rules may meet: alpha = r and alpha = 2r / 2

    def _methods(self) -> list[Method]:
        if not isinstance(self.method, LoRA):
            if (self.rank, self.alpha, self.targets) != (Grid.rank, Grid.alpha, Grid.targets):
                raise BadValue(
                    f"a grid of ranks, alphas and targets is lora's; set those of {self.method.name} in method"
                )
            return [self.method]
        one = isinstance(self.targets, tuple) and not any("," in t or t == "all-linear" for t in self.targets)
        found: list[Method] = []
        for targets in [self.targets] if one else _list("targets", self.targets):
            for rank, alpha in product(_list("rank", self.rank), _list("alpha", self.alpha)):
                own: dict[str, Any] = {"rank": rank, "targets": targets}
                method = replace(self.method, **own)  # first: a rule reads a checked rank
                found.append(replace(method, alpha=alpha_of(alpha, rank) if isinstance(alpha, str) else alpha))
        return found


def _list(name: str, values: Values) -> list[Any]:
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not found:
        raise BadValue(f"the grid has no {name}: give at least one value, for example {name}=[1]")
    return found


def share(recipes: Sequence[Recipe], words: str) -> list[Recipe]:
    """Laptop i's part of n, "i/n" with i from 1: every n-th recipe, so all parts are alike and together the whole.

    Raises: BadValue for anything else.
    """
    i, _, n = words.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise BadValue(f"share is i/n with i from 1 to n, such as 3/40, not '{words}'")
    return list(recipes[int(i) - 1 :: int(n)])


def check(recipes: Iterable[Recipe]) -> None:
    """Refuse impossible recipes before anything is trained: counted, not loaded.

    Raises: BadValue or NotFound with the first one's reason. A model that the accountant does not know is let through.
    """
    for recipe in {(r.model, r.task, r.method): r for r in recipes}.values():
        try:
            labels = len(TASKS[recipe.task].labels) or None if recipe.task in TASKS else None
            if architecture_of(recipe.model).task == "encoder":
                labels = labels or 2  # a data file says how many classes it has when it is read
        except LabError:
            return  # no config here, or a family that cannot be counted: loading will tell
        params(recipe.model, recipe.method, labels)


def numbers(name: str, text: str, kind: type) -> list[Any]:
    """[1, 2, 4] from "1,2,4"; for whole numbers also "0-4". Raises: BadValue for what is not a number."""
    found: list[Any] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            found += range(int(first), int(last) + 1)[: MOST + 1] if kind is int and first and dash else [kind(part)]
        except ValueError:
            raise BadValue(f"{name} takes numbers with commas between, such as 1,2,4; '{part}' is none") from None
    if not 0 < len(found) <= MOST:
        raise BadValue(
            f"{name} takes at most {MOST:,} values" if found else f"{name} is empty: give at least one value"
        )
    return found
