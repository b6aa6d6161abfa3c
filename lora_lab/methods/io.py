"""Adapter files in the layout that PEFT reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

Loading is strict: a file that does not fit leaves the model as it was. A file may come from a stranger: the safetensors
library (https://github.com/huggingface/safetensors) parses it, and names, dtypes, shapes and values are checked before
the model is touched. Methods that PEFT has lay out their own tensors (`to_peft`); the files of the others hold every
number that trains by its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.errors import BadValue, LabError, NotFound, printable, warn
from lora_lab.files import as_json, write_together
from lora_lab.methods import REGISTRY, faults, method_from
from lora_lab.methods.attach import (
    adapter_layers,
    fingerprint,
    inside,
    refuse_adapted,
    report_of,
    restore_on_error,
    shapes_of,
)
from lora_lab.methods.base import Method, Report
from lora_lab.methods.faults import Refused
from lora_lab.methods.peft import KNOWN, PREFIX, common_config, head_prefixes, left_to_base
from lora_lab.methods.targets import HEADS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
OURS = "LORA_LAB"  # peft_type of the methods that PEFT lacks
MOST = 512 * 1024  # bytes of a config or a header; a header of 1,120 tensors (rank 8 on all of Llama-70B) has 0.2 MB
DEPTH = 16  # levels of a config; PEFT's have 3
FLOATS = ("F64", "F32", "F16", "BF16")
TRAINING_ONLY = ("dropout", "init", "lr_ratio", "freeze_a")  # they may differ where a run starts from an adapter


# ---- saving and loading


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Write the adapter and the head of `model` into the folder `path`, and return that folder.

    The file holds what trains: after full fine-tuning, the whole model. It replaces an adapter that is there as a
    whole, never in part.
    Raises: BadValue when the model carries no adapter, when it is merged or when the folder cannot be written.
    """
    model = inside(model)
    report, folder = report_of(model), Path(path)
    if any(layer.merged for _, layer in adapter_layers(model)):
        raise BadValue("the adapter is merged into its base, so it cannot be saved: call unmerge(model) first")
    tensors, metadata, config = file_of(model, report)
    weights = safetensors_bytes({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata)
    write_together(folder, {WEIGHTS: weights, CONFIG: as_json(config)})
    return folder


def file_of(model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Tensors and metadata of `adapter_model.safetensors`, and the config; the model may be on the meta device.

    The metadata, which PEFT ignores, holds what PEFT's config has no field for.
    """
    method = report.method
    own = {"method": method.settings(), "base_fingerprint": report.base_fingerprint}
    metadata = {"format": "pt", "lora_lab": json.dumps(own)}
    if method.peft_type:
        tensors, config = method.to_peft(model, report)
        return tensors, metadata, config
    config = {"peft_type": OURS, "method": method.settings(), **common_config(model, report)}
    return _trained(model, report), metadata, config


def _trained(model: nn.Module, report: Report) -> dict[str, Tensor]:
    """Every parameter that trains, by its path in the base model."""
    heads = tuple(f"{head}.trained." for head, _ in report.heads)
    named = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {PREFIX + (n.replace(".trained.", ".", 1) if n.startswith(heads) else n): p for n, p in named}


@torch.no_grad()
def _fill(model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
    if report.method.peft_type:
        report.method.fill(model, report, tensors)
    else:
        for key, parameter in _trained(model, report).items():
            parameter.copy_(tensors[key])


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path`, saved here or by PEFT, to a model that carries none.

    It is first tried on a copy of the model that holds shapes only. Torch's random state does not change. After any
    error the model is as it was.
    Raises: NotFound for a missing file or a layer that the model lacks; BadValue for a file that is truncated, not
    safetensors, made for another base, or has missing, unexpected or wrongly shaped tensors, and for a model that
    cannot be copied.
    """
    with readable():
        file, method = _opened(model, path)
        with _rng_kept(model):
            shapes = shapes_of(model)
            report = method.attach_empty(shapes)
            tensors, _, written = file_of(shapes, report)
        left = set[str]()
        if "method" in file.own:  # such a file says everything twice, and both must agree
            for option in method.decisive:
                if file.config.get(option) != written.get(option):
                    said = f"{CONFIG} in {path} says {option}={file.config.get(option)!r}"
                    raise Refused(f"{said}, but the adapter was saved with {written.get(option)!r}", faults.SETTINGS)
        else:
            left = left_to_base(file.config, report, tensors, file)
        _check_shapes(file, {key: t for key, t in tensors.items() if key not in left}, method.ignored(report))
        with restore_on_error(model), _rng_kept(model):
            attached = method.attach_empty(model)
            report = replace(report, base_fingerprint=attached.base_fingerprint)
            model.lora_lab_report = report  # type: ignore[assignment]
            _fill(model, report, file)
    return report


def attach_from(method: Method, model: nn.Module, path: str | Path) -> Report:
    """Attach `method` to a plain model and start it from the adapter in the folder `path`; the head stays the model's.

    Raises: as `load_adapter`; BadValue for an adapter of another method, rank, alpha or target. The model is then as it
    was.
    """
    with readable():
        file, saved = _opened(model, path)
        ours, theirs = ({k: v for k, v in m.settings().items() if k not in TRAINING_ONLY} for m in (method, saved))
        for name in ours | theirs:
            if ours.get(name) != theirs.get(name):
                said = f"the adapter in {path} has {name} {theirs.get(name)!r} and this run {ours.get(name)!r}"
                raise BadValue(f"{said}: start from an adapter of the same settings")
        with restore_on_error(model):
            report = method.attach(model)
            heads = tuple(prefix for name, _ in report.heads for prefix in head_prefixes(name))
            own = file_of(model, report)[0]
            needed = {key: t for key, t in own.items() if not key.startswith(heads)}
            _check_shapes(file, needed, {key for key in file if key.startswith(heads)})
            _fill(model, report, own | {key: file[key] for key in needed})
    return report


def method_saved_in(path: str | Path, model: nn.Module) -> Method:
    """The method of the adapter in the folder `path`, for a plain model. Raises: as `load_adapter`."""
    return _method_in(AdapterFile(path), model)


def _opened(model: nn.Module, path: str | Path) -> tuple[AdapterFile, Method]:
    """The file and its method, for a model that carries no adapter and may be its base. Raises: as `load_adapter`."""
    refuse_adapted(model)
    file = AdapterFile(path)
    parts = {key.removeprefix(PREFIX).split(".")[0] for key in file if key.startswith(PREFIX)}
    body = getattr(model, getattr(model, "base_model_prefix", "") or "-", None)
    if parts and isinstance(body, nn.Module) and all(hasattr(body, p) and not hasattr(model, p) for p in parts):
        said = f"the adapter in {path} was made for {type(body).__name__}, the model without its head"
        raise Refused(f"{said}: load that with load_model(..., body=True)", faults.WRONG_BASE)
    made_for, here = file.own.get("base_fingerprint"), fingerprint(model)
    if made_for and here and made_for != here:  # "" for a base in fp16
        said = f"the adapter in {path} was trained on another base model: its weights differ from this one's"
        raise Refused(said, faults.WRONG_BASE)
    return file, _method_in(file, model)


def _method_in(file: AdapterFile, model: nn.Module) -> Method:
    """The method that our header names, or else the one that PEFT's config describes. Raises: BadValue, NotFound."""
    config = file.config
    with readable(file.path):
        # Reversed: LoRA comes before LoRA-XS, whose file is one of LoRA.
        known = {method.peft_type: method for method in reversed(REGISTRY.values()) if method.peft_type}
        kind = config.get("peft_type")
        if kind != OURS and kind not in known:
            names = ", ".join(reversed(known))
            raise BadValue(f"peft_type is {kind!r}; only adapters of these kinds can be loaded: {names}")
        if others := [name for name in config.get("modules_to_save") or () if name.split(".")[0] not in HEADS]:
            said = f"the adapter was trained with modules_to_save={others}, which lora_lab does not train"
            raise BadValue(f"{said}: merge it in PEFT first")
        if kind != OURS:
            known[kind].check_peft(config)
        if "method" in file.own:
            return method_from(file.own["method"])
        if kind == OURS:
            raise BadValue("the adapter's file has lost its header, which named its method: save it again")
        if unknown := sorted(option for option, value in config.items() if value and option not in KNOWN):
            # Options of a newer PEFT: like PEFT itself, go on without them.
            said = _sentence(f"the config of the adapter in {file.path} sets {', '.join(unknown)}")
            more = "which lora_lab does not know; if it changes what PEFT computes, the outputs differ here"
            warn(f"{said}, {more}")
        return known[kind].from_peft(config, model)


def _rng_kept(model: nn.Module) -> AbstractContextManager[None]:
    """Restore torch's random state after the block: a file brings its own values."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")  # without devices it is not used
    return torch.random.fork_rng([one for one in devices if one.type == kind], device_type=kind)  # type: ignore[no-any-return]


# ---- checks


@contextmanager
def readable(path: str | Path | None = None) -> Iterator[None]:
    """Raise what is refused in the block as one short sentence of printable characters.

    path   of an adapter whose settings the block reads: any error that they cause becomes a Refused
    """
    try:
        yield
    except LabError as error:
        error.args = (_sentence(str(error)),)
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, re.error) as error:
        if path is None:
            raise
        said = f"the config of the adapter in {path} is damaged: {type(error).__name__}: {error}"
        raise Refused(_sentence(said), faults.SETTINGS) from error


def _sentence(text: str) -> str:
    return printable(text if len(text) <= 600 else f"{text[:600]}... (shortened)")


def _check_shapes(file: AdapterFile, expected: Mapping[str, Tensor], ignored: set[str]) -> None:
    """Check the keys, shapes and values of a file's tensors against what the model needs. Raises: Refused."""
    there = file.shapes.keys() - ignored
    missing, unexpected = sorted(expected.keys() - there), sorted(there - expected.keys())
    if missing or unexpected:
        said = f"lacks {len(missing)} of {len(expected)} tensors, first {missing[0]}" if missing else ""
        said = said or f"has {len(unexpected)} tensors that fit nothing, first {unexpected[0]}"
        same = {key.replace("model.", "") for key in missing} == {key.replace("model.", "") for key in unexpected}
        renamed = same or (unexpected and not any(known_key(key) for key in unexpected))
        other = faults.MISSING if missing else faults.TOO_MANY
        raise Refused(f"the adapter in {file.path} {said}", faults.RENAMED if renamed else other)
    for key, tensor in expected.items():
        has, needs = file.shapes[key], tuple(tensor.shape)
        if has != needs:
            rank = 0 if key.endswith(("lora_A.weight", "lora_embedding_A")) else 1
            only_rank = ".lora_" in key and len(has) == len(needs) == 2 and has[1 - rank] == needs[1 - rank]
            said = f"the adapter in {file.path}: {key} has shape {has}, this model needs {needs}"
            raise Refused(said, faults.SETTINGS if only_rank else faults.WRONG_BASE)
    file.check_finite()


_MARKS = r"module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|default|lora_down|lora_up"


def known_key(key: str) -> bool:
    """Whether PEFT or lora_lab writes such a key: with its prefix, without the name of a wrapper or an adapter."""
    marked = re.search(rf"(^|\.)({_MARKS})(\.|$)", key)
    return key == "prompt_embeddings" or (key.startswith("base_model.") and not marked)


# ---- reading


class AdapterFile(Mapping[str, Tensor]):
    """An adapter's folder: the config and the header, checked, and the tensors by key, each read when asked for.

    config           adapter_config.json
    own              our part of the header: the method and the base's fingerprint; {} in a file of PEFT's
    shapes, dtypes   of each tensor, dtypes as safetensors names them
    size             bytes of the weights
    Raises: NotFound for a missing file; BadValue for one that is not what it should be.
    """

    def __init__(self, path: str | Path) -> None:
        folder = self.path = Path(path)
        with readable(path):
            self.config = read_config(folder)
            old = folder / OLD_WEIGHTS
            if old.is_file() and not (folder / WEIGHTS).exists():
                size = old.stat().st_size
                said = f"{folder} holds no {WEIGHTS}, only {OLD_WEIGHTS} of {size:,} bytes, a pickle (not opened)"
                raise Refused(said, faults.EMPTY if size < 1000 else faults.PICKLE)  # a pickle of {} has 443 bytes
            start = _read(folder, WEIGHTS, 9)
            self._state = self._stat()
            self.size, length = self._state[0], int.from_bytes(start[:8], "little")
            # A pickle begins with 0x80 and its protocol. So does a header of 640 bytes, but then comes its brace.
            pickled = start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04"))
            if pickled and start[8:] != b"{":
                raise self._refused("it is a pickle, which could run any program (not opened)", faults.PICKLE)
            if MOST + self.size // 64 < length <= self.size:  # parsed, it takes several times its bytes
                raise self._refused(f"its header of {length:,} bytes is too long", faults.DAMAGED)
            try:
                with safe_open(folder / WEIGHTS, "pt") as file:
                    slices = {key: file.get_slice(key) for key in file.keys()}
                    ours = (file.metadata() or {}).get("lora_lab", "{}")
            except (SafetensorError, OSError, RuntimeError) as error:
                cut = "fully covered" in str(error) or self.size - 8 < length < 100_000_000
                fault = faults.TRUNCATED if cut else faults.DAMAGED
                raise self._refused(str(error), fault if self.size else faults.EMPTY) from error
            self.dtypes = {key: str(one.get_dtype()) for key, one in slices.items()}
            self.shapes: dict[str, tuple[int, ...]] = {key: tuple(one.get_shape()) for key, one in slices.items()}
            for key, shape in self.shapes.items():
                if not key.isprintable() or len(key) > 512 or 0 in shape:
                    raise self._refused(f"no adapter has a tensor {key[:60]!r} of shape {shape}", faults.DAMAGED)
            if not slices:
                raise self._refused("it holds no tensor at all", faults.EMPTY)
            self.own = parse_json(ours, f"lora_lab's part of the header of {folder / WEIGHTS}")

    def _stat(self) -> tuple[int, ...]:
        try:
            now = (self.path / WEIGHTS).stat()
        except OSError:
            return ()
        return now.st_size, now.st_ino, now.st_mtime_ns

    def _refused(self, why: str, fault: str) -> Refused:
        return Refused(f"{self.path / WEIGHTS} is truncated or not a safetensors file: {why}", fault)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.shapes:
            raise KeyError(key)
        with self._open() as file:  # opened again, as pages that were read stay in memory while it is open
            return file.get_tensor(key)  # type: ignore[no-any-return]

    def _open(self) -> Any:
        if self._stat() != self._state:
            raise self._refused("it changed while it was read", faults.DAMAGED)  # cut short, it would end the process
        return safe_open(self.path / WEIGHTS, "pt")

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def check_finite(self) -> None:
        """Check that every tensor is of floats, all of them finite; a piece at a time. Raises: Refused."""
        with self._open() as file:
            for key, dtype in self.dtypes.items():
                said = f"the adapter in {self.path}: {key} has"
                if dtype not in FLOATS:
                    raise Refused(f"{said} dtype {dtype}; adapters are {', '.join(FLOATS)}", faults.WRONG_DTYPE)
                if not all(piece.isfinite().all() for piece in file.get_tensor(key).flatten().split(1 << 18)):
                    raise Refused(f"{said} NaN or infinite values", faults.NOT_FINITE)


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A JSON object from a file of an adapter's folder. Raises: NotFound, BadValue as `parse_json`."""
    content = _read(folder, name, MOST + 1)
    if len(content) > MOST:
        raise BadValue(f"{folder / name} is larger than {MOST // 1024} KiB, which no config is")
    return parse_json(content, str(folder / name))


def _read(folder: Path, name: str, most: int) -> bytes:
    """The first bytes of a plain file: a pipe would block, and a device never ends. Raises: NotFound, BadValue."""
    place = folder / name
    try:
        if place.is_file():
            with place.open("rb") as file:
                return file.read(most)
        if not place.exists() and not place.is_symlink():
            raise NotFound(f"{folder} is not an adapter: it holds no {name}")
        raise OSError("it is not a plain file")
    except OSError as error:
        raise BadValue(f"{place} cannot be read: {error}") from error


def parse_json(content: bytes | str, what: str) -> dict[str, Any]:
    """One JSON object; `what` names it in errors. Integers of over 18 digits become floats.

    Raises: BadValue for anything else, for numbers that are not finite, text that cannot be encoded and deep nesting.
    """

    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, inner), default=0)

    try:
        value = json.loads(content, parse_int=lambda n: int(n) if len(n) < 19 else float(n))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # refuses infinity, and half a surrogate pair
        if depth(value) > DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH} levels")
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{what} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{what} holds {type(value).__name__}, not a JSON object")
    return value
