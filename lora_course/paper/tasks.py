"""The paper's data sets as tasks: a FOLDER of the E2E NLG challenge's files, or glue:TASK:FOLDER."""

from __future__ import annotations

from pathlib import Path

from lora_course.paper import e2e, glue
from lora_lab.training.tasks import Task, generation


def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
    """The task of this name; None if it's neither GLUE's nor a folder. Raises: as the readers."""
    if name.startswith(glue.PREFIX):
        return glue.read(name, max_length)
    path = Path(name).expanduser()
    return generation(name, e2e.read_folder(path), max_length) if name and path.is_dir() else None
