"""Adapter files in the layout that PEFT reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

Loading is strict: a file that does not fit leaves the model as it was. A file may come from a stranger: the safetensors
library (https://github.com/huggingface/safetensors) parses it, and names, dtypes, shapes and values are checked before
the model is touched. How a method's tensors are laid out is the method's affair (`to_peft`).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.errors import BadValue, LabError, LabWarning, NotFound, printable
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
from lora_lab.methods.peft import KNOWN, PREFIX, check_saved, common_config, head_prefixes, left_to_base

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
OURS = "LORA_LAB"  # peft_type of the methods that PEFT lacks
MOST = 512 * 1024  # bytes of a config or a header; a header of 1,120 tensors (rank 8 on all of Llama-70B) has 0.2 MB
DEPTH, WIDTH = 16, 4096  # of a config: PEFT's have 3 levels, and 560 names where one lists every module of Llama-70B
FLOATS = ("F64", "F32", "F16", "BF16")
TRAINING_ONLY = ("dropout", "init", "lr_ratio", "freeze_a")  # they may differ where a run starts from an adapter
Shapes = Mapping[str, tuple[int, ...]]  # by key


# ---- saving and loading


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Write the adapter and the head that `model` carries into the folder `path`, and return that folder.

    The file holds what trains: after full fine-tuning, the whole model. An adapter that is already there is replaced
    as a whole.
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
    own = {"method": report.method.settings(), "base_fingerprint": report.base_fingerprint}
    metadata = {"format": "pt", "lora_lab": json.dumps(own)}
    if report.method.peft_type:
        tensors, config = report.method.to_peft(model, report)
        return tensors, metadata, config
    config = {"peft_type": OURS, "method": report.method.settings(), **common_config(model, report)}
    return _trained(model, report), metadata, config


def _trained(model: nn.Module, report: Report) -> dict[str, Tensor]:
    """Every number that trains, by its path in the model; that of a head leads to where the base has its own."""
    found: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            head = any(name.startswith(f"{head}.trained.") for head, _ in report.heads)
            found[PREFIX + (name.replace(".trained.", ".", 1) if head else name)] = p
    return found


@torch.no_grad()
def _fill(model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
    if report.method.peft_type:
        report.method.fill(model, report, tensors)
    else:
        for key, parameter in _trained(model, report).items():
            parameter.copy_(tensors[key])


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path`, saved here or by PEFT, to a model that carries none.

    It is tried on a copy of the model without memory (shapes only) first, and torch's random numbers go on as if none
    had been drawn. After any error the model is as it was.
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
            expected = {key: tuple(t.shape) for key, t in tensors.items()}
            ours = "method" in file.own  # such a file says everything twice, and both must agree
            for option in method.decisive if ours else ():
                if file.config.get(option) != written.get(option):
                    said = f"{CONFIG} in {path} says {option}={file.config.get(option)!r}"
                    but = f"but the adapter was saved with {written.get(option)!r}"
                    raise Refused(f"{said}, {but}", faults.SETTINGS)
            left = set() if ours else left_to_base(file.config, report, expected, file.tensors.shapes)
        copies = method.ignored(report)
        there = {key: shape for key, shape in file.tensors.shapes.items() if key not in copies}
        check_shapes({key: shape for key, shape in expected.items() if key not in left}, there, path)
        file.tensors.check_finite()
        with restore_on_error(model), _rng_kept(model):
            attached = method.attach_empty(model)
            report = replace(report, base_fingerprint=attached.base_fingerprint)
            model.lora_lab_report = report  # type: ignore[assignment]
            _fill(model, report, file.tensors)
    return report


def attach_from(method: Method, model: nn.Module, path: str | Path) -> Report:
    """Attach `method` to a plain model and start it from the adapter in the folder `path`; the head stays the model's.

    Raises: as `load_adapter`; BadValue for an adapter of another method, rank, alpha or target. The model is then as it
    was.
    """
    with readable():
        file, saved = _opened(model, path)
        ours, theirs = ({k: v for k, v in m.settings().items() if k not in TRAINING_ONLY} for m in (method, saved))
        if ours != theirs:
            name = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
            said = f"the adapter in {path} has {name} {theirs.get(name)!r} and this run {ours.get(name)!r}"
            raise BadValue(f"{said}: start from an adapter of the same settings")
        file.tensors.check_finite()
        with restore_on_error(model):
            report = method.attach(model)
            heads = tuple(prefix for name, _ in report.heads for prefix in head_prefixes(name))
            own = file_of(model, report)[0]
            needed = {key: tuple(t.shape) for key, t in own.items() if not key.startswith(heads)}
            check_shapes(needed, {k: s for k, s in file.tensors.shapes.items() if not k.startswith(heads)}, path)
            _fill(model, report, own | {key: file.tensors[key] for key in needed})
    return report


def method_saved_in(path: str | Path, model: nn.Module) -> Method:
    """The method of the adapter in the folder `path`, for a plain model. Raises: as `load_adapter`."""
    return method_in(AdapterFile(path), model)


def _opened(model: nn.Module, path: str | Path) -> tuple[AdapterFile, Method]:
    """The adapter's file and its method, for a model that carries none and may be its base. Raises: as the callers."""
    refuse_adapted(model)
    file = AdapterFile(path)
    parts = {key.removeprefix(PREFIX).split(".")[0] for key in file.tensors if key.startswith(PREFIX)}
    body = getattr(model, getattr(model, "base_model_prefix", "") or "-", None)
    if parts and isinstance(body, nn.Module) and all(hasattr(body, p) and not hasattr(model, p) for p in parts):
        said = f"the adapter in {path} was made for {type(body).__name__}, the model without its head"
        raise Refused(f"{said}: load that with load_model(..., body=True)", faults.WRONG_BASE)
    made_for, here = file.own.get("base_fingerprint"), fingerprint(model)
    if made_for and here and made_for != here:  # "" for a base in fp16
        said = f"the adapter in {path} was trained on another base model: its weights differ from this one's"
        raise Refused(said, faults.WRONG_BASE)
    return file, method_in(file, model)


