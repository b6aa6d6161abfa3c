"""Forty laptops' stores in one: every run found below some folders, copied into a store of its own, none lost."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.results import records, row, unlike, warn_of
from lora_lab.files import write_atomically
from lora_lab.training.runs import FINISHED, Run, Store, stores


@dataclass(frozen=True)
class Collected:
    """What was found: runs taken into the store, records that stood there twice, and what was passed over and why."""

    taken: int
    repeated: int
    unreadable: dict[str, str]


def collect(folders: Iterable[str | Path], into: str | Path) -> Collected:
    """Merge all stores below the folders; a zip file is one. Of one recipe a finished run is kept, else the first.

    Passed over and named: a file that is no run, and a run of one's own file that held something else there than where
    the store's runs were made or, where it has none of that file, most of the others. Runs whose recipes are alike and
    whose dtypes are not are all kept, with a LabWarning: `run_dtype` tells them apart.
    Raises: NotFound for a folder that is not there, BadValue where `into` lies within one of them, cannot be written or
    holds what is no run.
    """
    store, unreadable, taken, repeated = Store(into), dict[str, str](), 0, 0
    sources = [Path(folder) for folder in folders]
    there = sorted({one for folder in sources for one in stores(folder)})
    for folder in sources:
        if Path(into).resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{into} lies within {folder}, which is collected from: choose another place")
    store.check_writable()
    found = dict[str, tuple[Path | zipfile.Path, Run]]()
    for source in map(Store, there):
        for file in source.records():
            try:
                found[str(file)] = source.files / file.stem, _read(source, file)
            except LabError as error:
                unreadable[str(file)] = str(error)
    held = _mostly(run for _, run in found.values()) | _held(store)
    for name, (beside, run) in found.items():
        task, data = run.recipe.task, run.environment.get("data")
        if data and held.setdefault(task, data) != data:
            words = f"{task} held something else there than where the runs kept here were made: collect it apart"
            unreadable[name] = words
            continue
        had = store.find(run.recipe)
        if had is not None and (had.status in FINISHED or run.status not in FINISHED):
            repeated += 1
            continue
        _take(store, beside, run)
        taken += 1
    warn_of(unlike(store.runs()))
    return Collected(taken, repeated, unreadable)


def _held(store: Store) -> dict[str, str]:
    """What files of one's own held when the runs of a store were made, by task."""
    found = ((record["recipe"].get("task"), record.get("environment") or {}) for record in records(store.folder))
    return {task: environment["data"] for task, environment in found if environment.get("data")}


def _mostly(runs: Iterable[Run]) -> dict[str, str]:
    """What each file of one's own held for most of these runs; of equally many, for the first."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        if data := run.environment.get("data"):
            found.setdefault(run.recipe.task, Counter())[data] += 1
    return {task: counts.most_common(1)[0][0] for task, counts in found.items()}


def _read(store: Store, file: Path | zipfile.Path) -> Run:
    """A run that the frame of all can show. Raises: BadValue for one that would keep it from being shown."""
    run = store.read(file.stem)
    try:
        record = json.loads(json.dumps(run.to_json(), allow_nan=False))
        row(record), record["environment"].get("data")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{file} is not a run of lora_lab ({error!r}); move it out of the store") from error
    return run


def _take(store: Store, source: Path | zipfile.Path, run: Run) -> None:
    """The adapter and the predictions, then the record, so that what is listed is whole."""
    target = store.adapter_folder(run.recipe)
    if source.is_dir():
        for file in source.iterdir():
            if file.is_file():
                write_atomically(target / file.name, file.read_bytes())
    store.add(replace(run, adapter=str(target) if (target / "adapter_config.json").is_file() else None))
