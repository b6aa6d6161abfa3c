"""Finished runs, and the folder that keeps them: one JSON file a run, named by its recipe's hash.

    STORE/3f2a9c1b77e0.json        recipe, metrics, history, counts, seconds, bytes, versions
    STORE/3f2a9c1b77e0/            the adapter, and predictions.npy: what it said of each test row

The JSON is written last and in one step, so a run that is listed is whole. A zip file of such a folder is read like it.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json, write_atomically, write_json
from lora_lab.training.recipe import Recipe, recipe_from

VERSION = 1
LATER = ("warnings",)  # fields that the first records lack
FINISHED = ("done", "early")


@dataclass(frozen=True)
class Run:
    """A recipe with what came of it.

    metrics     of the test split: accuracy, macro_f1, loss; or perplexity, loss
    history     step, loss and lr of every update; validation: metrics by step
    seconds     wall time of loading, training and scoring
    peak_bytes  most memory seen in use: allocated on a GPU; on a CPU the whole process, looked at after each step
    adapter     the adapter's folder; None when nothing was kept
    warnings    what the first step showed
    status      "done", or "stopped" by hand, "early" by patience, "failed" with `error`; where a sweep
                chooses also "behind", stopped for that, or "unscored", trained and validated and not yet tested
    """

    recipe: Recipe
    metrics: dict[str, float]
    history: dict[str, list[Any]]
    adapter_parameters: int
    head_parameters: int
    total: int
    seconds: float
    peak_bytes: int
    environment: dict[str, Any]
    status: str = "done"
    error: str | None = None
    adapter: str | None = None
    warnings: list[str] = field(default_factory=list)
    predictions: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def trainable(self) -> int:
        """Parameters that trained: adapters and heads."""
        return self.adapter_parameters + self.head_parameters

    @property
    def dtype(self) -> str | None:
        """What it was trained in, see `dtype_of`; None if it never began."""
        return dtype_of(self.environment)

    def to_json(self) -> dict[str, Any]:
        """The record as `lora-lab train --json` prints it, without the predictions."""
        values = {name: value for name, value in self.__dict__.items() if name not in ("predictions", "recipe")}
        return {"version": VERSION, "hash": self.recipe.hash, "recipe": self.recipe.settings(), **values} | {
            "trainable": self.trainable
        }


def dtype_of(environment: Mapping[str, Any]) -> str | None:
    """The arithmetic of a run, from its environment: bf16, nf4+bf16, or "fp32 by bf16" with products in bf16."""
    dtype = environment.get("dtype")
    if dtype is None:
        return None
    products, quantised = environment.get("products", dtype), environment.get("quantised")
    computed = dtype if products == dtype else f"{dtype} by {products}"
    return f"{quantised}+{computed}" if quantised else str(computed)


def is_record(file: Path | zipfile.Path) -> bool:
    """Whether a file has the name of a record, twelve hex digits: a store may hold other JSON, too."""
    return file.suffix == ".json" and len(file.stem) == 12 and set(file.stem) <= set("0123456789abcdef")


def stores(folder: Path) -> set[Path]:
    """The stores below a folder, itself included; a zip file is one. Raises: NotFound where neither is there."""
    if zipfile.is_zipfile(folder):
        return {folder}
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}: give a store of runs, or a folder of students' stores")
    return {file.parent for file in folder.rglob("*.json") if is_record(file)}


def failed(recipe: Recipe, reason: str) -> Run:
    """The record of a run that never began."""
    nothing: dict[str, list[Any]] = {"step": [], "loss": [], "lr": [], "validation": []}
    return Run(recipe, {}, nothing, 0, 0, 0, 0.0, 0, {}, status="failed", error=reason)


class Store:
    """A folder of runs, or a zip file of one, which is read and never written to."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files = zipfile.Path(self.folder) if zipfile.is_zipfile(self.folder) else self.folder

    def check_writable(self) -> None:
        """Fail now rather than after training. Raises: BadValue when the folder cannot be written to."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise BadValue(f"cannot write into {self.folder}: {error.strerror}; choose another folder") from error

    def adapter_folder(self, recipe: Recipe) -> Path:
        """Where a recipe's adapter is, or will be."""
        return self.folder / recipe.hash

    def replaces(self, status: str, recipe: Recipe) -> bool:
        """Whether a run with this status may replace the stored one: only a finished run replaces a finished one."""
        if status in FINISHED or not (self.folder / f"{recipe.hash}.json").is_file():
            return True
        return self.read(recipe.hash).status not in FINISHED

    def add(self, run: Run) -> None:
        """Keep a run; one of the same recipe is replaced, see `replaces`."""
        if run.predictions is not None:
            self.add_rows(run.recipe, "predictions", run.predictions)
        write_json(self.folder / f"{run.recipe.hash}.json", run.to_json())

    def add_rows(self, recipe: Recipe, name: str, values: np.ndarray) -> None:
        """Keep a value for each row of a split beside a run: STORE/HASH/NAME.npy, classes as a byte each."""
        content = io.BytesIO()
        if values.dtype.kind in "iu" and values.size:
            values = values.astype(np.min_scalar_type(values.max()))
        np.save(content, values, allow_pickle=False)
        write_atomically(self.adapter_folder(recipe) / f"{name}.npy", content.getvalue())

    def rows(self, recipe: Recipe, name: str) -> np.ndarray | None:
        """The inverse of `add_rows`; None where there are none."""
        file = self.files / recipe.hash / f"{name}.npy"
        return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) if file.is_file() else None

    def find(self, recipe: Recipe) -> Run | None:
        """The run of a recipe, None where there is none. Raises: BadValue, as `runs`."""
        return self.read(recipe.hash) if (self.files / f"{recipe.hash}.json").is_file() else None

    def records(self) -> list[Path | zipfile.Path]:
        """The files that hold its runs, by name."""
        there = self.files.iterdir() if isinstance(self.files, zipfile.Path) else self.files.glob("*.json")
        return sorted(filter(is_record, there), key=lambda file: file.name)

    def runs(self) -> list[Run]:
        """All runs, oldest first; of a zip file by name. Raises: BadValue for a newer record, or a damaged one."""
        files = sorted(self.records(), key=lambda f: f.stat().st_mtime_ns if isinstance(f, Path) else 0)
        return [self.read(file.stem) for file in files]

    def read(self, name: str) -> Run:
        """One run by the name of its record. Raises: BadValue, as `runs`."""
        file = self.files / f"{name}.json"
        values = read_json(file)
        version = values.get("version")
        if isinstance(version, int) and version > VERSION:
            raise BadValue(f"{file} is a record of version {version}; this lora_lab reads {VERSION}: update it")
        known = set(Run.__dataclass_fields__) - {"recipe", "predictions"}
        try:
            run = {name: values[name] for name in known if name not in LATER or name in values}
            recipe = recipe_from(values["recipe"])
            return Run(recipe=recipe, predictions=self.rows(recipe, "predictions"), **run)
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadValue(f"{file} is not a run of lora_lab ({error}); move it out of the store") from error
