"""An adapter inspected on a base that is named, which is loaded with the head that the adapter was made for."""

from __future__ import annotations

from pathlib import Path

from lora_lab.errors import LabError
from lora_lab.methods.adapters import AdapterFile
from lora_lab.methods.inspection import Inspection, inspect_adapter, is_head
from lora_lab.training.models import load_model


def inspect_folder(
    path: str | Path, base: str | None = None, *, dtype: str = "fp32", download: bool = False
) -> Inspection:
    """As `inspect_adapter`, on the base model that is named.

    dtype   of the base: in bf16 it also shows what a merge into bf16 would lose
    Raises: NotFound where there is no such folder; NotFound, BadValue as `load_model`.
    """
    if base is None:
        return inspect_adapter(path)
    first = inspect_adapter(path)  # what cannot be read needs no base
    if first.format is None:
        return first
    return inspect_adapter(path, load_model(base, labels_of(path), dtype=dtype, download=download))


def labels_of(path: str | Path) -> int | None:
    """How many classes the adapter's head tells apart; None where it has no head."""
    try:
        shapes = AdapterFile(path).tensors.shapes
    except LabError:
        return None
    heads = [shape[0] for key, shape in shapes.items() if is_head(key) and key.endswith(("out_proj.weight", "bias"))]
    heads += [shape[0] for key, shape in shapes.items() if is_head(key) and key.endswith(".score.weight")]
    return min(heads, default=None)
