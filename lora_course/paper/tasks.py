"""The data sets of the paper as tasks, from the files that they come in.

FOLDER             the E2E NLG challenge's files, see `e2e.py`; or their hub id, if the hub may be asked
glue:TASK:FOLDER   GLUE's own files, see `glue.py`
"""

from __future__ import annotations

import re
from pathlib import Path

from lora_course.paper import e2e, glue
from lora_lab.training.tasks import Task, generation


def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
    """The task of this name; None if it is neither GLUE's, nor a folder, nor a hub id. Raises: as the readers."""
    if name.startswith(glue.PREFIX):
        return glue.read(name, max_length)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return generation(name, e2e.read_folder(path), max_length)
    if re.fullmatch(r"[\w-]+/[\w-]+", name):
        return generation(name, e2e.read_hub(name, download=download), max_length)
    return None
