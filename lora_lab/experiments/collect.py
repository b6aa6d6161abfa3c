"""Merge the stores of many laptops: copy every run under the given folders into one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, LabError, NotFound, warn
from lora_lab.experiments.results import records, unlike
from lora_lab.files import write_atomically
from lora_lab.training.runs import FINISHED, Run, Store, stores


@dataclass(frozen=True)
class Collected:
    """Counts of copied and already present runs, and {file: why it was skipped}."""

    taken: int
    repeated: int
    unreadable: dict[str, str]


def collect(folders: Iterable[str | Path], into: str | Path) -> Collected:
    """Merge all stores under the folders into one; a zip file counts as a store.

    Of several runs of one recipe, keep a finished one, or else the first. Skip files that are not runs, and runs whose
    data file differs from that of the target store's runs or, if it has none, of most other runs. Issue a LabWarning
    if runs of one recipe were trained in different dtypes.
    Raises: NotFound if a folder is missing or none holds a run; BadValue if `into` is inside one or not writable.
    """
    store, unreadable, taken, repeated = Store(into), dict[str, str](), 0, 0
    sources = [Path(folder) for folder in folders]
    paths = sorted({path for folder in sources for path in stores(folder)})
    for folder in sources:
        if Path(into).resolve().is_relative_to(folder.resolve()):
            raise BadValue(f"{into} is inside {folder}, one of the sources: choose another folder")
    if not paths:
        raise NotFound(f"there are no runs in {', '.join(map(str, sources))}: pass folders that contain stores of runs")
    store.check_writable()
    runs = dict[str, tuple[Any, Run]]()
    for source in map(Store, paths):
        for file in source.records():
            try:
                runs[str(file)] = source.files / file.stem, source.read(file.stem)
            except LabError as error:
                unreadable[str(file)] = str(error)
    fingerprints = _fingerprints((run.recipe.task, run.environment) for _, run in runs.values())
    fingerprints |= _fingerprints(
        (record["recipe"].get("task"), record.get("environment") or {}) for record in records(store.folder)
    )
    for name, (files, run) in runs.items():
        task, data = run.recipe.task, run.environment.get("data")
        if data and fingerprints[task] != data:
            reason = f"its data file {task} differs from that of the other runs"
            unreadable[name] = f"{reason}: collect it into another folder"
            continue
        stored = store.find(run.recipe)
        if stored is not None and (stored.status in FINISHED or run.status not in FINISHED):
            repeated += 1
            continue
        target = store.adapter_folder(run.recipe)
        for file in files.iterdir() if files.is_dir() else ():
            if file.is_file():
                write_atomically(target / file.name, file.read_bytes())
        adapter = str(target) if (target / "adapter_config.json").is_file() else None
        store.add(replace(run, adapter=adapter))  # record last, so that a listed run is complete
        taken += 1
    warn(unlike(store.runs()))
    return Collected(taken, repeated, unreadable)


def _fingerprints(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return each data file's most common fingerprint among (task, environment) pairs; ties go to the first."""
    counters: dict[str, Counter[str]] = {}
    for task, environment in runs:
        if data := environment.get("data"):
            counters.setdefault(task, Counter())[data] += 1
    return {task: counts.most_common(1)[0][0] for task, counts in counters.items()}
