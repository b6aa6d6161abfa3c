"""Load runs as a tidy data frame, select runs with `runs.at(rank=8)`, and merge stores from many laptops."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from lora_lab.errors import BadValue, Changed, LabError, NotFound, nearest, warn
from lora_lab.files import as_path, write_atomically
from lora_lab.lazy import pd
from lora_lab.methods import REGISTRY
from lora_lab.methods.base import plain, words
from lora_lab.methods.lora import LATER as LORA_LATER
from lora_lab.training.recipe import ADDED_LATER, Recipe
from lora_lab.training.runs import FINISHED, VERSION, Run, Store, dtype_of, readable, run_from, stores
from lora_lab.training.tasks import TASKS, check_unchanged, fingerprints_in, load_task, task_of

SETTINGS = {f.name: f.default for f in fields(Recipe) if f.name not in ("method", "dropout", "validations", "device")}
FREE = ("seed", "subset", "start", "attention", "task")  # runs that are scored together may differ only in these
METHOD = ("rank", "alpha", "dropout", "rslora", "init")  # columns that exist for every method
PLAIN = ("hash", "status", "error", "adapter_parameters", "head_parameters", "seconds", "peak_bytes", "adapter")
ORDER = ("model", "task", "method", "targets", "rank", "alpha", "lr", "seed", "hash")
bundled = lru_cache(maxsize=8)(load_task)  # a store has many runs of one task


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row of the frame from a run's JSON: settings, costs, test metrics, and metrics from the last validation.

    `dropout` is the adapter's dropout, and `base_dropout` is the base model's. `dtype` is the recipe's setting, and
    `run_dtype` is the dtype that the run used. Each option of a method is a column.
    """
    recipe, method = record["recipe"], record["recipe"]["method"]
    last = (record["history"]["validation"] or [{}])[-1]
    later = LORA_LATER if method["name"] == "lora" else {}
    options = {name: _plain(value) for name, value in (later | method).items() if name != "name"}
    return {
        **{
            name: recipe.get(name, default) if name in ADDED_LATER else recipe[name]
            for name, default in SETTINGS.items()
        },
        "base_dropout": recipe["dropout"],
        "run_dtype": dtype_of(record.get("environment") or {}),
        "method": method["name"],
        **dict.fromkeys(METHOD),
        **options,
        "targets": options.get("targets") or None,
        **{name: record.get(name) for name in PLAIN},
        **record["metrics"],
        **{f"validation_{name}": n for name, n in last.items() if name != "step" and isinstance(n, int | float)},
    }


def _plain(value: Any) -> Any:
    """Format a list as "q,v" and a mapping as "q=4,v=8"."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def settings_in(frame: pd.DataFrame) -> list[str]:
    """Return the names of the columns that are settings rather than results."""
    options = {field.name for method in REGISTRY.values() for field in fields(method)}  # type: ignore[arg-type]
    settings = {*SETTINGS, *METHOD, *options, "base_dropout", "run_dtype", "method", "targets"}
    return [name for name in frame if name in settings]


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a frame with a row per run, in an order that depends only on the runs."""
    table = pd.DataFrame([row(record) for record in records])
    if table.empty:
        return pd.DataFrame(columns=["hash", "status"])
    return table.sort_values([name for name in ORDER if name in table], ignore_index=True)


def load(store: str | Path) -> pd.DataFrame:
    """Load a store as a frame, without adapters or predictions: 10,000 runs take 1 to 2 s. Raises: see `records`."""
    try:
        return frame(records(Path(store)))  # one record at a time: 10,000 histories in memory are slow
    except Exception:
        return frame(records(Path(store), strict=True))  # names the damaged record


