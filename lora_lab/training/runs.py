"""Runs, and the store that keeps them: a folder with one JSON file per run, named by the hash of the run's recipe.

    STORE/3f2a9c1b77e0.json        # recipe, metrics, history, counts, seconds, bytes, versions
    STORE/3f2a9c1b77e0/            # the adapter, and predictions.npy with its prediction for each test row

The JSON file is written last, atomically, so a listed run is complete. A store can also be read from a zip file.
"""

import io
import math
import os
import tempfile
import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.files import as_path, read_json, unwritable, write_atomically, write_json
from lora_lab.metrics import main_metric
from lora_lab.training.recipe import Recipe, recipe_from

VERSION = 1
OPTIONAL = ("warnings", "labels")  # fields missing in old records
FINISHED = ("done", "early")


@dataclass(frozen=True)
class Run:
    """A recipe and its result.

    metrics      The metrics on the test split: `accuracy`, `macro_f1` and `loss`, or `perplexity` and `loss`.
    history      Lists of the `step`, `loss` and `lr` of every update, and `validation`, the metrics by step.
    seconds      The wall-clock time for loading, training and scoring.
    peak_bytes   The peak memory: the memory allocated on a GPU, or the memory sampled after each step on a CPU.
    adapter      The adapter's folder, or None if the adapter was not kept.
    warnings     The warnings from the first step.
    labels       The task's class names, in the order of the logits.
    status       "done", "stopped" (by hand), "early" (patience) or "failed" (with `error`).
                 A sweep with `choose` also has "behind" (stopped early) and "unscored" (validated, but not tested).
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
    labels: list[str] = field(default_factory=list)
    predictions: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def trainable(self) -> int:
        """The number of trained parameters in the adapter and the head."""
        return self.adapter_parameters + self.head_parameters

    @property
    def dtype(self) -> str | None:
        """The run's dtype as returned by `dtype_of`, or None if training never started."""
        return dtype_of(self.environment)

    def to_json(self) -> dict[str, Any]:
        """Return the record, without predictions, as `lora-lab train --json` prints it."""
        values = {name: value for name, value in vars(self).items() if name not in ("predictions", "recipe")}
        head = {"version": VERSION, "hash": self.recipe.hash, "recipe": self.recipe.settings()}
        return head | values | {"trainable": self.trainable}


def dtype_of(environment: Mapping[str, Any]) -> str | None:
    """Return a run's dtype from its environment: bf16, nf4+bf16, or "fp32 by bf16" (see `rounded_products`)."""
    if (dtype := environment.get("dtype")) is None:
        return None
    products = environment.get("products", dtype)
    quantized = environment.get("quantized") or environment.get("quantised")  # records of version 0.1 spell it so
    dtype = dtype if products == dtype else f"{dtype} by {products}"
    return f"{quantized}+{dtype}" if quantized else str(dtype)


def is_record(file: PurePath | zipfile.Path) -> bool:
    """Return whether a file is named like a record, with twelve hex digits. A store may also hold other JSON files."""
    return file.suffix == ".json" and len(file.stem) == 12 and set(file.stem) <= set("0123456789abcdef")


def stores(folder: Path) -> set[Path]:
    """Find the stores in a folder, in its subfolders, and in zip files there.

    A zip file's stores are listed as ZIP/FOLDER, and a damaged zip file as ZIP. A zip file inside another one cannot be
    read; it is listed as ZIP/FILE. Raises: NotFound for a missing folder.
    """
    if _is_zip(folder):
        with suppress(Exception), _opened(folder) as packed:
            files = list(map(PurePosixPath, packed.namelist()))
            inner = [file for file in files if file.suffix.lower() == ".zip" and file.name[0] != "."]
            return {Path(f"{folder}/{inside}") for inside in (*inner, *(f.parent for f in files if is_record(f)))}
        return {folder}
    if not os.path.isdir(folder):
        raise NotFound(f"there is no folder {folder}: pass a store of runs, or a folder of students' stores")
    found = {file.parent for file in folder.rglob("*.json") if is_record(file)}
    return found.union(*(stores(file) for file in folder.rglob("*.[zZ][iI][pP]") if file.is_file()))


def _is_zip(file: Path) -> bool:
    # A pipe would block forever. In a folder that the user may not enter, os.path returns False, but Path raises.
    return os.path.isfile(file) and (file.suffix.lower() == ".zip" or zipfile.is_zipfile(file))


def _opened(archive: Path) -> zipfile.ZipFile:
    """Open a zip file. Windows PowerShell may write names with backslashes, which Python converts only on Windows."""
    packed = zipfile.ZipFile(archive)
    packed.NameToInfo = {name.replace("\\", "/"): entry for name, entry in packed.NameToInfo.items()}
    for name, entry in packed.NameToInfo.items():
        entry.filename = name
    return packed


@contextmanager
def readable(file: Path | zipfile.Path) -> Iterator[None]:
    """In the `with` block, convert any error in reading a record to BadValue."""
    try:
        yield
    except Exception as error:  # errors of zipfile, json, numpy and recipes have no common base class
        reason = error if isinstance(error, LabError) else repr(error)
        raise BadValue(f"{file} is not a lora_lab run ({reason}); move it out of the store") from error


