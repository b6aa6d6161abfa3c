"""Load the base model that an adapter's config names, inspect the adapter, or merge it into a plain checkpoint.

A merged checkpoint loads without lora_lab:

    out/config.json, model.safetensors, ...   # what AutoModel...from_pretrained(out) reads
    out/tokenizer.json, ...                   # what AutoTokenizer.from_pretrained(out) reads
    out/lora_lab_merge.json                   # what was merged, the rounding error, and the names of all these files

The checkpoint is written to a temporary folder, which is renamed only if plain transformers returns the same outputs.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel

from lora_lab.errors import BadValue, Failed, LabError
from lora_lab.files import read_json, refuse_foreign, whole_folder, write_json
from lora_lab.machine import quiet
from lora_lab.methods.inspect import Inspection, answer_of, inspect_adapter
from lora_lab.methods.io import AdapterFile, load_adapter, read_config
from lora_lab.methods.merge import SHORT, merge_for_good
from lora_lab.methods.targets import HEADS, PREFIX
from lora_lab.training.models import BUNDLED, STORED, auto_class, load_model, load_tokenizer, shapes_of_model
from lora_lab.training.runs import run_of

MARKER = "lora_lab_merge.json"
TOLERANCE = 1e-3  # largest allowed ||difference|| / ||output|| of the reloaded model


def base_named_in(folder: str | Path, option: str) -> str:
    """Return the base model's name from an adapter's config. Error messages suggest the command-line option `option`.

    Raises: NotFound if there is no config; BadValue if the config's base model name is missing or invalid.
    """
    name = read_config(folder).get("base_model_name_or_path")
    if not name:
        raise BadValue(f"the adapter in {folder} does not name its base model; pass the base with {option}")
    if not isinstance(name, str) or not name.isprintable() or len(name) > 500:
        raise BadValue(f"the adapter in {folder} names an invalid base {str(name)[:60]!r}; pass the base with {option}")
    return {hub_id: bundled for bundled, hub_id in BUNDLED.items()}.get(name, name)


def labels_of(folder: str | Path) -> int | None:
    """Return the number of classes in the head of an adapter's file, or None. For errors, see `AdapterFile`."""
    file = AdapterFile(folder)
    for key in reversed(file):
        parts = set(key.split("."))
        # Find the head's last matrix: some heads have an earlier one.
        if "weight" in parts and not parts & {"dense", "pre_classifier"} and parts.intersection(HEADS):
            if not file[key].dim():
                raise BadValue(f"the adapter in {folder}: {key} has shape (), but a head needs a row for each class")
            return len(file[key])
    return None


def base_for(folder: str | Path, name: str, labels: int | None, **options: Any) -> PreTrainedModel:
    """Load an adapter's base, with its language-modeling head unless the adapter was trained without that head.

    Raises: BadValue for a task that needs another head. For options and other errors, see `load_model` and `labels_of`.
    """
    if (task := read_config(folder).get("task_type")) in ("TOKEN_CLS", "QUESTION_ANS"):
        raise BadValue(f"the adapter in {folder} is for {task}, which lora_lab does not train or score: use PEFT")
    if labels is not None:
        return load_model(name, labels, **options)
    keys = [key.removeprefix(PREFIX) for key in AdapterFile(folder) if key.startswith(PREFIX)]
    full_model = shapes_of_model(name, download=options.get("download", False))
    (kind, *_), part = full_model.config.architectures or [""], full_model.base_model_prefix
    unknown = kind not in ("", type(full_model).__name__) and auto_class(kind, full_model.config) == "AutoModel"
    if unknown and not hasattr(full_model, part) and "".join(keys[:1]).startswith(f"{part}."):
        raise BadValue(f"{name} is a {kind}, which lora_lab does not load: merge in PEFT, or inspect without --base")
    # BertModel has encoder.layer, BertForMaskedLM has bert.encoder
    body = bool(keys) and not any(hasattr(full_model, key.split(".")[0]) for key in keys)
    return load_model(name, body=body, **options)


