"""Load an adapter's base by the name in its config, with the head that the adapter was trained with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_lab.errors import BadValue, LabError
from lora_lab.methods.base import PREFIX
from lora_lab.methods.inspect import Inspection, inspect_adapter
from lora_lab.methods.io import AdapterFile, read_config
from lora_lab.methods.targets import HEADS
from lora_lab.training.models import load_model, local_name, shapes_of_model


def base_named_in(folder: str | Path, option: str) -> str:
    """Return the base model's name from an adapter's config; errors suggest the CLI option `option` instead.

    Raises: NotFound if there is no config; BadValue if it names no base, or not as a string.
    """
    name = read_config(Path(folder)).get("base_model_name_or_path")
    if not name:
        raise BadValue(f"the adapter in {folder} does not name its base model; pass one with {option}")
    if not isinstance(name, str) or not name.isprintable() or len(name) > 500:
        raise BadValue(f"the adapter in {folder} names {str(name)[:60]!r} as its base model; pass one with {option}")
    return local_name(name)


def labels_of(folder: str | Path) -> int | None:
    """Return the number of classes of the head in an adapter's file, or None. Raises: see `AdapterFile`."""
    shapes = AdapterFile(folder).shapes
    for key in reversed(shapes):
        parts = key.split(".")
        # The head's last matrix: RoBERTa's head has another one, `dense`, before it.
        if parts[-1] == "weight" and "dense" not in parts and any(head in parts for head in HEADS[1:]):
            return int(shapes[key][0])
    return None


def base_for(folder: str | Path, name: str, labels: int | None, **options: Any) -> PreTrainedModel:
    """Load an adapter's base, with its language-modeling head unless the adapter was trained on the model without one.

    For options, see `load_model`. Raises: see there and `labels_of`; BadValue for a task that needs another head.
    """
    if (task := read_config(Path(folder)).get("task_type")) in ("TOKEN_CLS", "QUESTION_ANS"):
        raise BadValue(f"the adapter in {folder} is for {task}, which lora_lab does not train or score: use PEFT")
    if labels is not None:
        return load_model(name, labels, **options)
    keys = [key.removeprefix(PREFIX) for key in AdapterFile(folder) if key.startswith(PREFIX)]
    full_model = shapes_of_model(name, download=options.get("download", False))
    # BertModel has encoder.layer, BertForMaskedLM has bert.encoder
    body = bool(keys) and not any(hasattr(full_model, key.split(".")[0]) for key in keys)
    return load_model(name, body=body, **options)


def inspect_folder(
    path: str | Path, base: str | None = None, *, dtype: str = "fp32", download: bool = False
) -> Inspection:
    """Inspect an adapter as `inspect_adapter` does, given the name of its base model.

    dtype   of the base; with bf16, the result also shows what a merge in bf16 would lose
    Raises: NotFound if there is no such folder; see also `load_model`.
    """
    inspection = inspect_adapter(path)
    if base is None or inspection.format is None:  # an unreadable adapter needs no base
        return inspection
    labels = None
    with suppress(LabError):  # the inspection reports what is wrong with the file
        labels = labels_of(path)
    return inspect_adapter(path, base_for(path, base, labels, dtype=dtype, download=download))
