"""Merge the stores of many laptops: copy every run below some folders into one store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, LabError, NotFound, warn
from lora_lab.experiments.results import records, row, unlike
from lora_lab.files import write_atomically
from lora_lab.training.runs import FINISHED, Run, Store, stores


@dataclass(frozen=True)
class Collected:
    """Counts of copied and already present runs, and {file: why it was skipped}."""

    taken: int
    repeated: int
    unreadable: dict[str, str]


def collect(folders: Iterable[str | Path], into: str | Path) -> Collected:
    """Merge all stores below the folders; a zip file counts as a store. Of equal recipes a finished run is kept, else
    the first.

    Files that are not runs are skipped, and so are runs on a data file that differs from that of the store's runs or,
    if it has none, of most others. A LabWarning is issued for equal recipes trained in different dtypes.
    Raises: NotFound for a missing folder, or if none holds a run; BadValue if `into` lies within one of them or
    cannot be written.
    """
    store, unreadable, taken, repeated = Store(into), dict[str, str](), 0, 0
    sources = [Path(folder) for folder in folders]
    there = sorted({one for folder in sources for one in stores(folder)})
    for folder in sources:
        if Path(into).resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{into} lies within {folder}, one of the sources: choose another folder")
    if not there:
        raise NotFound(f"there are no runs in {', '.join(map(str, sources))}: give folders with stores of runs in them")
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
                f"its data file {task} differs from that of the other runs: collect it into another folder"
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
        store.add(replace(run, adapter=adapter))  # the record last, so that a listed run is complete
        taken += 1
    warn(unlike(store.runs()))
    return Collected(taken, repeated, unreadable)


def _held(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return each data file's most common fingerprint among (task, environment) pairs; the first of equals."""
    found: dict[str, Counter[str]] = {}
    for task, environment in runs:
        if data := environment.get("data"):
            found.setdefault(task, Counter())[data] += 1
    return {task: counts.most_common(1)[0][0] for task, counts in found.items()}


def _check_shown(file: Any, run: Run) -> None:
    """Raises: BadValue for a run that cannot be a row of the frame."""
    try:
        record = json.loads(json.dumps(run.to_json(), allow_nan=False))
        row(record), record["environment"].get("data")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{file} is not a run of lora_lab ({error!r}); move it out of the store") from error
