"""lora_course: the lessons' checks, experiments, plots and panels; claims; class tools; a reproduction of the paper.

The package builds on lora_lab, which does not depend on it. Importing lora_course adds the paper's data sets and
metrics for generated text to `lora_lab.plugins`. The modules that provide these are imported on first use.
"""

import os
from typing import Any

from lora_lab import plugins
from lora_lab.lazy import Lazy

facts: Any = Lazy("lora_course.experiments.facts")
e2e, glue, slot_errors = (Lazy(f"lora_course.paper.{name}") for name in ("e2e", "glue", "slot_errors"))


def _read_task(name: str, *, max_length: int | None = None) -> Any:
    """Load lesson 06's invented facts, a GLUE task (glue:TASK:FOLDER) or a folder of E2E files; else return None."""
    if name == "port_velda":
        return facts.read(max_length)
    if name.startswith("glue:"):
        return glue.read(name, max_length)
    return e2e.read(name, max_length) if os.path.isdir(os.path.expanduser(name)) else None


plugins.read_task.append(_read_task)
plugins.score_answers.append(lambda task, prompts, texts: slot_errors.scores(task, prompts, texts))
