"""What stands around a model or in it already, so that an adapter would go astray there: it is said, not passed over.

torch.compile, DataParallel    every path begins with their own word: the head is not found, and no file fits
PEFT                           its A and B are linear layers too
TransformerEncoderLayer        torch's own; in eval it takes weights out of its layers and never calls them
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lora_lab.errors import BadValue

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def inside(model: nn.Module) -> nn.Module:
    """The model itself, in whatever torch has wrapped around it."""
    while word := _word(model):
        model = getattr(model, word)
    return model


def refuse_wrapped(model: object) -> None:
    """Raises BadValue for what is no model, for one inside torch's wrapper, and one with an adapter of PEFT's."""
    if not isinstance(model, nn.Module):
        raise BadValue(f"{str(model)[:60]!r} is a {type(model).__name__} and no model: load_model(name) gives one")
    if word := _word(model):
        raise BadValue(
            f"this model is inside a {type(model).__name__}: give what it wraps, model.{word}, and wrap it after"
        )
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise BadValue(
            "this model carries an adapter of PEFT's: take it out first with its unload() or merge_and_unload()"
        )


def _word(model: object) -> str | None:
    return next((_WRAPPERS[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _WRAPPERS), None)


def be_called(holder: nn.Module, part: nn.Module) -> None:
    """Make `holder`, in which `part` stands, call it: torch's encoder layer does so where there is a hook."""
    if isinstance(holder, nn.TransformerEncoderLayer):
        part.register_forward_pre_hook(_plain_rows)


def _plain_rows(part: nn.Module, args: tuple[Any, ...]) -> None:
    x: Tensor = args[0]
    if x.is_nested:
        raise BadValue(
            "torch packs padded rows into a nested tensor here, which no adapter reads: "
            "make the nn.TransformerEncoder with enable_nested_tensor=False"
        )
