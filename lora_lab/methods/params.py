"""`params(model, method)`: what a method would train on a model that is named, described or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_lab.accounting import zoo
from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.parameters import Counting, ParameterCount, count
from lora_lab.errors import BadValue


def params(model: Any, method: Counting, num_labels: int | None = None) -> ParameterCount:
    """The parameters that `method` trains on `model`, from its config alone.

    model: a name of the zoo, a folder, a config.json, a cached hub id, an `Architecture`, or a transformers model.
    With `num_labels` a named model is the one for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an impossible value, and for
    a loaded model of a class that holds more or less than its config says.
    """
    return count(architecture_of(model, num_labels), method)


def architecture_of(model: Any, num_labels: int | None = None) -> Architecture:
    """The architecture of what `params` may be asked about. Raises: as `zoo.architecture`, and as `params`."""
    if isinstance(model, Architecture):
        return model
    if isinstance(model, str | Path):
        return zoo.architecture(model, num_labels)
    config, asked = own_config(model), num_labels
    if type(model).__name__.endswith("ForSequenceClassification"):
        num_labels = config.num_labels
    architecture = Architecture.from_config(config.to_dict(), type(model).__name__, num_labels)
    if asked is None:
        _compare(architecture, model)
    return architecture


def own_config(model: Any) -> Any:
    """The config of a loaded model. Raises: BadValue for one that has none."""
    if not hasattr(getattr(model, "config", None), "to_dict"):
        said = f"a {type(model).__name__} has no config of transformers' to be counted from"
        raise BadValue(f"{said}: attach the method and read its report")
    return model.config


def _compare(architecture: Architecture, model: Any) -> None:
    """Raises BadValue for a class with another head, or none, than the one that is counted from a config."""
    from lora_lab.methods.attach import numbers_of  # torch is there already: the model is one of its

    if not all(weight.is_floating_point() for weight in model.parameters()):
        return  # bitsandbytes' packed codes, whose number says nothing
    report = getattr(model, "lora_lab_report", None)
    numbers = report.base_parameters if report else numbers_of(model)
    if numbers != architecture.total:
        raise BadValue(
            f"{architecture.name} holds {numbers:,} parameters, where its config is read as {architecture.total:,}: "
            "it is none of the classes counted here, so attach the method and read its report, or give its config.json"
        )
