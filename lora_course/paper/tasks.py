"""The data sets of the paper as tasks, from the files that they come in.

FOLDER             the E2E NLG challenge's files, see `e2e.py`; or their hub id, where the hub may be asked
glue:TASK:FOLDER   GLUE's own files, see `glue.py`; held out is its dev set alone, whose labels are known
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lora_course.paper import e2e, glue
from lora_lab.training.tasks import Split, Task, generation

HUB_ID = r"[\w-]+/[\w-]+"  # owner and name


def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
    """The task of this name; None where it is neither GLUE's, nor a folder, nor a hub id. Raises: as the readers."""
    if name.startswith(glue.PREFIX):
        return _glue(name, max_length)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return generation(name, e2e.read_folder(path), max_length)
    if re.fullmatch(HUB_ID, name):
        return generation(name, e2e.read_hub(name, download=download), max_length)
    return None


def _glue(name: str, max_length: int | None) -> Task:
    """The labels of GLUE's test sets are not public: its dev set is both what is validated on and what is scored."""
    asked, folder = glue.asked_for(name)
    train, dev = (_pairs_of(glue.read(asked, folder, split)) for split in ("train", "dev"))
    return Task(name, asked.labels, max_length or 128, train, dev, dev, asked.metrics)


def _pairs_of(rows: Sequence[glue.Example]) -> Split:
    seconds = tuple(row.second for row in rows if row.second is not None)
    return Split(tuple(row.first for row in rows), tuple(row.label for row in rows), seconds=seconds)
