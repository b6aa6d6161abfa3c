"""`memory(model, method, batch=, seq=, ...)`: what a training step needs, for a model that is named or loaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_lab.accounting.estimates import Estimate
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import Architecture, architecture_of, config_of, describe, meta_model
from lora_lab.accounting.plan import Plan, Plans
from lora_lab.accounting.setup import Setup
from lora_lab.errors import BadValue
from lora_lab.methods.params import plain


def memory(model: Any, method: Plans, *, trace: bool = False, num_labels: int = 2, **setup: Any) -> Estimate:
    """The peak of one training step in bytes, when in the step it falls, and every term of it.

    model       as in `params`
    trace       follow the step over fake tensors instead of computing it: exact, for any size, in seconds
    num_labels  classes of an encoder's head
    setup       the fields of `Setup`: batch, seq, dtype, optimizer, checkpointing, quantised, ...
    Raises: NotFound, BadValue as `params` and `Setup`; BadValue for what is not modelled.
    """
    conditions = Setup(**setup)
    if not trace:
        architecture = _modelled(model)
        return estimate(architecture, plan_of(method, architecture), conditions, labels=num_labels)
    from lora_lab.accounting.trace import trace as follow  # imports torch

    return follow(config_of(model), method, conditions, num_labels=num_labels)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def plan_of(method: Any, architecture: Architecture) -> Plan:
    """A method's plan, remembered: a slider over batch or length asks for the same one again and again."""
    return method.plan(architecture)


def _modelled(model: Any) -> Architecture:
    """The architecture of a model that memory is computed for.

    Raises: BadValue for a loaded model of a class with another head, or none, than the one built from its config.
    """
    if isinstance(model, str | Path | Architecture):
        return architecture_of(model)
    held = architecture_of(plain(model))
    labels = model.config.num_labels if held.head_parameters else None
    built = describe(meta_model(config_of(model), labels), held.name)
    if held.total != built.total:
        raise BadValue(
            f"{held.name} holds {held.total:,} parameters, where the class that is modelled has {built.total:,}: "
            "give its config.json, or trace a model of its class"
        )
    return built
