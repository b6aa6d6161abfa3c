"""What a method costs besides its quality: its file, and the memory of a step, predicted and measured alike.

A run's own `peak_bytes` is that of a process that trains a pack. Here one real step of the recipe alone, with its
longest batch, is followed tensor by tensor, beside the accountant's prediction of the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lora_lab.accounting.memory import estimate, prompt_of
from lora_lab.accounting.params import params
from lora_lab.errors import LabError
from lora_lab.training.guard import need_of
from lora_lab.training.measure import measure
from lora_lab.training.recipe import Recipe

T = TypeVar("T")
NOTHING: dict[str, Any] = dict.fromkeys(
    ("adapter_bytes", "predicted_bytes", "predicted_parts", "peak_bytes", "added_tokens")
)


def costs_of(recipe: Recipe) -> dict[str, Any]:
    """Of a run of the recipe alone, in bytes; None for what is not modeled or cannot be measured.

    adapter_bytes     of its file, from the architecture
    predicted_bytes   at the peak of a step; `predicted_parts` divides them by category
    peak_bytes        at the peak of a real step
    added_tokens      by which every row is longer; a prefix is attended to, and lengthens none
    """
    try:
        need = need_of(recipe)
    except LabError:
        return NOTHING
    labels = need.labels if need.architecture.task == "encoder" else None
    conditions = {
        name: getattr(need.setup, name) for name in ("batch", "seq", "dtype", "optimizer", "padded", "device")
    }
    predicted = _known(lambda: estimate(need.model, need.method, need.setup, num_labels=need.labels))
    return {
        "adapter_bytes": _known(lambda: params(recipe.model, recipe.method, labels).adapter_bytes),
        "predicted_bytes": predicted and predicted.peak,
        "predicted_parts": predicted and dict(predicted.categories),
        "peak_bytes": _known(lambda: measure(recipe.model, recipe.method, num_labels=need.labels, **conditions).peak),
        "added_tokens": prompt_of(need.method),
    }


def _known(ask: Callable[[], T]) -> T | None:
    """The answer; None if there is none, as for a method that does not train in steps."""
    try:
        return ask()
    except (LabError, RuntimeError, AttributeError, TypeError):
        return None
