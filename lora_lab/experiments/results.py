"""Many finished runs as a tidy frame, and those of them that one asks for: `runs.at(rank=8)`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from lora_lab.errors import BadValue, LabWarning, NotFound, nearest
from lora_lab.methods.base import Method
from lora_lab.training.assets import home
from lora_lab.training.recipe import LATER, Recipe
from lora_lab.training.runs import FINISHED, VERSION, Run, Store, dtype_of
from lora_lab.training.tasks import TASKS, Task, check_unchanged, load_task

SETTINGS = ("model", "task", "lr", "seed", "steps", "batch", "warmup", "weight_decay", "clip", "dtype", "max_length")
METHOD = ("rank", "alpha", "dropout", "rslora", "init")
SIZES = {"rank": "r", "tokens": "", "size": ""}  # of which a method has one, and what stands before it in its name
PLAIN = ("hash", "status", "error", "adapter_parameters", "head_parameters", "seconds", "peak_bytes", "adapter")


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the frame, from a run's record as JSON: settings, metrics, costs."""
    recipe, method = record["recipe"], record["recipe"]["method"]
    validated = record["history"]["validation"]
    last = validated[-1] if validated else {}
    return {
        **{name: recipe[name] for name in SETTINGS},
        **{name: recipe.get(name, 0) for name in LATER},
        "base_dropout": recipe["dropout"],  # the model's own; `dropout` is the adapter's
        "run_dtype": dtype_of(record.get("environment") or {}),  # what "auto" came to; `dtype` is the recipe's
        "method": method["name"],
        **{name: method.get(name) for name in METHOD},
        "targets": ",".join(method.get("targets") or ()) or None,
        **{name: record.get(name) for name in PLAIN},
        **record["metrics"],
        **{f"validation_{name}": n for name, n in last.items() if name != "step" and isinstance(n, int | float)},
    }


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The tidy frame: a row for each run, in an order that depends on the runs alone."""
    table = pd.DataFrame([row(record) for record in records])
    order = [
        name for name in ("model", "task", "method", "targets", "rank", "alpha", "lr", "seed", "hash") if name in table
    ]
    return table.sort_values(order, ignore_index=True) if len(table) else pd.DataFrame(columns=["hash", "status"])


def load(store: str | Path) -> pd.DataFrame:
    """The frame of a store, without its adapters and predictions: 10,000 runs in a second or two.

    Raises: BadValue for a record of a newer version, or one that is no run.
    """
    return frame(_each(Path(store)))  # one at a time: 10,000 whole histories at once are what takes long


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record in a store as JSON. Raises: as `load`."""
    return list(_each(folder))


