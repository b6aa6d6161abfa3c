"""What an adapter's folder says of its base, and that base, loaded with the head that the adapter was made for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_lab.errors import BadValue, LabError
from lora_lab.methods.inspect import Inspection, inspect_adapter
from lora_lab.methods.io import CONFIG, AdapterFile, read_config
from lora_lab.methods.peft import PREFIX
from lora_lab.methods.targets import HEADS
from lora_lab.training.models import load_model, local_name, shapes_of_model


def base_named_in(folder: str | Path, option: str) -> str:
    """The name of the base in an adapter's config; `option` is what the user can give in its place.

    Raises: NotFound if there is no config; BadValue if it names no base, or something that is no name.
    """
    named = read_config(Path(folder), CONFIG).get("base_model_name_or_path")
    if not named:
        raise BadValue(f"the adapter in {folder} names no base model; give one with {option}")
    if not isinstance(named, str) or not named.isprintable() or len(named) > 500:
        raise BadValue(f"the adapter in {folder} names {str(named)[:60]!r} for its base model; give one with {option}")
    return local_name(named)


def labels_of(folder: str | Path) -> int | None:
    """How many classes the head in the adapter's file has; None without a head. Raises: as `AdapterFile`."""
    shapes = AdapterFile(folder).shapes
    for key in reversed(shapes):
        parts = key.split(".")
        # The matrix that ends in the classes: RoBERTa's head has another one, `dense`, before it.
        if parts[-1] == "weight" and "dense" not in parts and any(head in parts for head in HEADS[1:]):
            return int(shapes[key][0])
    return None


def base_for(folder: str | Path, name: str, labels: int | None, **options: Any) -> PreTrainedModel:
    """The base of an adapter, with its language-modeling head unless the adapter was made for the body alone.

    Options and what it raises: as `load_model`, and as `labels_of`.
    """
    if labels is not None:
        return load_model(name, labels, **options)
    keys = [key.removeprefix(PREFIX) for key in AdapterFile(folder) if key.startswith(PREFIX)]
    whole = shapes_of_model(name, download=options.get("download", False))
    # BertModel says encoder.layer, BertForMaskedLM bert.encoder
    body = bool(keys) and not any(hasattr(whole, key.split(".")[0]) for key in keys)
    return load_model(name, body=body, **options)


def inspect_folder(
    path: str | Path, base: str | None = None, *, dtype: str = "fp32", download: bool = False
) -> Inspection:
    """As `inspect_adapter`, on the base model that is named.

    dtype   of the base: in bf16 it also shows what a merge into bf16 would lose
    Raises: NotFound if there is no such folder; NotFound, BadValue as `load_model`.
    """
    found = inspect_adapter(path)
    if base is None or found.format is None:  # what cannot be read needs no base
        return found
    labels = None
    with suppress(LabError):  # the inspection itself says what is wrong with the file
        labels = labels_of(path)
    return inspect_adapter(path, base_for(path, base, labels, dtype=dtype, download=download))
