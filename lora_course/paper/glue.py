"""GLUE's tasks from the files of its standard download, named `glue:TASK:FOLDER`, such as glue:cola:/data/CoLA.

    CoLA/train.tsv, dev.tsv                                   source, label, star, sentence; no header
    MNLI/train.tsv, dev_matched.tsv, dev_mismatched.tsv       ... sentence1, sentence2, label1 ..., gold_label
    MRPC QNLI QQP RTE SST-2 STS-B/train.tsv, dev.tsv          each with columns of its own, see data/paper/glue.yaml

FOLDER is the task's own folder, or the one that holds all of them. A quotation mark is a letter like any other in these
files. Train and validation files as .jsonl or .csv with the hub's columns (sentence1, premise, ..., label) are read,
too. MNLI's two dev sets are one here, as in the "overall" accuracy of Hu et al. 2021. The labels of GLUE's test sets
are not public: the dev set is both validated on and scored.
Source: Wang et al. 2018, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lora_course.paper import facts
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.tasks import Split, Task
from lora_lab.training.text_files import csv_rows, json_rows, text_of

PREFIX = "glue:"


class Layout(NamedTuple):
    """How a task's files look: columns of the texts, then of the label, by name, by place in a line, and on the hub.

    labels    the classes in their order; a single one if a number is predicted
    metrics   what it is judged by, if not accuracy
    """

    folder: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    places: tuple[int, ...]
    hub: tuple[str, ...]
    metrics: tuple[str, ...]


TASKS = {name: Layout(folder, *map(tuple, lists)) for name, (folder, *lists) in facts("paper/glue").items()}


def read(name: str, max_length: int | None = None) -> Task:
    """The task of a name such as glue:rte:/data/GLUE; its training split is empty if there is no such file.

    Raises: NotFound for an unknown task, a missing folder or one without dev files; BadValue for a file that is empty
    and, naming the line, for a line that does not fit.
    """
    asked, _, place = name.removeprefix(PREFIX).partition(":")
    if not place:
        raise BadValue(f"'{name}' names no folder: write glue:TASK:FOLDER, such as glue:rte:/data/GLUE")
    if asked not in TASKS:
        raise NotFound(f"GLUE has no task '{asked}' here; nearest: {nearest(asked, TASKS)}")
    folder, layout = Path(place).expanduser(), TASKS[asked]
    if not folder.is_dir():
        raise NotFound(f"there is no folder {place} to read GLUE's {asked} from")
    folder = folder / layout.folder if (folder / layout.folder).is_dir() else folder
    ends = ("_matched", "_mismatched") if asked == "mnli" else ("",)
    dev = _files(folder, "dev", ends) or _files(folder, "validation", ends)
    if not dev:
        lacks = " or ".join(f"dev{end}.tsv" for end in ends)
        raise NotFound(f"the folder {folder} lacks {lacks} of {layout.folder}")
    train, held_out = _split(layout, _files(folder, "train")), _split(layout, dev)
    return Task(name, layout.labels, max_length or 128, train, held_out, held_out, layout.metrics)


def _files(folder: Path, stem: str, ends: tuple[str, ...] = ("",)) -> list[Path]:
    """A file for each end; [] if one is missing."""
    found = [[f for kind in ("tsv", "jsonl", "csv") if (f := folder / f"{stem}{e}.{kind}").is_file()] for e in ends]
    return [files[0] for files in found] if all(found) else []


def _split(layout: Layout, files: list[Path]) -> Split:
    texts, labels = list[list[str]](), list[float]()
    for file in files:
        before = len(labels)
        for number, (*cells, label) in (_tsv if file.suffix == ".tsv" else _hub)(layout, file):
            texts.append([str(cell).strip() for cell in cells])
            labels.append(_label(layout, str(label).strip(), f"{file}, line {number}"))
        if len(labels) == before:
            raise BadValue(f"{file} is empty: it holds no row of {layout.folder}")
    first, *second = (tuple(column) for column in zip(*texts, strict=True)) if texts else ((),)
    return Split(first, tuple(labels), seconds=second[0] if second else ())


def _label(layout: Layout, written: str, where: str) -> float:
    if len(layout.labels) == 1:
        try:
            if math.isfinite(value := float(written)):
                return value
        except ValueError:
            pass
        raise BadValue(f"{where}: '{written}' is not a score for two texts")
    if written in layout.labels:
        return layout.labels.index(written)
    if written.isdecimal() and int(written) < len(layout.labels):  # the hub's tables hold the class's number
        return int(written)
    raise BadValue(f"{where}: '{written}' is not one of {', '.join(layout.labels)}")


def _tsv(layout: Layout, file: Path) -> Iterator[tuple[int, list[Any]]]:
    """Lines cut at tabs and nothing else; a first line that holds the columns' names is their header."""
    places = list(layout.places)
    for number, line in enumerate(text_of(file).split("\n"), 1):
        cells = line.split("\t")
        if number == 1 and set(layout.columns) <= set(cells):
            places = [cells.index(name) for name in layout.columns]
        elif line.strip() and max(places) < len(cells):
            yield number, [cells[place] for place in places]
        elif line.strip() and layout.folder != "QQP":  # whose download has broken lines
            raise BadValue(f"{file}, line {number}: it has {len(cells)} columns, too few for {layout.folder}")


def _hub(layout: Layout, file: Path) -> Iterator[tuple[int, list[Any]]]:
    """Rows with the hub's columns."""
    for number, row in json_rows(file, *layout.hub) if file.suffix == ".jsonl" else csv_rows(file)[1]:
        if missing := [name for name in layout.hub if row.get(name) is None]:
            raise BadValue(f"{file}, line {number} has no {missing[0]}; {layout.folder} needs {', '.join(layout.hub)}")
        if str(row["label"]) == "-1":
            raise BadValue(f"{file}, line {number}: the label is hidden, as in GLUE's test sets; give another file")
        yield number, [row[name] for name in layout.hub]