def records(folder: Path, skip: Container[str] = (), *, strict: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a store's records, except files in `skip`; `strict` checks all values (slower), not only the version.

    Raises: BadValue for a record that cannot be read; NotFound if there is no such store.
    """
    for file in _existing(folder).records() if str(folder) not in skip else ():
        if str(file) in skip:
            continue
        with readable(file):
            if not file.is_file():
                raise OSError("it isn't a file")
            record = orjson.loads(file.read_bytes())
            checked = record["version"] > VERSION or strict
        record = run_from(record, file).to_json() if checked else record
        yield record | {"adapter": str(file).removesuffix(".json")} if record.get("adapter") else record


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep, or a selection of them."""

    runs: tuple[Run, ...]

    def __len__(self) -> int:
        return len(self.runs)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The runs as a tidy frame."""
        return frame(run.to_json() for run in self.runs)

    @property
    def finished(self) -> Runs:
        """The runs that finished."""
        return Runs(tuple(run for run in self.runs if run.status in FINISHED))

    def at(self, **wanted: Any) -> Runs:
        """Select runs by settings: at(rank=8, lr=1e-3). Raises: NotFound, with existing values, if no run matches."""
        rows = [row(run.to_json()) for run in self.runs]
        for name in wanted:
            if rows and not any(name in values for values in rows):
                raise NotFound(f"runs have no setting '{name}'; nearest: {nearest(name, rows[0])}")
        given = {name: plain(value) for name, value in wanted.items()}
        if given.get("targets"):
            given["targets"] = words(given["targets"])  # in the order of stored targets
        texts = {name: _plain(value) for name, value in given.items()}.items()
        pairs = zip(self.runs, rows, strict=True)
        selected = tuple(run for run, values in pairs if all(values.get(name) == value for name, value in texts))
        if not selected:
            existing = {name: sorted({str(values.get(name)) for values in rows}) for name in wanted}
            raise NotFound(f"no run has {wanted}; existing values are {existing}")
        return Runs(selected)

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy of each finished run, by seed. Raises: BadValue if no run finished or a run has no accuracy."""
        for run in (runs := self._by_seed()):
            if "accuracy" not in run.metrics:
                raise BadValue(f"{run.recipe.task} has no accuracy, only {', '.join(run.metrics)}: see `frame`")
        return np.array([run.metrics["accuracy"] for run in runs])

    @property
    def scores(self) -> np.ndarray:
        """Scores (seeds, rows): 1 if a run is right on a test row, else 0; for language models, the negative loss.

        Raises: BadValue for a run without stored predictions; see also `accuracy`.
        """
        return np.stack([scores_of(run) for run in self._by_seed()])

    def _by_seed(self) -> list[Run]:
        warn(mixed_dtypes(run.dtype for run in self.finished.runs))
        runs = sorted(self.finished.runs, key=lambda run: run.recipe.seed)
        if not runs:
            raise BadValue(f"none of these {len(self)} runs finished, so nothing can be compared; see their `error`")
        check_same_rows(runs)
        for a, b in pairwise(run.recipe for run in runs):  # a verdict would treat both as seeds of one setting
            names = (name for name in ("method", "dropout", *SETTINGS) if name not in FREE)
            differ = [name for name in names if getattr(a, name) != getattr(b, name)]
            if differ or a.seed == b.seed:
                two = f"{a.describe()} and {b.describe()}"
                what = " and ".join(differ) or "a detail, but not in the seed"
                raise BadValue(f"these runs differ in {what} ({two}): select one setting, as in at(rank=8, lr=1e-3)")
        return runs


def mixed_dtypes(dtypes: Iterable[str | None]) -> str:
    """Return a sentence if runs were trained in different dtypes, else "". None stands for a run that never started."""
    counts = Counter(filter(None, dtypes))
    numbers = " and ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
    advice = "select one with at(run_dtype=...), or train all runs in one dtype, such as dtype='fp32'"
    return f"these runs were trained in different dtypes, {numbers}: {advice}" if len(counts) > 1 else ""


def unlike(runs: Iterable[Run]) -> str:
    """Apply `mixed_dtypes` to each group of runs that ask for the same dtype; full fine-tuning may ask for another."""
    groups: dict[Any, list[str | None]] = {}
    for run in runs:
        key = run.recipe.model, run.recipe.task, run.recipe.max_length, *run.recipe.computed.values()
        groups.setdefault(key, []).append(run.dtype)
    return next(filter(None, map(mixed_dtypes, groups.values())), "")


def check_same_rows(runs: Iterable[Run]) -> None:
    """Check that runs were scored on the same rows, from one task or from copies of one file. Raises: BadValue."""
    known = [(run.recipe.task, run.environment.get("data")) for run in runs]
    tasks, files = sorted({task for task, _ in known}), {data for _, data in known}
    if len(tasks) > 1 and (len(files) > 1 or None in files):
        names = " and ".join(tasks)
        raise BadValue(f"the runs were scored on different rows, from {names}: select one task, as in at(task='rt')")


def scores_of(run: Run) -> np.ndarray:
    """Return a run's scores, of shape (rows,); see `Runs.scores`. Raises: BadValue; Changed, see `sweep`."""
    recipe = run.recipe
    if run.predictions is None:
        raise BadValue(f"the run {recipe.hash} has no predictions; score it again")
    if "pearson" in run.metrics:
        raise BadValue(f"{recipe.task} is scored by a correlation over all rows, so a single row has no score")
    task = bundled(recipe.task, max_length=recipe.max_length) if recipe.task in TASKS else task_of(recipe)
    labels = None if task.num_labels is None else np.array(task.test.labels)
    check_unchanged(recipe, {"data": run.environment.get("data")}, {recipe.task: task.data})
    if labels is not None and len(labels) != len(run.predictions):
        raise Changed(f"{recipe.task} has changed since runs were trained on it: the number of test rows differs")
    return -run.predictions if labels is None else run.predictions == labels


def from_store(store: str | Path | Store) -> Runs:
    """Load all runs of a store, with predictions. Raises: NotFound if there is no such store; see also `Store.runs`."""
    return Runs(tuple(_existing(store).runs()))


def _existing(store: str | Path | Store) -> Store:
    """Open a store to read it. Raises: NotFound if there is no such folder or zip file."""
    opened = Store(store)
    if not (os.path.isdir(opened.folder) if isinstance(opened.files, Path) else opened.files.is_dir()):
        fix = "pass a folder or zip file that a sweep wrote, and unpack a zip file that is inside another one"
        raise NotFound(f"there is no folder {opened.folder}: {fix}")
    return opened


# ---- many stores into one


class Collected(NamedTuple):
    """How many runs were copied, how many already existed, and {file: why it was skipped}."""

    taken: int
    repeated: int
    unreadable: dict[str, str]


def collect(folders: str | Path | Iterable[str | Path], into: str | Path) -> Collected:
    """Merge all stores in one or more folders, and in the zip files inside them, into one store.

    If a recipe has several runs, keep one that finished, or else the first. Skip files that are not runs, and folders
    without runs. If runs used different versions of a data file, a model folder or `start`, keep only those with the
    target store's version or, if it has none, the most common version. Warn if runs of one recipe were trained in
    different dtypes.
    Raises: NotFound if a folder is missing or no run is found; BadValue if `into` is inside a folder or not writable.
    """
    store, taken, repeated = Store(into), 0, 0
    folders = [folders] if isinstance(folders, str | Path) else folders
    sources = {folder: stores(folder) for folder in map(as_path, folders)}
    unreadable = {str(folder): "it has no runs" for folder, paths in sources.items() if not paths}
    if len(unreadable) == len(sources):
        raise NotFound(f"there are no runs below {', '.join(unreadable)}: pass the folders that sweeps have written")
    for folder in sources:
        if store.folder.resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{into} is inside {folder}, one of the sources: choose another folder")
    store.check_writable()
    runs = dict[str, tuple[Any, Run]]()
    for path in sorted(set[Path]().union(*sources.values())):
        try:
            source = _existing(path)
        except LabError as error:
            unreadable[str(path)] = str(error)
            continue
        for file in source.records():
            try:
                runs[str(file)] = source.files / file.stem, source.read(file.stem)
            except LabError as error:
                unreadable[str(file)] = str(error)
    if not runs:
        name, problem = next(iter(unreadable.items()), ("the folder", "it has no runs"))
        raise NotFound(f"no run could be read, for example in {name}: {problem}")
    held, fingerprints = {run.recipe: run for run in store.runs(needed=())}, dict[str, str]()
    for group in ([run for _, run in runs.values()], held.values()):  # the target store's fingerprints take precedence
        pairs = Counter(pair for run in group for pair in fingerprints_in(run.recipe.settings(), run.environment))
        fingerprints |= dict(pair for pair, _ in reversed(pairs.most_common()))  # each file's most common one
    for name, (files, run) in runs.items():
        stored, own = held.get(run.recipe), fingerprints_in(run.recipe.settings(), run.environment)
        if differ := [file for file, fingerprint in own if fingerprints[file] != fingerprint]:
            reason = f"this run used a different version of {differ[0]} than the other runs"
            unreadable[name] = f"{reason}: collect it into another folder"
        elif stored and (stored.status in FINISHED or run.status not in FINISHED):
            repeated += 1
        else:
            target = store.adapter_folder(run.recipe)
            for file in files.iterdir() if files.is_dir() else ():
                if file.is_file():
                    write_atomically(target / file.name, file.read_bytes())
            adapter = str(target) if (target / "adapter_config.json").is_file() else None
            held[run.recipe] = run
            store.add(replace(run, adapter=adapter))  # writes the record last, so that every listed run is complete
            taken += 1
    warn(unlike(held.values()))
    return Collected(taken, repeated, unreadable)
