"""Many runs as a tidy frame, and those of them that one asks for: `runs.at(rank=8)`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from lora_lab.errors import BadValue, LabWarning, NotFound, nearest
from lora_lab.methods import REGISTRY
from lora_lab.methods.base import Method
from lora_lab.training.assets import home
from lora_lab.training.recipe import LATER
from lora_lab.training.runs import FINISHED, VERSION, Run, Store, dtype_of
from lora_lab.training.tasks import TASKS, Task, check_unchanged, load_task

SETTINGS = ("model", "task", "lr", "seed", "steps", "batch", "warmup", "weight_decay", "clip", "dtype", "max_length")
METHOD = ("rank", "alpha", "dropout", "rslora", "init")  # columns that are there whatever the methods
SIZES = {"rank": "r", "tokens": "", "size": ""}  # of which a method has one, and what stands before it in its name
PLAIN = ("hash", "status", "error", "adapter_parameters", "head_parameters", "seconds", "peak_bytes", "adapter")
ORDER = ("model", "task", "method", "targets", "rank", "alpha", "lr", "seed", "hash")


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the frame from a run's JSON: settings, costs, metrics, and those of the last validation.

    `dropout` is the adapter's and `base_dropout` the base model's; `dtype` is what the recipe asks for and `run_dtype`
    what the run was trained in. A method's options have a column each where they are not as they usually are.
    """
    recipe, method = record["recipe"], record["recipe"]["method"]
    validated = record["history"]["validation"]
    last = validated[-1] if validated else {}
    own = {name: _plain(value) for name, value in method.items() if name != "name"}
    return {
        **{name: recipe[name] for name in SETTINGS},
        **{name: recipe.get(name, 0) for name in LATER},
        "base_dropout": recipe["dropout"],
        "run_dtype": dtype_of(record.get("environment") or {}),
        "method": method["name"],
        **dict.fromkeys(METHOD),
        **own,
        "targets": own.get("targets") or None,
        **{name: record.get(name) for name in PLAIN},
        **record["metrics"],
        **{f"validation_{name}": n for name, n in last.items() if name != "step" and isinstance(n, int | float)},
    }


def _plain(value: Any) -> Any:
    """A list as "q,v", a mapping as "q=4,v=8"."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={one}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else value


def settings_in(frame: pd.DataFrame) -> list[str]:
    """The frame's columns that are settings, rather than what came of them."""
    options = {field.name for method in REGISTRY.values() for field in fields(method)}  # type: ignore[arg-type]
    known = {*SETTINGS, *LATER, *METHOD, *options, "base_dropout", "run_dtype", "method", "targets"}
    return [name for name in frame if name in known]


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each run, in an order that depends on the runs alone."""
    table = pd.DataFrame([row(record) for record in records])
    if table.empty:
        return pd.DataFrame(columns=["hash", "status"])
    return table.sort_values([name for name in ORDER if name in table], ignore_index=True)


def load(store: str | Path) -> pd.DataFrame:
    """The frame of a store, without adapters and predictions: 10,000 runs in a second or two. Raises: as `records`."""
    return frame(records(Path(store)))  # one at a time: 10,000 whole histories at once are slow


def records(folder: Path, skip: Container[str] = ()) -> Iterator[dict[str, Any]]:
    """Every record in a store as JSON, except the files in `skip`.

    Raises: BadValue for a record of a newer version, or a file that is not a run.
    """
    for file in Store(folder).records():
        if str(file) in skip:
            continue
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
        """Those with these settings: at(rank=8, lr=1e-3). Raises: NotFound if there are none, naming what there is."""
        rows = [row(run.to_json()) for run in self.runs]
        for name in wanted:
            if rows and not any(name in own for own in rows):
                raise NotFound(f"runs have no setting '{name}'; nearest: {nearest(name, rows[0])}")
        plain = {name: ",".join(v) if isinstance(v, tuple | list) else v for name, v in wanted.items()}
        pairs = zip(self.runs, rows, strict=True)
        found = tuple(run for run, own in pairs if all(own.get(name) == value for name, value in plain.items()))
        if not found:
            has = {name: sorted({str(own.get(name)) for own in rows}) for name in wanted}
            raise NotFound(f"no run with {wanted}; there are {has}")
        return Runs(found)

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy of each finished run, by seed."""
        return np.array([run.metrics["accuracy"] for run in self._by_seed()])

    @property
    def scores(self) -> np.ndarray:
        """(seeds, rows): 1 where a run is right about a test row, else 0; of language models minus the row's loss.

        Raises: BadValue for a run that kept no predictions, and if no run finished.
        """
        if not (runs := self._by_seed()):
            raise BadValue(f"none of these {len(self)} runs finished, so there is nothing to judge; see their `error`")
        return np.stack([scores_of(run) for run in runs])

    def _by_seed(self) -> list[Run]:
        warn_of(mixed_dtypes(run.dtype for run in self.finished.runs))
        return sorted(self.finished.runs, key=lambda run: run.recipe.seed)


