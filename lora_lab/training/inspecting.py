"""An adapter inspected on a base that is named, which is loaded with the head that the adapter was made for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lora_lab.errors import LabError
from lora_lab.methods.inspect import Inspection, inspect_adapter
from lora_lab.training.named import base_for, labels_of


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
    return inspect_adapter(path, base_for(path, base, _labels(path), dtype=dtype, download=download))


def _labels(path: str | Path) -> int | None:
    with suppress(LabError):  # the inspection itself says what is wrong with the file
        return labels_of(path)
    return None
