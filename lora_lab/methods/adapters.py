"""Adapter files, in the layout that PEFT reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

How a method's numbers lie in them is its layout's affair, see `layouts/`. Loading is strict: a file that does not fit
leaves the model as it was.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.errors import BadValue, LabError, LabWarning
from lora_lab.files import as_json, write_together
from lora_lab.methods import method_from
from lora_lab.methods.attach import (
    adapter_layers,
    fingerprint,
    inside,
    or_as_it_was,
    refuse_adapted,
    report_of,
    shapes_of,
)
from lora_lab.methods.base import Method, Report
from lora_lab.methods.faults import EMPTY, MISSING, PICKLE, RENAMED, SETTINGS, TOO_MANY, WRONG_BASE, Refused
from lora_lab.methods.layouts import Layout, layout_for, layout_of
from lora_lab.methods.layouts.base import KNOWN, PREFIX, check_saved, left_to_base
from lora_lab.methods.layouts.keys import known_key, plain_key
from lora_lab.methods.safe_file import TensorFile, read_config
from lora_lab.methods.safe_json import parse_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
LONGEST_SENTENCE = 600  # of an error: a file must not fill the terminal


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Write what a method trained in the model, and the head, into the folder `path`; returns that folder.

    The file holds what trains: after full fine-tuning that is the whole model. An adapter that is there already is
    replaced as a whole.
    Raises: BadValue when the model carries no adapter, when it is merged or when the folder cannot be written.
    """
    model = inside(model)
    report, folder = report_of(model), Path(path)
    if any(layer.merged for _, layer in adapter_layers(model)):
        raise BadValue(
            "the adapter is merged into its base, whose own weights are then not there: unmerge(model) first"
        )
    tensors, metadata = file_of(model, report)
    weights = safetensors_bytes({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata)
    write_together(folder, {WEIGHTS: weights, CONFIG: as_json(layout_of(report.method).config(model, report))})
    return folder


def file_of(model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of `adapter_model.safetensors`, of a model that may be on the meta device.

    What PEFT's config has no field for travels in the metadata, where PEFT does not look.
    """
    own = {"method": report.method.settings(), "base_fingerprint": report.base_fingerprint}
    return layout_of(report.method).tensors(model, report), {"format": "pt", "lora_lab": json.dumps(own)}


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path` to `model`, which carries none; ours and PEFT's load alike.

    Whatever the file says is tried on a model of shapes first, which takes no memory, and every number is looked at
    before the model is touched. So a hostile file costs at most what its own size would: see `safe_file`.

    Raises: NotFound for a missing file or a layer that the model lacks; BadValue for a file that is truncated, not
    safetensors, made for another base, or has missing, unexpected or wrongly shaped tensors, and for a model that
    cannot be copied. The model is then as it was.
    """
    with legible():
        refuse_adapted(model)
        file = AdapterFile(path)
        _refuse_for_body(model, file)
        check_base(model, file.own, path)
        method, layout = method_in(file, model)
        with _drawing_nothing(model):
            planned = _fits(model, method, layout, file)
        file.tensors.check_finite()
    with or_as_it_was(model), _drawing_nothing(model):
        made = layout.attach(layout.lighter(method), model)
        report = replace(planned, base_fingerprint=made.base_fingerprint)
        model.lora_lab_report = report  # type: ignore[assignment]
        layout.check_copies(model, report, file.tensors)
        layout.fill(model, report, file.tensors)
    return report


def _drawing_nothing(model: nn.Module) -> AbstractContextManager[None]:
    """After the block torch's random numbers go on as if none had been drawn: a file brings its own numbers."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")  # without devices it is not asked for
    return torch.random.fork_rng([one for one in devices if one.type == kind], device_type=kind)  # type: ignore[no-any-return]


def method_saved_in(path: str | Path, model: nn.Module) -> Method:
    """The method of the adapter in the folder `path`, for a plain model. Raises: as `load_adapter`."""
    with legible():
        return method_in(AdapterFile(path), model)[0]


class AdapterFile:
    """An adapter's folder as it was read, none of it trusted further than it has been checked.

    config    adapter_config.json
    tensors   those of adapter_model.safetensors, read when they are asked for
    own       what we wrote into its header: the method and the base's fingerprint; {} in a file of PEFT's
    Raises: NotFound for a file that is not there; BadValue for one that is not what it should be.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        with sound(path):
            self.path, self.config = folder, read_config(folder, CONFIG)
            _refuse_pickle(folder)
            self.tensors = TensorFile(folder, WEIGHTS)
            ours = self.tensors.metadata.get("lora_lab", "{}")
            self.own = parse_object(ours, f"lora_lab's part of the header of {folder / WEIGHTS}")


def _refuse_pickle(folder: Path) -> None:
    """Raises: Refused where PEFT's old file is all there is; one of 443 bytes is a pickle of nothing."""
    old = folder / OLD_WEIGHTS
    if not (folder / WEIGHTS).exists() and old.is_file():
        size = old.stat().st_size
        raise Refused(
            f"{folder} holds no {WEIGHTS}, only {OLD_WEIGHTS} of {size:,} bytes, a pickle, which was not opened",
            EMPTY if size < 1000 else PICKLE,
        )


@contextmanager
def legible() -> Iterator[None]:
    """What is refused inside the block is said in one short sentence of printable characters.

    What stands in a file is quoted in it, and a terminal obeys some characters.
    """
    try:
        yield
    except LabError as error:
        error.args = (_plain(str(error)),)
        raise


@contextmanager
def sound(path: str | Path) -> Iterator[None]:
    """Around what reads a file: whatever a damaged config sets off is said as `legible` says it."""
    with legible():
        try:
            yield
        except LabError:
            raise
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, re.error) as error:
            said = f"{type(error).__name__}: {_plain(str(error))}"
            raise Refused(f"the config of the adapter in {path} is damaged: {said}", SETTINGS) from error


def _plain(text: str) -> str:
    cut = text if len(text) <= LONGEST_SENTENCE else f"{text[:LONGEST_SENTENCE]}... (shortened)"
    return "".join(c if c.isprintable() else "?" for c in cut)


def method_in(file: AdapterFile, model: nn.Module) -> tuple[Method, Layout]:
    """What our header says, where there is one, else what PEFT's config does. Raises: BadValue, NotFound."""
    with sound(file.path):
        layout = layout_for(file.config)
        check_saved(file.config)
        layout.check(file.config)
        if "method" not in file.own:
            _warn_of_unknown(file)
            return layout.method(file.config, model), layout
        method = method_from(file.own["method"])
        return method, layout_of(method)


def _warn_of_unknown(file: AdapterFile) -> None:
    """LabWarning for options of a PEFT newer than those known here: as PEFT itself does, read on without them."""
    unknown = [option for option, value in file.config.items() if value and option not in KNOWN]
    if unknown:
        said = _plain(f"the config of the adapter in {file.path} sets {', '.join(sorted(unknown))}")
        warnings.warn(
            f"{said}, which lora_lab does not know: if that changes what PEFT computes, the answers here are others",
            LabWarning,
            stacklevel=4,
        )


def _fits(model: nn.Module, method: Method, layout: Layout, file: AdapterFile) -> Report:
    """Attach the method to a model of shapes, which takes no memory; the report of it, once all in the file fits."""
    shapes = shapes_of(model)
    report = layout.attach(method, shapes)
    if "method" in file.own:
        _check_config(file.config, layout, layout.config(shapes, report), file.path)
    expected = {key: tuple(t.shape) for key, t in layout.tensors(shapes, report).items()}
    there, copies = file.tensors.shapes, layout.copies(report)
    left = set() if "method" in file.own else left_to_base(file.config, report, expected, there)
    expected = {key: shape for key, shape in expected.items() if key not in left}
    check_shapes(expected, {key: shape for key, shape in there.items() if key not in copies}, file.path)
    return report


def _check_config(config: Mapping[str, Any], layout: Layout, written: Mapping[str, Any], path: str | Path) -> None:
    """Our own files say everything twice, in our words and in PEFT's: refuse one in which only one was changed."""
    for option in layout.decisive:
        if config.get(option) != written.get(option):
            said = f"{CONFIG} in {path} says {option}={config.get(option)!r}"
            raise Refused(f"{said}, but the adapter was saved with {written.get(option)!r}", SETTINGS)


def _refuse_for_body(model: nn.Module, file: AdapterFile) -> None:
    """Raises: Refused for an adapter whose names are all those of the model without its head."""
    parts = {key.removeprefix(PREFIX).split(".")[0] for key in file.tensors.shapes if key.startswith(PREFIX)}
    inner = getattr(model, getattr(model, "base_model_prefix", "") or "-", None)
    if isinstance(inner, nn.Module) and all(hasattr(inner, one) and not hasattr(model, one) for one in parts) and parts:
        said = f"the adapter in {file.path} was made for {type(inner).__name__}, the model without its head"
        raise Refused(f"{said}: load that with load_model(..., body=True)", WRONG_BASE)


def check_base(model: nn.Module, own: Mapping[str, Any], path: str | Path) -> None:
    """Raises: Refused for an adapter whose header, `own`, says that it was trained on other weights than `model`'s."""
    made_for, here = own.get("base_fingerprint"), fingerprint(model)
    if made_for and here and made_for != here:  # "": a base in fp16
        said = f"the adapter in {path} was trained on another base model: its weights differ from this one's"
        raise Refused(said, WRONG_BASE)


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    """Raises: Refused where a file's tensors, by key and shape, are not those that the model needs."""
    if missing := sorted(expected.keys() - there.keys()):
        said = f"the adapter in {path} lacks {len(missing)} of {len(expected)} tensors, first {missing[0]}"
        raise Refused(said, _fault_of_keys(expected, there))
    if unexpected := sorted(there.keys() - expected.keys()):
        said = f"the adapter in {path} has {len(unexpected)} tensors that fit nothing, first {unexpected[0]}"
        raise Refused(said, _fault_of_keys(expected, there))
    for key, shape in expected.items():
        if there[key] != shape:
            said = f"the adapter in {path}: {key} has shape {there[key]}, this model needs {shape}"
            raise Refused(said, _fault_of_shape(key, there[key], shape))


def _fault_of_keys(expected: Iterable[str], there: Iterable[str]) -> str:
    """Renamed, where what is missing and what is too much end alike; else missing, or too many."""
    lacking, more = set(expected) - set(there), set(there) - set(expected)
    renamed = lacking and more and {plain_key(key) for key in lacking} == {plain_key(key) for key in more}
    if renamed or (more and not any(known_key(key) for key in more)):
        return RENAMED
    return MISSING if lacking else TOO_MANY


def _fault_of_shape(key: str, has: tuple[int, ...], needs: tuple[int, ...]) -> str:
    """Another rank than the config says, or sizes that are another model's."""
    rank = 0 if key.endswith(("lora_A.weight", "lora_embedding_A")) else 1
    only_rank = ".lora_" in key and len(has) == len(needs) == 2 and has[1 - rank] == needs[1 - rank]
    return SETTINGS if only_rank else WRONG_BASE