def mixed_dtypes(dtypes: Iterable[str | None]) -> str:
    """A sentence if runs were trained in different dtypes, else ""; None stands for a run that never began."""
    counts = Counter(filter(None, dtypes))
    if len(counts) < 2:
        return ""
    each = " and ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
    return (
        f"these runs were trained in different dtypes, {each}: compare runs of one dtype, as with "
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
    """LabWarning with the sentence, if there is one."""
    if sentence:
        warnings.warn(sentence, LabWarning, stacklevel=4)


def scores_of(run: Run, task: Task | None = None) -> np.ndarray:
    """(rows,): as `Runs.scores`; `task` is the run's, if it is loaded already.

    Raises: BadValue for a run without predictions, or of numbers; Changed if the data file held something else then.
    """
    recipe = run.recipe
    if run.predictions is None:
        raise BadValue(f"the run {recipe.hash} kept no predictions; score it again")
    if "pearson" in run.metrics:
        raise BadValue(f"{recipe.task} is judged by a correlation of all rows, so no row has a score of its own")
    if task is None and recipe.task in TASKS:  # a store has many runs of one task, and reading one is slow
        labels, data = _bundled(recipe.task, recipe.max_length, home())
    else:
        text, label = recipe.text_column, recipe.label_column
        labels, data = _labels(task or load_task(recipe.task, max_length=recipe.max_length, text=text, label=label))
    fits = labels is None or len(labels) == len(run.predictions)
    check_unchanged(recipe.task, run.environment.get("data") if fits else "of another number of rows", data)
    return -run.predictions if labels is None else run.predictions == labels


def _labels(task: Task) -> tuple[np.ndarray | None, str | None]:
    """The classes of the test rows, None for a language model, and `Task.data`."""
    return None if task.num_labels is None else np.array(task.test.labels), task.data


@lru_cache(maxsize=8)
def _bundled(task: str, max_length: int | None, _: Path) -> tuple[np.ndarray | None, str | None]:
    return _labels(load_task(task, max_length=max_length))


def from_store(store: str | Path | Store) -> Runs:
    """All runs of a store, with predictions. Raises: as `Store.runs`."""
    return Runs(tuple((store if isinstance(store, Store) else Store(store)).runs()))


def by_name(methods: Iterable[Method]) -> dict[str, Method]:
    """Methods by short names: "lora r8", "prompt 20", "head". Raises: BadValue for none, and for two of one name."""
    given, named = list(methods), dict[str, Method]()
    for method in given:
        settings = method.settings()
        size = next((f" {sign}{settings[name]}" for name, sign in SIZES.items() if name in settings), "")
        named[f"{method.name}{size}"] = method
    if len(named) < max(len(given), 1):
        raise BadValue("give at least one method, and no two that differ in neither name nor size")
    return named