def method_in(file: AdapterFile, model: nn.Module) -> Method:
    """The method that our header names, or else the one that PEFT's config describes. Raises: BadValue, NotFound."""
    with readable(file.path):
        kind, known = file.config.get("peft_type"), dict[str, type[Method]]()
        for one in REGISTRY.values():
            if one.peft_type:
                known.setdefault(one.peft_type, one)  # LoRA before LoRA-XS, whose file is one of LoRA
        if kind != OURS and kind not in known:
            names = ", ".join(known)
            raise BadValue(f"peft_type is {kind!r}; only adapters of these kinds can be loaded: {names}")
        check_saved(file.config)
        if kind != OURS:
            known[kind].check_peft(file.config)
        if "method" in file.own:
            return method_from(file.own["method"])
        if kind == OURS:
            raise BadValue("the adapter's file has lost its header, which named its method: save it again")
        unknown = sorted(option for option, value in file.config.items() if value and option not in KNOWN)
        if unknown:  # options of a newer PEFT: like PEFT itself, go on without them
            said = _sentence(f"the config of the adapter in {file.path} sets {', '.join(unknown)}")
            more = "which lora_lab does not know; if it changes what PEFT computes, the outputs differ here"
            warnings.warn(f"{said}, {more}", LabWarning, stacklevel=4)
        return known[kind].from_peft(file.config, model)


def _rng_kept(model: nn.Module) -> AbstractContextManager[None]:
    """Restore torch's random generators after the block: a file brings its own values."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")  # without devices it is not used
    return torch.random.fork_rng([one for one in devices if one.type == kind], device_type=kind)  # type: ignore[no-any-return]


# ---- what is wrong with it


@contextmanager
def readable(path: str | Path | None = None) -> Iterator[None]:
    """Raise what is refused in the block as one short sentence of printable characters.

    path   of an adapter whose settings the block reads: whatever error they cause is a Refused, too
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


