"""The part of a model that its task has added, which trains as a whole whatever the method."""

from __future__ import annotations

import warnings

from torch import nn

from lora_lab.errors import LabWarning
from lora_lab.methods.targets import HEADS
from lora_lab.switched import Switched


def heads_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The head(s) of the model's task, by name; none on a language model."""
    return [(name, module) for name, module in model.named_children() if name in HEADS]


def warn_of_others(model: nn.Module) -> None:
    """LabWarning for what stands beside the base model and is no head known here: nobody may ever have trained it."""
    base, embeddings = getattr(model, "base_model_prefix", ""), getattr(model, "get_output_embeddings", lambda: None)
    if not hasattr(model, base) or embeddings() is not None:  # no base model inside, or a whole language model
        return
    beside = [(name, part) for name, part in model.named_children() if name not in (base, *HEADS)]
    names = [name for name, part in beside if list(part.parameters()) and not isinstance(part, Switched)]
    if names:
        said = f"{', '.join(names)} of this {type(model).__name__} is neither its base model nor a head known here"
        warnings.warn(
            f"{said}: it stays frozen, random if no checkpoint brought it; to adapt it name its layers as targets",
            LabWarning,
            stacklevel=6,
        )
