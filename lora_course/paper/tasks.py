"""The paper's data sets as tasks: a FOLDER with the E2E NLG challenge's files, or glue:TASK:FOLDER."""

from __future__ import annotations

from pathlib import Path

from lora_course.paper import e2e, glue
from lora_lab.training.tasks import Task, generation


def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
    """Load the task of this name; None if it is neither GLUE's nor a folder. Raises: see `glue.read`, `e2e`."""
    if name.startswith(glue.PREFIX):
        return glue.read(name, max_length)
    path = Path(name).expanduser()
    return generation(name, e2e.read_folder(path), max_length) if name and path.is_dir() else None
