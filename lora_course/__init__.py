"""lora_course: checks, experiments, plots and panels for the lessons, paper reproduction, claims, classroom tools.

The package builds on lora_lab, which does not depend on it. Importing lora_course registers the paper's data sets and
metrics for generated text with `lora_lab.plugins`; the dependencies of these are imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_lab import plugins


def _read_task(name: str, *, max_length: int | None = None, download: bool = False) -> Any:
    """Load lesson 06's invented facts, a GLUE task (glue:TASK:FOLDER), or a folder of E2E files; None for others."""
    if name == "port_velda":
        from lora_course.experiments import facts

        return facts.read(max_length)
    from lora_course.paper import e2e, glue

    if name.startswith(glue.PREFIX):
        return glue.read(name, max_length)
    return e2e.read(name, max_length) if name and Path(name).expanduser().is_dir() else None


def _score_answers(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> plugins.Scores:
    from lora_course.paper import slot_errors

    return slot_errors.scores(task, prompts, texts)


def _note_beside(task: str, metrics: Mapping[str, float]) -> str:
    """Return the paper's E2E scores, which are printed below a run's own scores; "" for other tasks."""
    if "bleu" not in metrics or task == "restaurants":
        return ""
    from lora_course.paper.e2e import published

    return published()


plugins.read_task.append(_read_task)
plugins.score_answers.append(_score_answers)
plugins.note_beside.append(_note_beside)
