"""Adapter files, in the layout that PEFT reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

How a method's numbers lie in them is its layout's affair, see `layouts/`. Loading is strict: a file that does not fit
leaves the model as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json, write_atomically, write_json
from lora_lab.methods import method_from
from lora_lab.methods.attach import adapted_layers, fingerprint, refuse_adapted, report_of, take_out
from lora_lab.methods.base import Method, Report
from lora_lab.methods.layouts import Layout, layout_for, layout_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Write what a method trained in the model, and the head, into the folder `path`; returns that folder.

    The file holds what trains: after full fine-tuning that is the whole model.
    Raises: BadValue when the model carries no adapter, when it is merged or when the folder cannot be written.
    """
    report, folder = report_of(model), Path(path)
    if any(layer.merged for _, layer in adapted_layers(model)):
        raise BadValue(
            "the adapter is merged into its base, whose own weights are then not there: unmerge(model) first"
        )
    # What PEFT's config has no field for travels in the weights' header, where PEFT does not look.
    own = {"method": report.method.settings(), "base_fingerprint": report.base_fingerprint}
    layout = layout_of(report.method)
    tensors = {key: t.detach().cpu().contiguous() for key, t in layout.tensors(model, report).items()}
    write_atomically(folder / WEIGHTS, safetensors_bytes(tensors, {"format": "pt", "lora_lab": json.dumps(own)}))
    write_json(folder / CONFIG, layout.config(model, report))
    return folder


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path` to `model`, which carries none; ours and PEFT's load alike.

    Raises: NotFound for a missing file or a layer that the model lacks; BadValue for a file that is truncated, not
    safetensors, made for another base, or has missing, unexpected or wrongly shaped tensors. The model is then
    as it was.
    """
    config, tensors, own = _read(Path(path))
    refuse_adapted(model)
    _check_base(model, own, path)
    with _sound(path):
        method, layout = _method(config, own, model)
    with _or_as_it_was(model):
        report = method.attach(model)
        if "method" in own:
            _check_config(config, layout, layout.config(model, report), path)
        layout.drop_copies(model, report, tensors)
        _check_shapes({key: tuple(t.shape) for key, t in layout.tensors(model, report).items()}, tensors, path)
        layout.fill(model, report, tensors)
    return report


def method_in(model: nn.Module, path: str | Path) -> Method:
    """The method of the adapter in the folder `path`, for a plain model. Raises: as `load_adapter`."""
    config, _, own = _read(Path(path))
    with _sound(path):
        return _method(config, own, model)[0]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """The config, the tensors by key, and our own header ({} in a file of PEFT's)."""
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise NotFound(f"{folder} is not an adapter: it holds no {file.name}")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            own = json.loads((file.metadata() or {}).get("lora_lab", "{}"))
    except (SafetensorError, ValueError) as error:
        raise BadValue(f"{folder / WEIGHTS} is truncated or not a safetensors file ({error})") from error
    if not isinstance(own, dict):
        raise BadValue(f"{folder / WEIGHTS} has a damaged header: lora_lab's part of it is {type(own).__name__}")
    return read_json(folder / CONFIG), tensors, own


@contextmanager
def _sound(path: str | Path) -> Iterator[None]:
    """Whatever a damaged config sets off inside the block is one sentence."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, re.error) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue(f"the config of the adapter in {path} is damaged: {error}") from error


def _method(config: Mapping[str, Any], own: Mapping[str, Any], model: nn.Module) -> tuple[Method, Layout]:
    """What our header says, where there is one, else what PEFT's config does."""
    layout = layout_for(config)
    layout.check(config)
    if "method" not in own:
        return layout.method(config, model), layout
    method = method_from(own["method"])
    return method, layout_of(method)


@contextmanager
def _or_as_it_was(model: nn.Module) -> Iterator[None]:
    """Take out again what was attached inside the block, if anything goes wrong there."""
    trained = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    except BaseException:
        take_out(model)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        raise


def _check_config(config: Mapping[str, Any], layout: Layout, written: Mapping[str, Any], path: str | Path) -> None:
    """Our own files say everything twice, in our words and in PEFT's: refuse one in which only one was changed."""
    for option in layout.decisive:
        if config.get(option) != written.get(option):
            raise BadValue(
                f"{CONFIG} in {path} says {option}={config.get(option)!r}, "
                f"but the adapter was saved with {written.get(option)!r}"
            )


def _check_base(model: nn.Module, own: Mapping[str, Any], path: str | Path) -> None:
    made_for = own.get("base_fingerprint")
    half = any(p.dtype == torch.float16 for p in model.parameters())  # fp16 rounds otherwise: no fingerprint
    if made_for and not half and made_for != fingerprint(model):
        raise BadValue(f"the adapter in {path} was trained on another base model: its weights differ from this one's")


def _check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    if missing := sorted(expected.keys() - tensors.keys()):
        raise BadValue(f"the adapter in {path} lacks {len(missing)} of {len(expected)} tensors, first {missing[0]}")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        raise BadValue(f"the adapter in {path} has {len(unexpected)} tensors that fit nothing, first {unexpected[0]}")
    for key, shape in expected.items():
        tensor = tensors[key]
        if tuple(tensor.shape) != shape:
            raise BadValue(f"the adapter in {path}: {key} has shape {tuple(tensor.shape)}, this model needs {shape}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise BadValue(f"the adapter in {path}: {key} holds {tensor.dtype} values that are no finite numbers")
