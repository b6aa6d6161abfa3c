"""lora_course: the lessons' checks, experiments, plots and panels, the paper, claims, and what a class needs.

It stands on lora_lab, which knows nothing of it. Importing it registers with `lora_lab.plugins` the paper's data sets
and its scores of generated text; what they need is imported when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_lab import plugins


def _read_task(name: str, **options: Any) -> Any:
    if name == "port_velda":  # twenty invented facts, for lesson 06
        from lora_course.experiments import facts

        return facts.read(**options)
    from lora_course.paper import tasks

    return tasks.read(name, **options)


def _score_answers(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> plugins.Scores:
    from lora_course.paper import slot_errors

    return slot_errors.scores(task, prompts, texts)


def _note_beside(task: str, metrics: Mapping[str, float]) -> str:
    """The paper's scores below those of its own data set."""
    if "bleu" not in metrics or task == "restaurants":
        return ""
    from lora_course.paper.e2e import published

    return published()


plugins.read_task.append(_read_task)
plugins.score_answers.append(_score_answers)
plugins.note_beside.append(_note_beside)