def inspect_folder(path: str | Path, base: str | None = None, **options: Any) -> Inspection:
    """Inspect an adapter, given the name of its base model. For dtype bf16, also show what merging in bf16 would lose.

    Raises: NotFound if there is no such folder. For options and other errors, see `load_model`.
    """
    inspection = inspect_adapter(path)
    if base is None or inspection.format is None:  # an unreadable adapter needs no base
        return inspection
    return inspect_adapter(path, base_for(path, base, labels_of(path), **options))


@torch.no_grad()
def write_merged(
    adapter: str | Path, out: str | Path, *, base: str | None = None, dtype: str | None = None, download: bool = False
) -> dict[str, Any]:
    """Merge a saved lora_lab or PEFT adapter into its base, and write a checkpoint to the folder `out`.

    Return the fields of the file MARKER. The field `difference` is ||merged - unmerged|| / ||unmerged|| for the logits
    that plain transformers computes on a fixed batch. The fields `merged` and `words` come from the `MergeReport`.

    base    The base model, which is by default the model that the adapter names.
    dtype   The dtype, as in `load_model`, or by default the checkpoint's dtype. "fp32" avoids rounding.
            "nf4" quantizes and dequantizes the base, to match an adapter for a 4-bit base, and writes fp32.
    Raises: BadValue if the adapter cannot be merged, or if `out` holds anything other than an earlier result; Failed
    if plain transformers returns different outputs (`out` is then unchanged). See also `load_model` and `load_adapter`.
    """
    source = Path(adapter)
    name, labels = base or base_named_in(source, "--base"), labels_of(source)
    target, *inputs = (Path(os.path.realpath(os.path.expanduser(path))) for path in (out, name, source))
    if target in inputs:
        raise BadValue(f"{out} is an input of the merge: choose another folder for the result")
    refuse_foreign(target, MARKER)
    model = base_for(source, name, labels, dtype=dtype or STORED, download=download)
    method = load_adapter(model, source).method.name
    unmerged = answer_of(model)
    report = merge_for_good(model)
    if labels is not None and (run := run_of(source)) and run.labels:  # the base may name other classes
        model.config.id2label = dict(enumerate(run.labels))
        model.config.label2id = {label: n for n, label in enumerate(run.labels)}
    merged, loads_as = answer_of(model), auto_class(type(model).__name__, model.config)
    tokenizer = None
    with suppress(LabError):  # a base may have no tokenizer; only a classifier's tokenizer needs a padding token
        tokenizer = load_tokenizer(name, download=download, as_it_came=True)
    if tokenizer is not None and labels is not None:
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.pad_token or tokenizer.eos_token, "right"
    with whole_folder(target, MARKER) as folder:
        with quiet():
            try:
                model.save_pretrained(folder)
            except SafetensorError as error:  # such as a full disk
                raise OSError(str(error)) from error
            if labels is not None:  # transformers leaves out the names of two classes, but BART's default is three
                names = {name: getattr(model.config, name) for name in ("id2label", "label2id")}
                write_json(folder / "config.json", read_json(folder / "config.json") | names)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            plain = answer_of(getattr(transformers, loads_as).from_pretrained(folder, local_files_only=True))
        off = float((plain - merged).norm() / merged.norm())
        if not off <= TOLERANCE:
            raise Failed(f"the checkpoint was not kept: in plain transformers, its logits are off by {off:.2g}")
        written = {
            "out": str(out),
            "base": name,
            "adapter": str(adapter),
            "method": method,
            "loads_as": loads_as,
            "dtype": SHORT.get(str(model.dtype), str(model.dtype)),
            "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            "tokenizer": tokenizer is not None,
            "difference": float((plain - unmerged).norm() / unmerged.norm()),
            "merged": report.to_json(),
            "words": str(report),
        }
        write_json(folder / MARKER, written)
    return written


def in_words(written: Mapping[str, Any]) -> str:
    tokenizer = "with its tokenizer" if written["tokenizer"] else "without a tokenizer, since the base has none"
    return (
        "{words}\nin plain transformers, the merged logits are within {difference:.1g} of the unmerged adapter's\n"
        '{out}: {bytes:,} bytes in {dtype}, {having}; load it with {loads_as}.from_pretrained("{out}")'
    ).format(**written, having=tokenizer)
