"""GLUE's tasks from the files of its standard download, named `glue:TASK:FOLDER`, such as glue:cola:/data/CoLA.

    CoLA/train.tsv, dev.tsv                                   source, label, star, sentence; no header
    MNLI/train.tsv, dev_matched.tsv, dev_mismatched.tsv       ... sentence1, sentence2, label1 ..., gold_label
    MRPC QNLI QQP RTE SST-2 STS-B/train.tsv, dev.tsv          each with columns of its own, see TASKS

FOLDER is the task's own folder, or the one that holds all of them. A quotation mark is a letter like any other in these
files. Read in their place are also train and validation files as .jsonl or .csv with the hub's columns (sentence,
sentence1, premise, ..., label). MNLI's two dev sets are one here, as in the "overall" accuracy of Hu et al. 2021.
Source: Wang et al. 2018, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.text_files import csv_rows, json_rows, text_of

PREFIX = "glue:"
HIDDEN = -1  # the hub's label of a row whose label is not public


@dataclass(frozen=True)
class GlueTask:
    """A task and the layout of its files.

    folder    its folder in the download
    labels    the classes in their order, as the files write them; one name where a number is to be predicted
    texts     the columns of the one or two texts, then of the label, by the header's names
    places    the same as places in a line, for files without a header; from behind where negative
    hub       the columns of the hub's tables
    metrics   what it is judged by, where that is not accuracy
    loose     whether lines that lack columns are passed over: the download of QQP has some
    """

    folder: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    places: tuple[int, ...]
    hub: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    dev: tuple[str, ...] = ("dev",)
    validation: tuple[str, ...] = ("validation",)
    loose: bool = False

    @property
    def is_number(self) -> bool:
        """Whether a number is to be predicted in place of a class."""
        return len(self.labels) == 1


PAIR = ("sentence1", "sentence2", "label")
NUMBERED = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "mnli": GlueTask(
        "MNLI", ("entailment", "neutral", "contradiction"), ("sentence1", "sentence2", "gold_label"), (8, 9, -1),
        ("premise", "hypothesis", "label"), dev=("dev_matched", "dev_mismatched"),
        validation=("validation_matched", "validation_mismatched"),
    ),
    "sst-2": GlueTask("SST-2", NUMBERED, ("sentence", "label"), (0, 1), ("sentence", "label")),
    "mrpc": GlueTask("MRPC", NUMBERED, ("#1 String", "#2 String", "Quality"), (3, 4, 0), PAIR, ("accuracy", "f1")),
    "cola": GlueTask("CoLA", NUMBERED, ("sentence", "label"), (3, 1), ("sentence", "label"), ("matthews",)),
    "qnli": GlueTask(
        "QNLI", ENTAILMENT, ("question", "sentence", "label"), (1, 2, 3), ("question", "sentence", "label")
    ),
    "qqp": GlueTask(
        "QQP", NUMBERED, ("question1", "question2", "is_duplicate"), (3, 4, 5), ("question1", "question2", "label"),
        ("accuracy", "f1"), loose=True,
    ),
    "rte": GlueTask("RTE", ENTAILMENT, PAIR, (1, 2, 3), PAIR),
    "sts-b": GlueTask(
        "STS-B", ("similarity",), ("sentence1", "sentence2", "score"), (7, 8, 9), PAIR, ("pearson", "spearman")
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One text, or two, and the class's number or the number to be predicted."""

    first: str
    second: str | None
    label: float


def asked_for(name: str) -> tuple[GlueTask, Path]:
    """The task and the folder of a name such as glue:rte:/data/GLUE. Raises: NotFound for either, BadValue for less."""
    task, colon, folder = name.removeprefix(PREFIX).partition(":")
    if not (colon and folder):
        raise BadValue(f"'{name}' names no folder: write glue:TASK:FOLDER, such as glue:rte:/data/GLUE")
    if task not in TASKS:
        raise NotFound(f"GLUE has no task '{task}' here; nearest: {nearest(task, TASKS)}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise NotFound(f"there is no folder {folder} to read GLUE's {task} from")
    own = path / TASKS[task].folder
    return TASKS[task], own if own.is_dir() else path


def read(task: GlueTask, folder: Path, split: str) -> list[Example]:
    """The rows of a split, "train" or "dev"; [] for training where there is no file.

    Raises: NotFound for a folder without dev files; BadValue for a file that holds nothing, and, naming the line, for
    one that is no row of the task.
    """
    stems = {"train": (("train",),), "dev": (task.dev, task.validation)}[split]
    for some in stems:
        files = [_file(folder, stem) for stem in some]
        if all(files):
            return [row for file in files if file for row in _examples(task, file)]
    if split == "train":
        return []
    raise NotFound(f"the folder {folder} lacks {' or '.join(f'{stem}.tsv' for stem in task.dev)} of {task.folder}")


def _file(folder: Path, stem: str) -> Path | None:
    return next((f for ending in ("tsv", "jsonl", "csv") if (f := folder / f"{stem}.{ending}").is_file()), None)


def _examples(task: GlueTask, file: Path) -> list[Example]:
    found = []
    for number, (*texts, label) in _tsv(task, file) if file.suffix == ".tsv" else _hub(task, file):
        first, *more = (str(text).strip() for text in texts)
        found.append(Example(first, more[0] if more else None, _label(task, label, file, number)))
    if not found:
        raise BadValue(f"{file} is empty: it holds no row of {task.folder}")
    return found


def _label(task: GlueTask, label: Any, file: Path, number: int) -> float:
    written = str(label).strip()
    if task.is_number:
        with suppress(ValueError):
            if math.isfinite(value := float(written)):
                return value
        raise BadValue(f"{file}, line {number}: '{written}' is no number between two texts")
    if written in task.labels:
        return task.labels.index(written)
    if written.isdecimal() and int(written) < len(task.labels):  # the hub's tables hold the class's number
        return int(written)
    raise BadValue(f"{file}, line {number}: '{written}' is none of {', '.join(task.labels)}")


# ---- one reader for each form: (line, the texts' cells and the label's)


def _tsv(task: GlueTask, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines cut at tabs and nothing else; a first line that holds the columns' names is their header."""
    places: Sequence[int] = task.places
    for number, line in enumerate(text_of(file).split("\n"), 1):
        cells = line.split("\t")
        if number == 1 and set(task.texts) <= set(cells):
            places = [cells.index(name) for name in task.texts]
            continue
        if not line.strip():
            continue
        found = [cells[place] for place in places if -len(cells) <= place < len(cells)]
        if len(found) == len(places):
            yield number, found
        elif not task.loose:
            raise BadValue(f"{file}, line {number}: it has {len(cells)} columns, {task.folder}'s lines have more")


def _hub(task: GlueTask, file: Path) -> Iterator[tuple[int, list[Any]]]:
    """Rows with the hub's columns."""
    for number, row in json_rows(file, *task.hub) if file.suffix == ".jsonl" else csv_rows(file)[1]:
        missing = [name for name in task.hub if row.get(name) is None]
        if missing:
            raise BadValue(f"{file}, line {number} has no {missing[0]}; {task.folder} needs {', '.join(task.hub)}")
        if row[task.hub[-1]] in (HIDDEN, str(HIDDEN)):
            raise BadValue(
                f"{file}, line {number}: the label is hidden, as in GLUE's test sets; give train and validation"
            )
        yield number, [row[name] for name in task.hub]
