"""What a method costs beside its quality: its file, and the memory of a step, predicted and measured under one set-up.

A run's own `peak_bytes` is that of a process which trains a pack and has trained others before, so it says nothing of
one method alone. Here one real step of the recipe is followed tensor by tensor, with its longest batch, and stands
beside the accountant's prediction for the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lora_lab.accounting.memory import estimate, prompt_of
from lora_lab.accounting.params import params
from lora_lab.errors import LabError
from lora_lab.training.measure import measure
from lora_lab.training.memory_check import Need, need_of
from lora_lab.training.recipe import Recipe

T = TypeVar("T")
NOTHING: dict[str, Any] = dict.fromkeys(
    ("adapter_bytes", "predicted_bytes", "predicted_parts", "peak_bytes", "added_tokens")
)


def costs_of(recipe: Recipe) -> dict[str, Any]:
    """Of a run of the recipe alone, mostly in bytes; None where something is not modelled or cannot be measured.

    adapter_bytes     of its file, from the architecture
    predicted_bytes   at the peak of a step, and `predicted_parts`: of them by category
    peak_bytes        at the peak of a real step
    added_tokens      by which every row is longer; a prefix is attended to, and lengthens none
    """
    try:
        need = need_of(recipe)
    except LabError:
        return NOTHING
    labels = need.labels if need.architecture.task == "encoder" else None
    predicted = _known(lambda: estimate(need.model, need.method, need.setup, num_labels=need.labels))
    return {
        "adapter_bytes": _known(lambda: params(recipe.model, recipe.method, labels).adapter_bytes),
        "predicted_bytes": predicted and predicted.peak,
        "predicted_parts": predicted and dict(predicted.categories),
        "peak_bytes": _known(lambda: _measured(recipe, need), (LabError, RuntimeError, AttributeError, TypeError)),
        "added_tokens": prompt_of(need.method),
    }


def _known(ask: Callable[[], T], wrong: tuple[type[Exception], ...] = (LabError,)) -> T | None:
    """The answer; None where there is none."""
    try:
        return ask()
    except wrong:
        return None


def _measured(recipe: Recipe, need: Need) -> int:
    """Raises: whatever it may for a method that does not train in steps, or whose step the follower cannot take."""
    setup = need.setup
    conditions = {name: getattr(setup, name) for name in ("batch", "seq", "dtype", "optimizer", "padded", "device")}
    return measure(recipe.model, recipe.method, num_labels=need.labels, **conditions).peak