def run_from(values: Mapping[str, Any], file: Path | zipfile.Path) -> Run:
    """Create a run, without predictions, from the record in a file. Raises: BadValue for a newer or damaged record."""
    version = values.get("version")
    if isinstance(version, int) and version > VERSION:
        raise BadValue(f"{file} has format version {version}, which is newer than {VERSION}: update lora_lab")
    names = set(Run.__dataclass_fields__) - {"recipe", "predictions"}
    with readable(file):
        fields = {name: values[name] for name in names if name not in OPTIONAL or name in values}
        run = Run(recipe=recipe_from(values["recipe"]), **fields)
        steps, losses, rates = (run.history[name] for name in ("step", "loss", "lr"))
        numbers = [run.trainable, run.total, run.seconds, run.peak_bytes, *run.metrics.values()]
        for checks in run.history["validation"]:
            numbers += [checks["step"], checks[main_metric(checks)], *checks.values()]
        if not all(map(math.isfinite, [*numbers, *steps, *losses, *rates])):
            raise ValueError("a number is not finite")
        if not len(steps) == len(losses) == len(rates) <= run.recipe.steps:
            raise ValueError("its history has the wrong length")
        "".join([run.status, run.error or "", run.adapter or "", *run.warnings, *run.labels])  # raises for other types
        hash(tuple(run.environment.values()))  # raises if any value is a list
    return run


def failed(recipe: Recipe, reason: str) -> Run:
    """Return the record of a run that never started."""
    history: dict[str, list[Any]] = {"step": [], "loss": [], "lr": [], "validation": []}
    return Run(recipe, {}, history, 0, 0, 0, 0.0, 0, {}, status="failed", error=reason)


def run_of(adapter: str | Path) -> Run | None:
    """Return the run whose store holds this adapter, or None if there is no record. For errors, see `Store.runs`."""
    record = as_path(adapter).resolve().with_suffix(".json")
    return Store(record.parent).read(record.stem) if is_record(record) and record.is_file() else None


class Store:
    """A folder of runs, or a read-only zip file of such a folder; see `stores`."""

    def __init__(self, folder: "str | Path | Store") -> None:
        self.folder: Path = as_path(folder)
        if _is_zip(self.folder) and len(inside := stores(self.folder)) == 1:
            (self.folder,) = inside  # the only store in the zip file
        self.files: Path | zipfile.Path = self.folder
        for archive in filter(_is_zip, (self.folder, *self.folder.parents)):
            with readable(archive):
                self.files = zipfile.Path(_opened(archive)).joinpath(*self.folder.relative_to(archive).parts)

    def __fspath__(self) -> str:
        return str(self.folder)

    def check_writable(self) -> None:
        """Check, before training, that the folder has room for a run. Raises: BadValue if nothing can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(2**22))  # a typical adapter, its record and predictions
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def adapter_folder(self, recipe: Recipe) -> Path:
        """Return the folder of a recipe's adapter."""
        return self.folder / recipe.hash

    def replaces(self, status: str, recipe: Recipe) -> bool:
        """Return whether a run of this status may replace the stored one. Only finished runs replace finished ones."""
        return status in FINISHED or (stored := self.find(recipe)) is None or stored.status not in FINISHED

    def add(self, run: Run) -> None:
        """Write a run, and replace any stored run of the same recipe; see `replaces`."""
        if run.predictions is not None:
            self.add_rows(run.recipe, "predictions", run.predictions)
        write_json(self.folder / f"{run.recipe.hash}.json", run.to_json())

    def add_rows(self, recipe: Recipe, name: str, values: np.ndarray) -> None:
        """Write one value per row of a split to STORE/HASH/NAME.npy, with classes in the smallest integer type."""
        content = io.BytesIO()
        if values.dtype.kind in "iu" and values.size:
            values = values.astype(np.min_scalar_type(values.max()))
        np.save(content, values, allow_pickle=False)
        write_atomically(self.adapter_folder(recipe) / f"{name}.npy", content.getvalue())

    def rows(self, recipe: Recipe, name: str) -> np.ndarray | None:
        """Read the values that `add_rows` wrote, or return None if none exist. Raises: BadValue for a damaged file."""
        file = self.files / recipe.hash / f"{name}.npy"
        with readable(file):
            return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) if file.is_file() else None

    def find(self, recipe: Recipe) -> Run | None:
        """Return the run of a recipe, or None if there is none. For errors, see `runs`."""
        return self.read(recipe.hash) if (self.files / f"{recipe.hash}.json").is_file() else None

    def records(self) -> list[Path | zipfile.Path]:
        """List the record files, sorted by name."""
        files = self.files.iterdir() if isinstance(self.files, zipfile.Path) else self.files.glob("*.json")
        return sorted(filter(is_record, files), key=lambda file: file.name)

    def runs(self, needed: Container[str] | None = None) -> list[Run]:
        """Read all runs, oldest first (in a zip file, by name). Raises: BadValue for a newer or damaged record.

        needed   Hashes of recipes. If given, unreadable records of other recipes are skipped.
        """
        runs = list[Run]()
        for file in sorted(self.records(), key=lambda f: f.lstat().st_mtime_ns if isinstance(f, Path) else 0):
            try:
                runs.append(self.read(file.stem))
            except BadValue:
                if needed is None or file.stem in needed:
                    raise
        return runs

    def read(self, name: str) -> Run:
        """Read one run by the name of its record. For errors, see `runs`."""
        file = self.files / f"{name}.json"
        with readable(file):
            values = read_json(file)
        run = run_from(values, file)
        adapter = str(self.adapter_folder(run.recipe)) if run.adapter else None  # the store may have moved
        return replace(run, predictions=self.rows(run.recipe, "predictions"), adapter=adapter)
