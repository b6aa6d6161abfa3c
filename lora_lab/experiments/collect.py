"""Many laptops' stores in one: every run below some folders, copied into a store, none lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.results import records, row, unlike, warn_of
from lora_lab.files import write_atomically
from lora_lab.training.runs import FINISHED, Run, Store, stores


@dataclass(frozen=True)
class Collected:
    """Runs taken into the store, records that it had already, and {file: why it was passed over}."""

    taken: int
    repeated: int
    unreadable: dict[str, str]


def collect(folders: Iterable[str | Path], into: str | Path) -> Collected:
    """Merge all stores below the folders; a zip file is one. Of one recipe a finished run is kept, else the first.

    Passed over: a file that is no run, and a run of a data file that held something else than for the store's runs or,
    without any, for most of the others. Runs of one recipe in different dtypes are all kept, with a LabWarning.
    Raises: NotFound for a missing folder; BadValue if `into` lies within one or cannot be written.
    """
    store, unreadable, taken, repeated = Store(into), dict[str, str](), 0, 0
    sources = [Path(folder) for folder in folders]
    there = sorted({one for folder in sources for one in stores(folder)})
    for folder in sources:
        if Path(into).resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{into} lies within {folder}, which is collected from: choose another place")
    store.check_writable()
    found = dict[str, tuple[Any, Run]]()
    for source in map(Store, there):
        for file in source.records():
            try:
                run = source.read(file.stem)
                _check_shown(file, run)
                found[str(file)] = source.files / file.stem, run
            except LabError as error:
                unreadable[str(file)] = str(error)
    held = _held((run.recipe.task, run.environment) for _, run in found.values())
    held |= _held((record["recipe"].get("task"), record.get("environment") or {}) for record in records(store.folder))
    for name, (beside, run) in found.items():
        task, data = run.recipe.task, run.environment.get("data")
        if data and held[task] != data:
            unreadable[name] = (
                f"{task} held something else there than where the runs kept here were made: collect it apart"
            )
            continue
        had = store.find(run.recipe)
        if had is not None and (had.status in FINISHED or run.status not in FINISHED):
            repeated += 1
            continue
        target = store.adapter_folder(run.recipe)
        for part in beside.iterdir() if beside.is_dir() else ():
            if part.is_file():
                write_atomically(target / part.name, part.read_bytes())
        adapter = str(target) if (target / "adapter_config.json").is_file() else None
        store.add(replace(run, adapter=adapter))  # the record last, so what is listed is whole
        taken += 1
    warn_of(unlike(store.runs()))
    return Collected(taken, repeated, unreadable)


def _held(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """What each data file held for most of these runs, (task, environment); the first if equally many."""
    found: dict[str, Counter[str]] = {}
    for task, environment in runs:
        if data := environment.get("data"):
            found.setdefault(task, Counter())[data] += 1
    return {task: counts.most_common(1)[0][0] for task, counts in found.items()}


def _check_shown(file: Any, run: Run) -> None:
    """Raises: BadValue for a run that would keep the frame of all from being shown."""
    try:
        record = json.loads(json.dumps(run.to_json(), allow_nan=False))
        row(record), record["environment"].get("data")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{file} is not a run of lora_lab ({error!r}); move it out of the store") from error
