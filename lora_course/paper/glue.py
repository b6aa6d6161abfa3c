"""Read GLUE's tasks from its standard download, as `glue:TASK:FOLDER`, such as glue:cola:/data/CoLA.

    CoLA/train.tsv, dev.tsv                                   each task has its own columns: data/paper/glue.yaml
    MNLI/train.tsv, dev_matched.tsv, dev_mismatched.tsv       merged, as in the "overall" accuracy of Hu et al. 2021

FOLDER is the task's folder or its parent. Quotation marks have no special meaning in the .tsv files. The train and
validation files may also be .jsonl or .csv files with the hub's columns (sentence1, premise, ..., label). The labels
of GLUE's test sets are not public, so the dev set serves for both validation and testing.
Source: Wang et al. 2018, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding".
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lora_course.paper import facts
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.tasks import Split, Task
from lora_lab.training.text_files import csv_rows, json_rows, text_of

PREFIX = "glue:"
TASKS = {name: SimpleNamespace(**layout) for name, layout in facts("paper/glue").items()}  # documented in glue.yaml


def read(name: str, max_length: int | None = None) -> Task:
    """Read a task such as glue:rte:/data/GLUE. Raises: NotFound; BadValue for an invalid line."""
    task, _, path = name.removeprefix(PREFIX).partition(":")
    if not path:
        raise BadValue(f"'{name}' does not name a folder: write glue:TASK:FOLDER, such as glue:rte:/data/GLUE")
    if task not in TASKS:
        raise NotFound(f"GLUE has no task '{task}' here; nearest: {nearest(task, TASKS)}")
    folder, layout = Path(path).expanduser(), TASKS[task]
    if not folder.is_dir():
        raise NotFound(f"there is no folder {path} to read GLUE's {task} from")
    folder = folder / layout.folder if (folder / layout.folder).is_dir() else folder
    suffixes = ("_matched", "_mismatched") if task == "mnli" else ("",)
    if not (dev := _files(folder, "dev", suffixes) or _files(folder, "validation", suffixes)):
        missing = " or ".join(f"dev{suffix}.tsv" for suffix in suffixes)
        raise NotFound(f"the folder {folder} has no {missing} for {layout.folder}")
    train, held_out = _split(layout, _files(folder, "train")), _split(layout, dev)
    return Task(name, tuple(layout.labels), max_length or 128, train, held_out, held_out, tuple(layout.metrics))


def _files(folder: Path, stem: str, suffixes: tuple[str, ...] = ("",)) -> list[Path]:
    """Return one file per suffix; [] if any is missing."""
    options = [[folder / f"{stem}{suffix}.{kind}" for kind in ("tsv", "jsonl", "csv")] for suffix in suffixes]
    files = [file for paths in options for file in list(filter(Path.is_file, paths))[:1]]
    return files if len(files) == len(suffixes) else []


def _split(layout: Any, files: list[Path]) -> Split:
    texts, labels = list[list[str]](), list[float]()
    for file in files:
        before = len(labels)
        for place, (*cells, label) in (_tsv if file.suffix == ".tsv" else _hub)(layout, file):
            texts.append([str(cell).strip() for cell in cells])
            labels.append(_label(layout, str(label).strip(), place))
        if len(labels) == before:
            raise BadValue(f"{file} is empty: it has no rows for {layout.folder}")
    first, *second = (tuple(column) for column in zip(*texts, strict=True)) if texts else ((),)
    return Split(first, tuple(labels), seconds=second[0] if second else ())


def _label(layout: Any, text: str, where: str) -> float:
    if len(layout.labels) == 1:
        with suppress(ValueError):
            if math.isfinite(value := float(text)):
                return value
        raise BadValue(f"{where}: '{text}' is not a similarity score, which is a finite number")
    if text in layout.labels:
        return layout.labels.index(text)
    if text.isdecimal() and int(text) < len(layout.labels):  # the hub's tables have class indices
        return int(text)
    raise BadValue(f"{where}: '{text}' is not one of {', '.join(layout.labels)}")


def _tsv(layout: Any, file: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield tab-separated lines as (place, cells) pairs; a first line that has the column names is a header."""
    places = list(layout.places)
    for number, line in enumerate(text_of(file, newline="").replace("\r\n", "\n").split("\n"), 1):
        cells = line.split("\t")
        if number == 1 and set(layout.columns) <= set(cells):
            places = [cells.index(name) for name in layout.columns]
        elif line.strip() and max(places) < len(cells):
            yield f"{file}, line {number}", [cells[place] for place in places]
        elif line.strip() and layout.folder != "QQP":  # the QQP download has broken lines
            raise BadValue(f"{file}, line {number}: only {len(cells)} columns, too few for {layout.folder}")


def _hub(layout: Any, file: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield (place, cells) pairs with the hub's columns."""
    unit, rows = ("line", json_rows(file, *layout.hub)) if file.suffix == ".jsonl" else ("row", csv_rows(file)[1])
    for number, row in rows:
        place = f"{file}, {unit} {number}"
        if missing := [name for name in layout.hub if row.get(name) is None]:
            raise BadValue(f"{place} has no {missing[0]}; {layout.folder} needs {', '.join(layout.hub)}")
        if str(row["label"]) in ("-1", "-1.0"):
            raise BadValue(f"{place}: the label is hidden, as in GLUE's test sets; pass another file")
        yield place, [row[name] for name in layout.hub]
