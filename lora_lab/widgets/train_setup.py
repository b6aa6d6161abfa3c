"""What the training panel derives from its settings: menus, parameter counts, and earlier runs for the background."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import LabError
from lora_lab.methods import REGISTRY
from lora_lab.methods.lora import LoRA
from lora_lab.metrics import factor
from lora_lab.training.assets import problem_with
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store
from lora_lab.training.tasks import VOICES

TASKS = {"minilm": ("rt", "imdb", "tweets"), "smollm2": ("kjv", "shakespeare", *VOICES)}
CLASSES = {"rt": 2, "imdb": 2, "tweets": 3, **dict.fromkeys(TASKS["smollm2"])}  # known without reading the texts
RANKS, ALPHAS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
STEPS = (20, 50, 100, 200, 400, 800)
EARLIER = 3  # runs of other recipes to draw
READ = 200  # the newest records of a store that are read


def offers(model: str, task: str, lora: LoRA, lr: float, steps: int) -> dict[str, Any]:
    """Return the values for menus and sliders, including the given ones; tweets only if this machine has them."""
    models = [name for name in TASKS if not problem_with(name)]
    tasks = {name: list(TASKS.get(name, ("rt",))) for name in dict.fromkeys([*models, model])}
    tasks = {name: [t for t in names if t != "tweets" or not problem_with(t)] for name, names in tasks.items()}
    tasks[model] = list(dict.fromkeys([*tasks[model], task]))
    return {
        "models": list(tasks), "tasks": tasks, "methods": list(REGISTRY),
        "ranks": sorted({*RANKS, lora.rank}), "alphas": sorted({*ALPHAS, lora.alpha}),
        "rates": sorted({*RATES, lr}), "steps": sorted({*STEPS, steps}),
    }  # fmt: skip


@cache
def per_rank(model: str) -> dict[str, int]:
    """Return {role: parameters of rank-1 adapters on all layers with this role}."""
    try:
        roles = architecture_of(model).roles
        return {role: params(model, LoRA(rank=1, alpha=1, targets=(role,))).trainable for role in roles}
    except LabError:
        return {"q": 0, "v": 0}  # the model cannot be counted


def counted(recipe: Recipe, classes: int | None) -> dict[str, Any]:
    """Count what would train; `plain` means rank times `per_rank`, summed over targets. Raises: see `params`."""
    method, count = recipe.method, params(recipe.model, recipe.method, classes)
    return {
        "hash": recipe.hash, "words": f"{recipe.describe()}, {recipe.steps} steps", "within": method.trains_base,
        "trains": count.trainable, "head": count.head, "total": count.total,
        "plain": isinstance(method, LoRA) and not (method.variants or method.rank_pattern),
    }  # fmt: skip


class Kept:
    """The finished runs of a store and of an optional second one with other seeds; each record is read once."""

    def __init__(self, store: Store, seeds: Store | None) -> None:
        self.store, self.seeds = store, seeds
        self._read: dict[tuple[Path, int], Run | None] = {}  # by file and modification time

    def beside(self, recipe: Recipe, metric: str) -> dict[str, list[Any]]:
        """Return {others, earlier}: validation curves as [[step, value], ...], shares in percent.

        others    all other seeds of the recipe, with their value on the test rows
        earlier   the last EARLIER runs of other recipes on the same model and task, labeled by what differs
        """
        others, earlier, scale = list[Any](), list[Any](), factor(metric)
        settings = {*recipe.describe().split(", "), f"{recipe.steps} steps"}
        runs = self._runs(self.store)
        for i, run in enumerate([*runs, *(self._runs(self.seeds) if self.seeds else [])]):
            if (run.recipe.model, run.recipe.task) != (recipe.model, recipe.task) or metric not in run.metrics:
                continue
            curve: dict[str, Any] = {"checks": [[v["step"], scale * v[metric]] for v in run.history["validation"]]}
            if _without_seed(run.recipe) == _without_seed(recipe):
                if run.recipe.seed != recipe.seed:
                    others.append(curve | {"value": scale * run.metrics[metric]})
            elif i < len(runs) and len(earlier) < EARLIER:
                words = [*run.recipe.describe().split(", "), f"{run.recipe.steps} steps"]
                earlier.append(curve | {"label": ", ".join(word for word in words if word not in settings)})
        return {"others": others, "earlier": earlier}

    def _runs(self, store: Store) -> list[Run]:
        """Return the finished runs, newest first; skip records that cannot be read."""
        files, runs = list[tuple[int, Path]](), list[Run | None]()
        for file in store.records() if store.folder.exists() else ():
            with suppress(OSError):  # removed in the meantime
                files.append((file.stat().st_mtime_ns if isinstance(file, Path) else 0, Path(str(file))))
        for written, file in sorted(files, reverse=True)[:READ]:
            if (file, written) not in self._read:
                self._read[file, written] = None
                with suppress(LabError):
                    self._read[file, written] = replace(store.read(file.stem), predictions=None)
            runs.append(self._read[file, written])
        return [run for run in runs if run and run.status in FINISHED]


def _without_seed(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that all seeds of a recipe share, however often they are validated."""
    return {name: value for name, value in recipe.settings().items() if name not in ("seed", "validations")}
