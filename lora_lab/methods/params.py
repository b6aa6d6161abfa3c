"""`params(model, method)`: what a method would train on a model that is named or loaded.

LoRA is placed on the described sites, exactly as on the real ones, and full fine-tuning trains every row; neither takes
torch for a model of the zoo. Every other method is attached to the model on the meta device, and what trains there is
added up.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.accounting.models import Architecture, Module, architecture_of, config_of, meta_model
from lora_lab.accounting.parameters import FP32, ParameterCount, Row, safetensors_bytes, table
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.base import Method
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn

# As in `methods/layouts/base.py` and `methods/adapters.py`, which import torch; a test holds them together.
_PREFIX = "base_model.model."
_FINGERPRINT = "0" * 16


def params(model: Any, method: Method, num_labels: int | None = None) -> ParameterCount:
    """The parameters that `method` trains on `model`, in all and for each kind of module.

    model   a name of the zoo, a folder, a config.json or its fields, a cached hub id, or a transformers model
    With `num_labels` it is the model for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an impossible value.
    """
    if not isinstance(model, str | Path | Mapping | Architecture):
        model = plain(model, num_labels)
    architecture = architecture_of(model, num_labels)
    head, added = architecture.head_parameters, list[Row]()
    trained: Counter[tuple[Module, str]] = Counter()
    if isinstance(method, LoRA):
        for slot, placement in method.placed(architecture):
            trained[slot.module, slot.site.role if slot.site.rows else ""] += placement.parameters * slot.times
        own = {"method": method.settings(), "base_fingerprint": _FINGERPRINT}
        size = safetensors_bytes(dict(_tensors(method, architecture)), {"format": "pt", "lora_lab": json.dumps(own)})
    elif isinstance(method, FullFineTuning):
        trained.update({(m, ""): m.parameters * m.count for m in architecture.modules if not m.in_task_head})
        size = FP32 * (trained.total() + head)
    elif isinstance(model, Architecture):
        raise BadValue(f"{method.name} is counted by attaching it: give the model's name in place of its Architecture")
    elif method.name in ("head", "probe") and not head:
        raise BadValue(f"{method.name} trains the head of a task, and {architecture.name} has none: give num_labels")
    else:
        made = meta_model(model, num_labels) if isinstance(model, str | Path | Mapping) else model
        head, size = _attached(made, method, architecture, trained, added)
    return ParameterCount(
        model=architecture.name,
        method=method.name,
        total=architecture.total,
        trainable=trained.total() + sum(row.trained for row in added),
        head=head,
        adapter_bytes=size,
        modules=(*table(architecture, trained), *added),
    )


def plain(model: Any, num_labels: int | None = None) -> nn.Module:
    """A loaded model on the meta device, without the adapter that it may carry."""
    from lora_lab.methods.attach import shapes_of, take_out
    from lora_lab.methods.heads import heads_of

    coded = not all(weight.is_floating_point() for weight in model.parameters())  # bitsandbytes packs two in a byte
    if coded and num_labels is None and heads_of(model):
        num_labels = model.config.num_labels
    if coded or num_labels is not None:
        return meta_model(config_of(model), num_labels)
    plain = shapes_of(model)
    take_out(plain)
    return plain


def _attached(
    model: nn.Module, method: Method, architecture: Architecture, trained: Counter[tuple[Module, str]], added: list[Row]
) -> tuple[int, int]:
    """Attach the method and note what trains where; numbers in the heads, and bytes of the file."""
    from lora_lab.layers import TrainedCopy
    from lora_lab.methods.adapters import file_of
    from lora_lab.methods.attach import own_parameters, switched

    modules = dict(architecture.paths())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabWarning)  # of what would stay frozen: nothing is trained here
        report = method.attach(model)
    for path, part in switched(model):
        own = {name: p for name, p in own_parameters(part) if p.requires_grad and not isinstance(part, TrainedCopy)}
        if module := modules.get(path.replace(".base_layer", "")):
            trained[module, ""] += sum(p.numel() for p in own.values())
            continue
        for name, p in own.items():
            inputs = p.shape[0] if p.dim() > 1 else 1
            row = Row(f"{path}.{name}", method.name, inputs, p.numel() // inputs, 1, 0, p.numel(), matrix=False)
            added.append(row)
    tensors, metadata = file_of(model, report)
    return report.head_parameters, safetensors_bytes({key: t.shape for key, t in tensors.items()}, metadata)


def _tensors(method: LoRA, architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Key and shape of every tensor in LoRA's file; a fused layer costs more there than trains: `layouts/lora.py`."""
    for path, group in groupby(method.placed(architecture), key=lambda pair: pair[0].site.module):
        together = list(group)
        slot, rank = together[0][0], sum(method.file_rank(placement.rank) for _, placement in together)
        ends = ("embedding_A", "embedding_B") if slot.site.kind == "embedding" else ("A.weight", "B.weight")
        for expert in range(slot.times):
            key = f"{_PREFIX}{path.replace('*', str(expert))}.lora_"
            yield f"{key}{ends[0]}", (rank, slot.module.in_features)
            yield f"{key}{ends[1]}", (slot.module.out_features, rank)
            if method.dora:
                yield f"{key}magnitude_vector", (slot.module.out_features,)
    for module in architecture.modules:
        if module.in_task_head:
            yield f"{_PREFIX}{module.name}.weight", (module.out_features, module.in_features)
            if module.bias:
                yield f"{_PREFIX}{module.name}.bias", (module.out_features,)
