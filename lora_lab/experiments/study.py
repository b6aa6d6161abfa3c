"""A study: labeled groups of recipes, one recipe per seed, and verdicts between the groups.

groups of recipes -> run(store) -> frame, scores(label), verdicts(pairs)

study = Study.of("minilm", "rt", {"r1": LoRA(rank=1), "r8": "lora:rank=8"}, seeds=5, lr=2e-3, steps=200)
study.run("runs").verdicts({"rank": ("r8", "r1")})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lora_lab.experiments import results
from lora_lab.experiments.contenders import contenders
from lora_lab.experiments.statistics import MARGIN, Verdict, verdicts_of
from lora_lab.experiments.sweep import sweep
from lora_lab.lazy import Lazy
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Lazy("pandas")  # 25 MB, which a panel that waits doesn't need


@dataclass(frozen=True)
class Study:
    """Groups of recipes and, after `run`, their runs.

    groups   {label: recipes}; recipe i of two groups is a pair, with the same seed, data order and draw of examples
    margin   margin of equivalence, fixed before anything runs
    found    {recipe: run}, including failed runs
    """

    groups: Mapping[str, Sequence[Recipe]]
    margin: float = MARGIN
    found: Mapping[Recipe, Run] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: str, task: str, methods: Mapping[str, Any], seeds: int | Iterable[int] = 5,
        margin: float = MARGIN, **fields: Any,
    ) -> Self:  # fmt: skip
        """Make a group per method: a `Method`, a string such as "lora:rank=4", or {"method": either, **recipe fields}.

        seeds     number of seeds, or the seeds themselves
        fields    recipe fields that all groups share; `validations` defaults to 0
        Raises: BadValue for an invalid value.
        """
        groups, numbers = {}, range(seeds) if isinstance(seeds, int) else list(seeds)
        for label, given in methods.items():
            settings = {"validations": 0, **fields, **(given if isinstance(given, Mapping) else {"method": given})}
            (method,) = contenders([settings.pop("method")])
            groups[label] = [Recipe(model, task, method, **settings).at_seed(seed) for seed in numbers]
        return cls(groups, margin)

    @property
    def recipes(self) -> list[Recipe]:
        """All distinct recipes."""
        return list(dict.fromkeys(recipe for group in self.groups.values() for recipe in group))

    def run(self, store: Store | str | Path = "runs", **options: Any) -> Self:
        """Train the runs that the store lacks; return the study with its runs. Options and errors: see `sweep`."""
        return replace(self, found={run.recipe: run for run in sweep(self.recipes, store, **options).runs})

    def runs(self, label: str) -> list[Run]:
        """Return a group's finished runs, in the order of its recipes."""
        return [self.found[recipe] for recipe in self.groups[label] if self._finished(recipe)]

    @property
    def missing(self) -> str:
        """Why the study is incomplete, such as "2 of 15 runs are missing: the loss became nan"; "" if it isn't."""
        missing = [recipe for recipe in self.recipes if not self._finished(recipe)]
        reason = next((run.error for run in self.found.values() if run.error), "stopped; repeat the call to resume")
        return f"{len(missing)} of {len(self.recipes)} runs are missing: {reason}" if missing else ""

    @property
    def frame(self) -> pd.DataFrame:
        """One row per finished run: `group` and the columns of `results.row`."""
        rows = [{"group": label, **results.row(run.to_json())} for label in self.groups for run in self.runs(label)]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["group", "hash", "status"])

    def values(self, label: str, metric: str = "accuracy") -> list[float]:
        """Return a test metric for each finished run of a group."""
        return [run.metrics[metric] for run in self.runs(label)]

    def scores(self, label: str) -> np.ndarray:
        """Return scores (seeds, rows): 1 where a run is right on a test row, else 0; for language models, -loss."""
        return np.stack([results.scores_of(run) for run in self.runs(label)])

    def verdicts(self, pairs: Mapping[Any, Sequence[str]]) -> dict[Any, Verdict]:
        """Return {name: verdict} for {name: (label, label)}, the first against the second, with Holm's correction.

        Pairs use the seeds that both groups have finished; pairs without any are omitted.
        """
        runs = {name: sides for name, (a, b, *_) in pairs.items() if (sides := self._sides(a, b))}
        return verdicts_of(runs, self.margin) if runs else {}

    def _finished(self, recipe: Recipe) -> bool:
        return recipe in self.found and self.found[recipe].status in FINISHED

    def _sides(self, a: str, b: str) -> tuple[results.Runs, results.Runs] | None:
        first, second = self.groups[a], self.groups[b]
        if len(first) == len(second):  # seed i of both is a pair
            both = [pair for pair in zip(first, second, strict=True) if all(map(self._finished, pair))]
            first, second = [a for a, _ in both], [b for _, b in both]
        sides = [tuple(self.found[recipe] for recipe in side if self._finished(recipe)) for side in (first, second)]
        return (results.Runs(sides[0]), results.Runs(sides[1])) if all(sides) else None