def check_shapes(expected: Shapes, there: Shapes, path: str | Path) -> None:
    """Check a file's tensors, by key and shape, against those that the model needs. Raises: Refused."""
    missing, unexpected = sorted(expected.keys() - there.keys()), sorted(there.keys() - expected.keys())
    if missing or unexpected:
        said = f"lacks {len(missing)} of {len(expected)} tensors, first {(missing or [''])[0]}"
        said = said if missing else f"has {len(unexpected)} tensors that fit nothing, first {unexpected[0]}"
        same = missing and {plain_key(key) for key in missing} == {plain_key(key) for key in unexpected}
        renamed = same or (unexpected and not any(known_key(key) for key in unexpected))
        other = faults.MISSING if missing else faults.TOO_MANY
        raise Refused(f"the adapter in {path} {said}", faults.RENAMED if renamed else other)
    for key, needs in expected.items():
        if (has := there[key]) != needs:
            rank = 0 if key.endswith(("lora_A.weight", "lora_embedding_A")) else 1
            only_rank = ".lora_" in key and len(has) == len(needs) == 2 and has[1 - rank] == needs[1 - rank]
            said = f"the adapter in {path}: {key} has shape {has}, this model needs {needs}"
            raise Refused(said, faults.SETTINGS if only_rank else faults.WRONG_BASE)


_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "default")
_KOHYA = {"lora_down": "lora_A", "lora_up": "lora_B"}


def known_key(key: str) -> bool:
    """Whether PEFT or lora_lab writes such a key: with its prefix, without a wrapper's mark or an adapter's name."""
    marked = any(part in _WRAPPERS or part in _KOHYA for part in key.split("."))
    return key == "prompt_embeddings" or (key.startswith("base_model.") and not marked)


def plain_key(key: str) -> str:
    """The key without prefixes and wrappers' marks, in PEFT's words: equal for two names of one tensor."""
    parts = (part for part in key.split(".") if part not in (*_WRAPPERS, "base_model", "model"))
    return ".".join(_KOHYA.get(part, part) for part in parts)


# ---- reading


class AdapterFile:
    """An adapter's folder as read, none of it trusted further than it has been checked.

    config    adapter_config.json
    tensors   those of adapter_model.safetensors, read when asked for
    own       our part of its header: the method and the base's fingerprint; {} in a file of PEFT's
    Raises: NotFound for a missing file; BadValue for one that is not what it should be.
    """

    def __init__(self, path: str | Path) -> None:
        folder = self.path = Path(path)
        with readable(path):
            self.config, old = read_config(folder), folder / OLD_WEIGHTS
            if old.is_file() and not (folder / WEIGHTS).exists():
                size = old.stat().st_size
                said = f"{folder} holds no {WEIGHTS}, only {OLD_WEIGHTS} of {size:,} bytes, a pickle (not opened)"
                raise Refused(said, faults.EMPTY if size < 1000 else faults.PICKLE)  # a pickle of {} has 443 bytes
            self.tensors = TensorFile(folder)
            ours = self.tensors.metadata.get("lora_lab", "{}")
            self.own = parse_json(ours, f"lora_lab's part of the header of {folder / WEIGHTS}")


