"""Adapter files in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

Loading is strict: a file that does not fit leaves the model unchanged. Files are not trusted: the safetensors library
(https://github.com/huggingface/safetensors) parses them, and names, dtypes, shapes and values are checked before the
model is touched. Methods that PEFT knows define their file layout in `to_peft`. The files of other methods hold every
trainable parameter under its path.

    base_model.model.<path>. ...        the parameters of a layer's adapter
    base_model.model.classifier. ...    a task head; in the files of prompts and prefixes, base_model.classifier. ...
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.errors import BadValue, LabError, NotFound, warn
from lora_lab.files import as_json, write_together
from lora_lab.methods import REGISTRY, attach, faults, method_from
from lora_lab.methods.base import OURS, Method, Report
from lora_lab.methods.faults import Refused
from lora_lab.methods.peft import KNOWN, check_supported, misread_by_peft
from lora_lab.methods.targets import HEADS, PREFIX

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
MOST = 512 * 1024  # byte limit of configs and headers; 1,120 tensors (rank 8 on all of Llama-70B) have a 0.2 MB header
FLOATS = ("F64", "F32", "F16", "BF16")
DECISIVE = (  # fields of a config that must agree with the header, from which lora_lab takes the method
    "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern",
    "feedforward_modules", "num_virtual_tokens", "token_dim", "num_layers", "d_initial", "projection_prng_key",
    "projection_seed", "save_projection", "u", "weight_tying",
)  # fmt: skip
TRAINING_ONLY = ("dropout", "init", "lr_ratio", "freeze_a")  # options that may differ when a run starts from an adapter


# ---- saving and loading


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Save the adapter and head of `model` to the folder `path`, and return the folder.

    The file holds all trainable parameters. After full fine-tuning, the file holds the whole model. An existing adapter
    is replaced atomically.
    Raises: BadValue if the model has no adapter, if the adapter is merged or its strength is not 1, if a value is not
    finite, if other parameters train, or if the folder cannot be written to.
    """
    model = attach.inside(model)
    report, folder = attach.report_of(model), Path(path)
    for _, part in attach.adapter_layers(model):
        if part.merged:
            raise BadValue("the adapter is merged into its base, so it cannot be saved: call unmerge(model) first")
        if (strength := part.strength) != 1:
            raise BadValue(f"the adapter is at strength {strength:g}: leave the at_strength block before saving it")
    own = attach.adapter_parameters(model)
    others = (name for name, p in model.named_parameters() if p.requires_grad and id(p) not in own)
    if not report.method.trains_base and (name := attach.plain_path(next(others, ""))):
        raise BadValue(f"{name} is trainable, but {report.method.name}'s file cannot hold it: freeze it before saving")
    tensors, metadata, config = file_of(model, report)
    for key, t in tensors.items():
        if not t.isfinite().all():
            raise BadValue(f"{key} has NaN or infinite values, so nothing was saved: train again with a lower lr")
    warn(misread_by_peft(model, config))
    weights = safetensors_bytes({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata)
    write_together(folder, {WEIGHTS: weights, CONFIG: as_json(config)})
    return folder


def file_of(model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Return the tensors and metadata of `adapter_model.safetensors`, and the contents of `adapter_config.json`.

    PEFT ignores the metadata, which holds values that have no field in its config. The model may be on the meta device.
    """
    method, heads, name = report.method, [head for head, _ in report.heads], type(model).__name__
    header = {"method": method.settings(), "base_fingerprint": report.base_fingerprint}
    task: str | None = "SEQ_CLS" if heads else "FEATURE_EXTRACTION"  # selects PEFT's class
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        task = "CAUSAL_LM"
    elif name.endswith("ForConditionalGeneration") and getattr(model.config, "is_encoder_decoder", False):
        task = "SEQ_2_SEQ_LM"
    elif heads and name.endswith("ForTokenClassification"):
        task = "TOKEN_CLS"
    elif heads and name.endswith("ForQuestionAnswering"):
        task = "QUESTION_ANS"
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        task = None  # PEFT's classes for tasks pass `inputs_embeds`, which models of images and sounds refuse
    defaults = ["classifier", "score"] if task in ("SEQ_CLS", "TOKEN_CLS") else []  # as PEFT writes it
    common = {
        "task_type": task,
        "modules_to_save": list(dict.fromkeys([*heads, *defaults])) or None,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "inference_mode": True,
    }
    tensors, config = method.to_peft(model)
    metadata = {"format": "pt", "lora_lab": json.dumps(header)}
    return tensors | _head_tensors(model, method.head_prefix), metadata, config | common


def _head_tensors(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return {key in the file: tensor} for the trained heads."""
    heads = [(name, head) for name, head in attach.adapter_layers(model) if isinstance(head, attach.TrainedCopy)]
    return {f"{prefix}{name}.{key}": value for name, h in heads for key, value in h.trained.state_dict().items()}


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path`, saved by lora_lab or PEFT, to a model that has no adapter.

    The adapter is first checked against a copy of the model on the meta device. Loading does not change the state of
    torch's random number generators, and any error leaves the model unchanged.
    Raises: NotFound for a missing file or layer; BadValue for a model that cannot be copied, or for a file that is
    truncated, is not safetensors, was made for another base, or has missing, unexpected or wrongly shaped tensors.
    """
    file, method = open_for(model, path)
    devices = [p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")]
    kind = devices[0].type if devices else "cuda"  # unused if there are no devices
    rng = torch.random.fork_rng({d for d in devices if d.type == kind}, device_type=kind)
    with attach.restore_on_error(model), rng:
        shapes = attach.shapes_of(model)
        report = method.attach(shapes, to_fill=True)
        tensors, _, expected = file_of(shapes, report)
        if "method" in file.own:  # the header repeats the config, and both must agree
            for option in DECISIVE:
                if file.config.get(option) != expected.get(option):
                    message = f"{CONFIG} in {path} says {option}={file.config.get(option)!r}, but the adapter was saved"
                    raise Refused(f"{message} with {expected.get(option)!r}", faults.SETTINGS)
        else:
            # Without a task_type, PEFT saves the head of an existing classifier only if modules_to_save names it.
            saved = tuple(file.config.get("modules_to_save") or ())
            for head in (head for head, _ in report.heads if not head.endswith(saved)):
                prefix = f"{method.head_prefix}{head}."
                if not any(key in file for key in tensors if key.startswith(prefix)):
                    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}
                    if head in getattr(model, "lora_lab_random_heads", ()):
                        message = f"neither the adapter in {path} nor the checkpoint has the head '{head}'"
                        warn(f"{message}, so it is random: train it before you use its output")
        _check_shapes(file, tensors, _copied(file, report, model))
        attached = method.attach(model, to_fill=True)
        report = replace(report, base_fingerprint=attached.base_fingerprint)
        model.lora_lab_report = report  # type: ignore[assignment]
        _fill(model, report, file)
    return attach.report_of(model)


def attach_from(method: Method, model: nn.Module, path: str | Path) -> Report:
    """Attach `method` to a plain model and initialize it from the adapter in the folder `path`, except for the head.

    Raises: BadValue if the adapter has another method, rank, alpha or target. For other errors, see `load_adapter`. Any
    error leaves the model unchanged.
    """
    file, saved = open_for(model, path)
    new, old = ({k: v for k, v in m.settings().items() if k not in TRAINING_ONLY} for m in (method, saved))
    for name in new | old:
        if new.get(name) != old.get(name):
            message = f"the adapter in {path} has {name} {old.get(name)!r}, but this run has {new.get(name)!r}"
            raise BadValue(f"{message}: start from an adapter with the same settings")
    with attach.restore_on_error(model):
        report = method.attach(model, to_fill=True)
        heads = tuple(f"{method.head_prefix}{name}." for name, _ in report.heads)
        tensors = file_of(model, report)[0]
        needed = {key: t for key, t in tensors.items() if not key.startswith(heads)}
        _check_shapes(file, needed, {key for key in file if key.startswith(heads)})
        _fill(model, report, tensors | {key: file[key] for key in needed})
    return report


@torch.no_grad()
def _fill(model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
    report.method.fill(model, tensors)
    for key, value in _head_tensors(model, report.method.head_prefix).items():
        if key in tensors:  # otherwise, the model keeps its own head
            value.copy_(tensors[key])


def open_for(model: nn.Module, path: str | Path) -> tuple[AdapterFile, Method]:
    """Return the adapter file in the folder `path`, and its method for a plain `model`. Raises: see `load_adapter`."""
    attach.refuse_adapted(model)
    file = AdapterFile(path)
    config = file.config
    parts = {key.removeprefix(PREFIX).split(".")[0] for key in file if key.startswith(PREFIX)}
    body = getattr(model, getattr(model, "base_model_prefix", "") or "-", None)
    if parts and isinstance(body, nn.Module) and all(hasattr(body, p) and not hasattr(model, p) for p in parts):
        message = f"the adapter in {path} was made for {type(body).__name__}, the model without its head"
        raise Refused(f"{message}: load that model with load_model(..., body=True)", faults.WRONG_BASE)
    if body is None and getattr(model, "base_model_prefix", "") in parts:
        message = f"the adapter in {path} was made for a model with a head around this {type(model).__name__}"
        raise Refused(f"{message}: load that model, for example with load_model(..., num_labels=2)", faults.WRONG_BASE)
    expected, actual = file.own.get("base_fingerprint"), attach.fingerprint(model)
    if expected and actual and expected != actual:  # "" for a base in fp16
        message = f"the adapter in {path} was trained on another base model: its weights differ from those of this one"
        raise Refused(message, faults.WRONG_BASE)
    with readable(path):
        methods = {method.peft_type: method for method in REGISTRY.values() if method.peft_type}
        kind = config.get("peft_type")
        if kind != OURS and kind not in methods:
            names = ", ".join(methods)
            raise BadValue(f"peft_type is {kind!r}; only adapters of these kinds can be loaded: {names}")
        if others := [name for name in config.get("modules_to_save") or () if name.split(".")[0] not in HEADS]:
            message = f"the adapter was trained with modules_to_save={others}, which lora_lab does not train"
            raise BadValue(f"{message}: merge the adapter in PEFT first")
        check_supported(config)
        if "method" in file.own:
            return file, method_from(file.own["method"])
        if kind == OURS:
            raise BadValue("the adapter file has lost its header, which named its method: save it again")
        if unknown := sorted(option for option, value in config.items() if value and option not in KNOWN):
            # Options of a newer PEFT: ignore them, as PEFT itself does.
            message = f"the config of the adapter in {path} sets {', '.join(unknown)[:500]}"
            warn(f"{message}, which lora_lab does not know; if it changes what PEFT computes, outputs will differ here")
        return file, methods[kind].from_peft(config, model)


# ---- checks


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Within the block, convert any error caused by the settings of the adapter in `path` to a LabError."""
    try:
        yield
    except LabError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, re.error) as error:
        message = f"the config of the adapter in {path} is damaged: {type(error).__name__}: {error}"
        raise Refused(message, faults.SETTINGS) from error


def _check_shapes(file: AdapterFile, expected: Mapping[str, Tensor], ignored: set[str]) -> None:
    """Check that a file has the keys and shapes that the model needs, and only finite values. Raises: Refused."""
    keys = file.shapes.keys() - ignored
    missing, unexpected = sorted(expected.keys() - keys), sorted(keys - expected.keys())
    if missing or unexpected:
        message = f"lacks {len(missing)} of {len(expected)} tensors, such as {missing[0]}" if missing else ""
        message = message or f"has {len(unexpected)} unexpected tensors, such as {unexpected[0]}"
        same = {key.replace("model.", "") for key in missing} == {key.replace("model.", "") for key in unexpected}
        renamed = same or (unexpected and not any(known_key(key) for key in unexpected))
        fault = faults.RENAMED if renamed else faults.MISSING if missing else faults.TOO_MANY
        raise Refused(f"the adapter in {file.path} {message}", fault)
    for key, tensor in expected.items():
        actual, needed = file.shapes[key], tuple(tensor.shape)
        if actual != needed:
            dim = 1 if key.endswith(("lora_A.weight", "lora_embedding_A")) else 0  # the one that is not the rank
            only_rank = ".lora_" in key and len(actual) == len(needed) == 2 and actual[dim] == needed[dim]
            message = f"the adapter in {file.path}: {key} has shape {actual}, but this model needs {needed}"
            raise Refused(message, faults.SETTINGS if only_rank else faults.WRONG_BASE)
    file.check_finite()


def _copied(file: AdapterFile, report: Report, model: nn.Module) -> set[str]:
    """Return the keys of frozen tensors that PEFT has copied to a file in case the vocabulary has grown.

    Raises: BadValue if a copied tensor differs from the model's own tensor.
    """
    keys = set[str]()
    for path in [p.site.module for p in report.placements if p.site.kind == "embedding" or p.site.role == "head"]:
        for end in ("base_layer.weight", "base_layer.bias", "weight", "bias"):
            if (key := f"{PREFIX}{path}.{end}") in file:
                frozen, copied = getattr(model.get_submodule(path), end.removeprefix("base_layer."), None), file[key]
                # A base in bf16 is the same base as in fp32: compare in the dtype of either.
                if frozen is None or not any(
                    copied.to(frozen.device, dtype).equal(frozen.to(dtype)) for dtype in (frozen.dtype, copied.dtype)
                ):
                    raise BadValue(f"the adapter includes its own {path}, which differs from that of this base")
                keys.add(key)
    return keys


_FOREIGN = r"module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|default|lora_down|lora_up"


def known_key(key: str) -> bool:
    """Return whether PEFT or lora_lab may have written a key. Their keys contain no names of wrappers or adapters."""
    foreign = re.search(rf"(^|\.)({_FOREIGN})(\.|$)", key)
    return key == "prompt_embeddings" or (key.startswith("base_model.") and not foreign)


# ---- reading


class AdapterFile(Mapping[str, Tensor]):
    """An adapter folder: its checked config and header, and a mapping from keys to tensors, which are read when needed.

    config           The contents of `adapter_config.json`.
    own              The method and the base model's fingerprint from lora_lab's header, or {} in PEFT's files.
    shapes, dtypes   The shape and the dtype of each tensor. The names of dtypes are those of safetensors.
    size             The size of the weights file in bytes.
    Raises: NotFound for a missing file, and BadValue for an invalid file.
    """

    def __init__(self, path: str | Path) -> None:
        folder = self.path = Path(path)
        with readable(path):
            self.config = read_config(folder)
            old = folder / OLD_WEIGHTS
            if old.is_file() and not (folder / WEIGHTS).exists():
                size = old.stat().st_size
                message = f"{folder} has no {WEIGHTS}, only {OLD_WEIGHTS} of {size:,} bytes, a pickle (not opened)"
                raise Refused(message, faults.EMPTY if size < 1000 else faults.PICKLE)  # a pickle of {} takes 443 bytes
            start = _read(folder, WEIGHTS, 9)
            self._state = _state_of(folder / WEIGHTS)
            self.size, length = self._state[0], int.from_bytes(start[:8], "little")
            # A pickle begins with 0x80 and its protocol number. A header's size may look the same, but a brace follows.
            pickled = start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04"))
            if pickled and start[8:] != b"{":
                raise self._refused("it is a pickle, which could run arbitrary code (not opened)", faults.PICKLE)
            if MOST + self.size // 64 < length <= self.size:  # parsing takes several times its size in memory
                raise self._refused(f"its header of {length:,} bytes is too long", faults.DAMAGED)
            try:
                with safe_open(folder / WEIGHTS, "pt") as file:
                    slices = {key: file.get_slice(key) for key in file.keys()}
                    header = (file.metadata() or {}).get("lora_lab", "{}")
            except (SafetensorError, OSError, RuntimeError) as error:
                cut = "fully covered" in str(error) or self.size - 8 < length < 100_000_000
                fault = faults.TRUNCATED if cut else faults.DAMAGED
                raise self._refused(str(error), fault if self.size else faults.EMPTY) from error
            self.dtypes = {key: str(tensor.get_dtype()) for key, tensor in slices.items()}
            self.shapes: dict[str, tuple[int, ...]] = {key: tuple(t.get_shape()) for key, t in slices.items()}
            if not slices:
                raise self._refused("it has no tensors", faults.EMPTY)
            self.own = parse_json(header, f"lora_lab's part of the header of {folder / WEIGHTS}")

    def _refused(self, why: str, fault: str) -> Refused:
        return Refused(f"{self.path / WEIGHTS} is truncated or not a safetensors file: {why}", fault)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.shapes:
            raise KeyError(key)
        with self._open() as file:  # reopened each time: while a file is open, pages that were read stay in memory
            return file.get_tensor(key)  # type: ignore[no-any-return]

    def _open(self) -> Any:
        if _state_of(self.path / WEIGHTS) != self._state:
            raise self._refused("it changed while it was read", faults.DAMAGED)  # if truncated, reading would crash
        return safe_open(self.path / WEIGHTS, "pt")

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def check_finite(self) -> None:
        """Check, one chunk at a time, that all tensors hold only finite floating-point values. Raises: Refused."""
        with self._open() as file:
            for key, dtype in self.dtypes.items():
                subject = f"the adapter in {self.path}: {key}"
                if dtype not in FLOATS:
                    raise Refused(f"{subject} has dtype {dtype}, not one of {', '.join(FLOATS)}", faults.WRONG_DTYPE)
                if not all(chunk.isfinite().all() for chunk in file.get_tensor(key).flatten().split(1 << 18)):
                    raise Refused(f"{subject} has NaN or infinite values", faults.NOT_FINITE)


def _state_of(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_ino, stat.st_mtime_ns


def read_config(folder: Path) -> dict[str, Any]:
    """Read the JSON object in `adapter_config.json`. Raises: NotFound; BadValue, see `parse_json`."""
    content = _read(folder, CONFIG, MOST + 1)
    if len(content) > MOST:
        raise BadValue(f"{folder / CONFIG} is larger than {MOST // 1024} KiB, which is too large for a config")
    return parse_json(content, str(folder / CONFIG))


def _read(folder: Path, name: str, limit: int) -> bytes:
    """Read the first bytes of a regular file. Refuse pipes and devices, which may block. Raises: NotFound, BadValue."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"{folder} is not an adapter: it has no {name}; pass a folder that has one")
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise BadValue(f"{path} cannot be read: {error}") from error


def parse_json(content: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object, which error messages call `what`.

    Raises: BadValue for any other JSON value, for non-finite numbers, or for text that cannot be encoded.
    """
    try:
        value = json.loads(content)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # rejects infinity and lone surrogates
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{what} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{what} holds {type(value).__name__}, not a JSON object")
    return value
