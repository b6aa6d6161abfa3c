"""`params(model, method)`: what a method would train on a model that is named, described or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_lab.accounting import zoo
from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.parameters import Counting, ParameterCount, count


def params(model: Any, method: Counting, num_labels: int | None = None) -> ParameterCount:
    """The parameters that `method` trains on `model`, from its config alone.

    model: a name of the zoo, a folder, a config.json, a cached hub id, an `Architecture`, or a transformers model.
    With `num_labels` a named model is the one for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an impossible value.
    """
    return count(architecture_of(model, num_labels), method)


def architecture_of(model: Any, num_labels: int | None = None) -> Architecture:
    """The architecture of what `params` may be asked about. Raises: as `zoo.architecture`."""
    if isinstance(model, Architecture):
        return model
    if isinstance(model, str | Path):
        return zoo.architecture(model, num_labels)
    config = model.config
    if type(model).__name__.endswith("ForSequenceClassification"):
        num_labels = config.num_labels
    return Architecture.from_config(config.to_dict(), type(model).__name__, num_labels)