class TensorFile(Mapping[str, Tensor]):
    """The tensors of an adapter's folder by key. Each is mapped into memory when asked for: copy what you keep.

    dtypes, shapes   of each tensor; dtypes as safetensors names them
    metadata         the strings in the header
    size             bytes of the file
    Raises: NotFound; Refused for a file that is not whole, not safetensors, or a pickle, which is not opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, plain_file(folder, WEIGHTS)
        with self._path.open("rb") as file:
            start, self._state = file.read(9), self._path.stat()
        self.size, length = self._state.st_size, int.from_bytes(start[:8], "little")
        # A pickle begins with 0x80 and its protocol. So does a header of 640 bytes, but then comes its brace.
        pickled = start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04"))
        too_long = f"its header would have {length:,} bytes, too many for a file of {self.size:,}"
        for wrong, why, fault in (
            (not self.size, "it has 0 bytes", faults.EMPTY),
            (pickled and start[8:] != b"{", "it is a pickle, which could run any program (not opened)", faults.PICKLE),
            (length >= 100_000_000, too_long, faults.DAMAGED),  # the start of another kind of file, read as a length
            (length > self.size - 8, too_long, faults.TRUNCATED),
            (length > MOST + self.size // 64, too_long, faults.DAMAGED),  # parsed, it takes several times its bytes
        ):
            if wrong:
                raise self._refused(why, fault)
        self._map()
        slices = {key: self._file.get_slice(key) for key in self._file.keys()}
        self.dtypes = {key: str(one.get_dtype()) for key, one in slices.items()}
        self.shapes: dict[str, tuple[int, ...]] = {key: tuple(one.get_shape()) for key, one in slices.items()}
        self.metadata: dict[str, str] = self._file.metadata() or {}
        for key, shape in self.shapes.items():
            if not key.isprintable() or len(key) > 512 or 0 in shape:
                raise self._refused(f"no adapter has a tensor {key[:60]!r} of shape {shape}", faults.DAMAGED)
        if not slices:
            raise self._refused("it holds no tensor at all", faults.EMPTY)

    def _map(self) -> None:
        """Map the file, or map it anew: pages that were read stay in memory as long as it is mapped."""
        try:
            self._file: Any = safe_open(self._path, "pt")
            self._read = 0
        except (SafetensorError, OSError, RuntimeError) as error:
            cut = "fully covered" in str(error) or "IncompleteBuffer" in str(error)  # as older versions say it
            raise self._refused(str(error), faults.TRUNCATED if cut else faults.DAMAGED) from error

    def _refused(self, why: str, fault: str) -> Refused:
        return Refused(f"{self.folder / WEIGHTS} is truncated or not a safetensors file: {why}", fault)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.shapes:
            raise KeyError(key)
        now, then = plain_file(self.folder, WEIGHTS).stat(), self._state
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (then.st_ino, then.st_size, then.st_mtime_ns):
            raise self._refused("it changed while it was read", faults.DAMAGED)  # cut short, it would end the process
        if self._read > max(2**20, self.size // 32):
            self._map()
        tensor: Tensor = self._file.get_tensor(key)
        self._read += tensor.nbytes
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def check_finite(self) -> None:
        """Check that every tensor is of floats, all of them finite; a piece at a time. Raises: Refused."""
        for key, dtype in self.dtypes.items():
            said = f"the adapter in {self.folder}: {key} has"
            if dtype not in FLOATS:
                raise Refused(f"{said} dtype {dtype}; adapters are {', '.join(FLOATS)}", faults.WRONG_DTYPE)
            if not all(piece.isfinite().all() for piece in self[key].flatten().split(1 << 18)):
                raise Refused(f"{said} NaN or infinite values", faults.NOT_FINITE)


def plain_file(folder: Path, name: str) -> Path:
    """The path of a file of an adapter's folder, with links followed.

    Raises: NotFound; BadValue for what cannot be read, is no plain file (a pipe would wait forever, a device never end)
    or lies outside. In the hub's cache, links from MODEL/snapshots/REVISION to MODEL/blobs are allowed.
    """
    place = folder / name
    try:
        path, home = place.resolve(strict=True), folder.resolve()
        plain = path.is_file()
        if plain:
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{folder} is not an adapter: it holds no {name}") from error
    except (OSError, RuntimeError, ValueError) as error:  # no permission, links in a circle, a name with a zero byte
        raise BadValue(f"{place} cannot be read: {error}") from error
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not plain or not (path.is_relative_to(home) or path.is_relative_to(blobs)):
        raise Refused(f"{place} is not a plain file in its folder, but {path}", faults.OUTSIDE)
    return path


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A JSON object from a file of an adapter's folder. Raises: as `plain_file` and `parse_json`."""
    with plain_file(folder, name).open("rb") as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise BadValue(f"{folder / name} is larger than {MOST // 1024} KiB, which no config is")
    return parse_json(content, str(folder / name))


def parse_json(content: bytes | str, what: str) -> dict[str, Any]:
    """One JSON object; `what` names it in errors.

    Raises: BadValue for anything else, for a name that occurs twice in an object, numbers that are not finite, more
    than DEPTH levels or WIDTH entries, and text that cannot be encoded. Integers of over 18 digits become floats.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice in one object")
        return found

    def check_size(value: Any, levels: int = DEPTH) -> None:
        if isinstance(value, dict | list):
            if not levels or len(value) > WIDTH:
                raise ValueError(f"it is nested deeper than {DEPTH} levels or has more than {WIDTH:,} entries in one")
            for inner in value.values() if isinstance(value, dict) else value:
                check_size(inner, levels - 1)

    try:
        value = json.loads(content, object_pairs_hook=unique, parse_int=lambda n: int(n) if len(n) < 19 else float(n))
        check_size(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # refuses infinity, and half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{what} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{what} holds {type(value).__name__}, not a JSON object")
    return value
