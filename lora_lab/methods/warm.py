"""Training that begins where an adapter's ended: its numbers in, its head left, for that answers another question."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lora_lab.errors import BadValue
from lora_lab.methods.adapters import AdapterFile, check_base, check_shapes, legible, method_in
from lora_lab.methods.base import Method, Report
from lora_lab.methods.layouts import layout_of
from lora_lab.methods.layouts.base import head_prefixes

FREE = ("dropout", "init", "lr_ratio", "freeze_a")  # of training alone: they may differ


def attach_from(method: Method, model: nn.Module, path: str | Path) -> Report:
    """Attach `method` to a plain model and fill it with the adapter in the folder `path`; the head stays as it is.

    Raises: NotFound, BadValue as `load_adapter`; BadValue for an adapter of another method, rank, alpha or target.
    """
    with legible():
        file = AdapterFile(path)
        check_base(model, file.own, path)
        saved, layout = method_in(file, model)
        _check_alike(method, saved, path)
        report = method.attach(model)
        heads = tuple(prefix for name, _ in report.heads for prefix in head_prefixes(name))
        own = layout_of(method).tensors(model, report)
        wanted = {key: tuple(t.shape) for key, t in own.items() if not key.startswith(heads)}
        check_shapes(wanted, {k: s for k, s in file.tensors.shapes.items() if not k.startswith(heads)}, path)
        file.tensors.check_finite()
    layout.fill(model, report, own | {key: file.tensors[key] for key in wanted})
    return report


def _check_alike(method: Method, saved: Method, path: str | Path) -> None:
    wanted, there = ({k: v for k, v in m.settings().items() if k not in FREE} for m in (method, saved))
    if wanted != there:
        differ = next(name for name in wanted | there if wanted.get(name) != there.get(name))
        raise BadValue(
            f"the adapter in {path} has {differ} {there.get(differ)!r} and this run {wanted.get(differ)!r}: begin from "
            "one that was trained alike"
        )
