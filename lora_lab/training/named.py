"""What an adapter's folder says of its base: its name, how many classes it had, and whether it had a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_lab.errors import BadValue
from lora_lab.methods.io import CONFIG, AdapterFile, read_config
from lora_lab.methods.peft import PREFIX
from lora_lab.methods.targets import HEADS
from lora_lab.training.models import load_model, local_name, shapes_of_model


def base_named_in(folder: str | Path, option: str) -> str:
    """The name of the base in an adapter's config.

    option   what the user can give in its place, for the sentence of the error
    Raises: NotFound where there is no config; BadValue where it names no base, or one that is no name.
    """
    named = read_config(Path(folder), CONFIG).get("base_model_name_or_path")
    if not named:
        raise BadValue(f"the adapter in {folder} names no base model; give one with {option}")
    if not isinstance(named, str) or not named.isprintable() or len(named) > 500:
        raise BadValue(f"the adapter in {folder} names {str(named)[:60]!r} for its base model; give one with {option}")
    return local_name(named)


def labels_of(folder: str | Path) -> int | None:
    """How many classes the head in the adapter's file tells apart; None where it brings no head.

    Raises: NotFound, BadValue for a file that cannot be read.
    """
    shapes = AdapterFile(folder).shapes
    heads = [key for key in shapes if _is_head(key)]
    return shapes[heads[-1]][0] if heads else None


def base_for(folder: str | Path, name: str, labels: int | None, **options: Any) -> PreTrainedModel:
    """The base of an adapter, with its language-modelling head unless the adapter was made for the body alone.

    Options and what it raises: as `load_model`, and as `labels_of`.
    """
    if labels is not None:
        return load_model(name, labels, **options)
    keys = [key.removeprefix(PREFIX) for key in AdapterFile(folder) if key.startswith(PREFIX)]
    whole = shapes_of_model(name, download=options.get("download", False))
    # BertModel says encoder.layer, BertForMaskedLM bert.encoder
    body = bool(keys) and not any(hasattr(whole, key.split(".")[0]) for key in keys)
    return load_model(name, body=body, **options)


def _is_head(key: str) -> bool:
    """Whether this is the matrix that ends in the classes: RoBERTa's head has another one, `dense`, before it."""
    parts = key.split(".")
    return any(head in parts for head in HEADS[1:]) and parts[-1] == "weight" and "dense" not in parts