def _each(folder: Path) -> Iterator[dict[str, Any]]:
    for file in Store(folder).records():
        try:
            record = orjson.loads(file.read_bytes())
            version = record["version"]
            if version <= VERSION:
                record["recipe"]["method"]["name"], record["history"]["validation"], record["metrics"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadValue(f"{file} is not a run of lora_lab ({error!r}); move it out of the store") from error
        if version > VERSION:
            raise BadValue(f"{file} is a record of version {version}; this lora_lab reads {VERSION}: update it")
        yield record


@dataclass(frozen=True)
class Runs:
    """Runs that belong together: the result of a sweep, or a part of one."""

    runs: tuple[Run, ...]

    def __len__(self) -> int:
        return len(self.runs)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The tidy frame."""
        return frame(run.to_json() for run in self.runs)

    @property
    def finished(self) -> Runs:
        """Those that ended as they should."""
        return Runs(tuple(run for run in self.runs if run.status in FINISHED))

    def at(self, **wanted: Any) -> Runs:
        """Those with these settings: at(rank=8, lr=1e-3). Raises: NotFound when there are none, naming what is."""
        columns = row(self.runs[0].to_json()) if self.runs else {}
        for name in wanted:
            if name not in columns:
                raise NotFound(f"runs have no setting '{name}'; nearest: {nearest(name, columns)}")
        found = tuple(r for r in self.runs if all(_same(row(r.to_json())[n], v) for n, v in wanted.items()))
        if not found:
            has = {n: sorted({str(row(r.to_json())[n]) for r in self.runs}) for n in wanted}
            raise NotFound(f"no run with {wanted}; there are {has}")
        return Runs(found)

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy of each run, in the order of their seeds."""
        return np.array([run.metrics["accuracy"] for run in self._by_seed()])

    @property
    def scores(self) -> np.ndarray:
        """(seeds, rows): 1 where a run is right about a test row, else 0; of language models minus the row's loss.

        Raises: BadValue for a run that kept no predictions, and where no run finished.
        """
        if not (runs := self._by_seed()):
            raise BadValue(f"none of these {len(self)} runs finished, so there is nothing to judge; see their `error`")
        return np.stack([scores_of(run) for run in runs])

    def _by_seed(self) -> list[Run]:
        warn_of(mixed_dtypes(run.dtype for run in self.finished.runs))
        return sorted(self.finished.runs, key=lambda run: run.recipe.seed)


def mixed_dtypes(dtypes: Iterable[str | None]) -> str:
    """A sentence where runs were trained in different dtypes, else ""; None stands for a run that never began."""
    counts = Counter(filter(None, dtypes))
    if len(counts) < 2:
        return ""
    told = " and ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
    return (
        f"these runs were trained in different dtypes, {told}: compare runs of one dtype, as with "
        "at(run_dtype=...), or train all of them in one, such as dtype='fp32'"
    )


def of_one_dtype(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of the dtype that most runs were trained in, and of those that never began."""
    if frame.empty:
        return frame
    most = frame["run_dtype"].mode()[:1]
    return frame[frame["run_dtype"].isna() | frame["run_dtype"].isin(most)]


def unlike(runs: Iterable[Run]) -> str:
    """As `mixed_dtypes`, of runs whose recipes asked for the same; full fine-tuning asks for another than LoRA."""
    groups: dict[Any, list[str | None]] = {}
    for run in runs:
        asked = run.recipe.model, run.recipe.task, run.recipe.max_length, *run.recipe.computed.values()
        groups.setdefault(asked, []).append(run.dtype)
    return next(filter(None, map(mixed_dtypes, groups.values())), "")


def warn_of(sentence: str) -> None:
    """LabWarning with the sentence, where there is one."""
    if sentence:
        warnings.warn(sentence, LabWarning, stacklevel=4)


def scores_of(run: Run, task: Task | None = None) -> np.ndarray:
    """(rows,): as `Runs.scores`; `task` is the run's, where it is loaded already.

    Raises: BadValue for a run without predictions, or of numbers; Changed where they are of what one's own file held
    another day.
    """
    if run.predictions is None:
        raise BadValue(f"the run {run.recipe.hash} kept no predictions; score it again")
    if "pearson" in run.metrics:
        raise BadValue(f"{run.recipe.task} is judged by a correlation of all rows, so no row has a score of its own")
    labels, data = _read(task) if task else _held_out(run.recipe)
    fits = labels is None or len(labels) == len(run.predictions)
    check_unchanged(run.recipe.task, run.environment.get("data") if fits else "of another number of rows", data)
    return -run.predictions if labels is None else run.predictions == labels


Labels = tuple[np.ndarray | None, str | None]  # classes of the test rows, none of a language model's; and `Task.data`


def _held_out(recipe: Recipe) -> Labels:
    if recipe.task in TASKS:  # a store has many runs of one task, and reading one takes longer than judging them
        return _bundled(recipe.task, recipe.max_length, home())
    text, label = recipe.text_column, recipe.label_column
    return _read(load_task(recipe.task, max_length=recipe.max_length, text=text, label=label))


@lru_cache(maxsize=8)
def _bundled(task: str, max_length: int | None, _: Path) -> Labels:
    return _read(load_task(task, max_length=max_length))


def _read(task: Task) -> Labels:
    return None if task.num_labels is None else np.array(task.test.labels), task.data


def from_store(store: str | Path | Store) -> Runs:
    """All runs of a store, with predictions. Raises: as `Store.runs`."""
    return Runs(tuple((store if isinstance(store, Store) else Store(store)).runs()))


def called(method: Method) -> str:
    """A method's name and, where it has one, its rank, tokens or size: "lora r8", "prompt 20", "head"."""
    settings = method.settings()
    sizes = (f" {sign}{settings[name]}" for name, sign in SIZES.items() if name in settings)
    return f"{method.name}{next(sizes, '')}"


def by_name(methods: Iterable[Method]) -> dict[str, Method]:
    """The methods as they are called. Raises: BadValue for none, and for two of one name."""
    given = list(methods)
    named = {called(method): method for method in given}
    if len(named) < max(len(given), 1):
        raise BadValue("give at least one method, and no two that differ in neither name nor size")
    return named


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple | list):
        return bool(value == ",".join(wanted))
    return bool(value == wanted)
