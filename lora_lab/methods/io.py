"""Adapter files in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

Loading is strict: a file that does not fit leaves the model unchanged. Files are not trusted: the safetensors library
(https://github.com/huggingface/safetensors) parses them, and names, dtypes, shapes and values are checked before the
model is touched. For each method's tensors, see its `to_peft`.

    base_model.model.<path>. ...        the parameters of a layer's adapter
    base_model.model.classifier. ...    a task head; in prompt and prefix files, base_model.classifier. ...
"""

from __future__ import annotations

import inspect
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

from lora_lab.errors import BadValue, LabError, NotFound, warn
from lora_lab.files import as_json, as_path, write_together
from lora_lab.methods import REGISTRY, attach, method_from
from lora_lab.methods.base import OURS, Method, Report
from lora_lab.methods.peft import KNOWN, Refused, check_supported, misread_by_peft
from lora_lab.methods.targets import HEADS, PREFIX

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
MOST = 512 * 1024  # byte limit for configs and headers; 1,120 tensors (rank 8 on all of Llama-70B) have a 0.2 MB header
LARGE = 2**30  # files of at least this size are mapped, not read: their values are needed one tensor at a time
FLOATS = ("F64", "F32", "F16", "BF16")
MAY_DIFFER = {  # fields of our configs that do not follow from the header
    "peft_type", "method", "task_type", "modules_to_save", "base_model_name_or_path", "inference_mode",
    "fan_in_fan_out",
}  # fmt: skip
TRAINING_ONLY = ("dropout", "init", "lr_ratio", "freeze_a")  # options that may differ when a run starts from an adapter


# ---- saving and loading


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Save the adapter and head of `model` to the folder `path`, and return the folder.

    The file holds the adapter (all weights, after full fine-tuning). An existing adapter is replaced atomically.
    Raises: BadValue if the model has no adapter, if the adapter is merged or its strength is not 1, if a value is not
    finite, if other parameters are trained, or if the folder cannot be written to.
    """
    model = attach.inside(model)
    report, folder = attach.report_of(model), as_path(path)
    for _, part in attach.adapter_layers(model):
        if part.merged:
            raise BadValue("the adapter is merged into its base, so it cannot be saved: call unmerge(model) first")
        if (strength := part.strength) != 1:
            raise BadValue(f"the adapter is at strength {strength:g}: leave the at_strength block before saving it")
    own = attach.adapter_parameters(model)
    others = (name for name, p in model.named_parameters() if p.requires_grad and id(p) not in own)
    if not report.method.trains_base and (name := attach.plain_path(next(others, ""))):
        raise BadValue(f"{name} is trainable, but {report.method.name} files cannot hold it: freeze it before saving")
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
        task = None  # PEFT's task classes pass `inputs_embeds`, which image and audio models reject
    defaults = ["classifier", "score"] if task in ("SEQ_CLS", "TOKEN_CLS") else []  # PEFT's configs list them
    saved = list(dict.fromkeys([*heads, *defaults])) or None
    base = getattr(getattr(model, "config", None), "_name_or_path", None) or None
    common = {"task_type": task, "modules_to_save": saved, "base_model_name_or_path": base, "inference_mode": True}
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
    return _load(model, *open_for(model, path))


def attach_from(method: Method, model: nn.Module, path: str | Path) -> Report:
    """Attach `method` to a plain model and initialize it from the adapter in the folder `path`, except for the head.

    Raises: BadValue if the adapter's method, rank, alpha or targets differ. For other errors, see `load_adapter`.
    """
    file, saved = open_for(model, path)
    new, old = method.settings(), saved.settings()
    for name in new | old:
        here, there = new.get(name), old.get(name)
        if here != there and (name not in TRAINING_ONLY or "pissa" in (here, there)):  # PiSSA's file has twice the rank
            message = f"the adapter in {path} has {name} {there!r}, but this run has {here!r}"
            raise BadValue(f"{message}: start from an adapter with the same settings")
    return _load(model, file, method, with_head=False)


@torch.no_grad()
def _load(model: nn.Module, file: AdapterFile, method: Method, *, with_head: bool = True) -> Report:
    devices = [p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")]
    kind = devices[0].type if devices else "cuda"  # unused if there are no devices
    rng = torch.random.fork_rng({d for d in devices if d.type == kind}, device_type=kind)
    with attach.restore_on_error(model), rng:
        shapes = attach.shapes_of(model)
        report = method.attach(shapes, to_fill=True)
        needed, _, config = file_of(shapes, report)
        ignored = _copied(file, needed, model)
        ours, saved = "method" in file.own, tuple(file.config.get("modules_to_save") or ())
        repeated = sorted((config.keys() & file.config.keys()) - MAY_DIFFER) if ours and with_head else []
        for option in repeated:
            if file.config[option] != config[option]:  # the header repeats the config, and both must agree
                message = f"{CONFIG} in {file.path} says {option}={file.config[option]!r}, but the adapter was saved"
                raise Refused(f"{message} with {config[option]!r}", "damaged settings")
        for head, _ in report.heads:
            prefix = f"{method.head_prefix}{head}."
            keys = {key for key in needed if key.startswith(prefix)}
            # Without a task_type, PEFT saves the head of an existing classifier only if modules_to_save names it.
            if not with_head:
                ignored |= {key for key in file if key.startswith(prefix)}
            elif ours or head.endswith(saved) or keys & file.keys():
                continue
            elif head in getattr(model, "lora_lab_random_heads", ()):
                message = f"neither the adapter in {file.path} nor the checkpoint has the head '{head}'"
                warn(f"{message}, so it is random: train it before you use its output")
            needed = {key: tensor for key, tensor in needed.items() if key not in keys}
        _check_shapes(file, needed, ignored)
        report = method.attach(model, to_fill=True)
        values = {key: file[key] for key in needed}
        method.fill(model, values if with_head else file_of(model, report)[0] | values)  # the model keeps its own head
        for key, tensor in _head_tensors(model, method.head_prefix).items():
            if key in values:
                tensor.copy_(values[key])
    return report


def open_for(model: nn.Module, path: str | Path) -> tuple[AdapterFile, Method]:
    """Return the adapter file in `path`, and the method to attach to a plain `model`. Raises: see `load_adapter`."""
    attach.refuse_adapted(model)
    file = AdapterFile(path)
    config = file.config
    parts = {key.removeprefix(PREFIX).split(".")[0] for key in file if key.startswith(PREFIX)}
    prefix = getattr(model, "base_model_prefix", "") or "-"
    body = getattr(model, prefix, None)
    if parts and isinstance(body, nn.Module) and all(hasattr(body, p) and not hasattr(model, p) for p in parts):
        message = f"the adapter in {path} was made for {type(body).__name__}, the model without its head"
        raise Refused(f"{message}: load that model with load_model(..., body=True)", "wrong base")
    if body is None and prefix in parts:
        message = f"the adapter in {path} was made for a model with a head on top of this {type(model).__name__}"
        raise Refused(f"{message}: load that model, for example with load_model(..., num_labels=2)", "wrong base")
    expected, actual = file.own.get("base_fingerprint"), attach.fingerprint(model)
    if expected and actual and expected != actual:  # an fp16 model has the fingerprint ""
        message = f"the adapter in {path} was trained on another base model, whose weights differ from this model's"
        raise Refused(message, "wrong base")
    with readable(path):
        methods = {m.peft_type: m for m in reversed(REGISTRY.values()) if m.peft_type}  # your subclass of LoRA is last
        kind = config.get("peft_type")
        if kind != OURS and kind not in methods:
            message = f"peft_type is {kind!r}; only adapters of these kinds can be loaded: {', '.join(sorted(methods))}"
            raise Refused(message, "not supported" if isinstance(kind, str) else "damaged settings")
        known = {*HEADS, *(path.rpartition(".")[2] for path, _ in attach.heads_of(model))}
        heads = tuple(f"{PREFIX}{path}." for path, _ in attach.heads_of(model))
        modules = dict(model.named_modules())
        for key in (key for key in file if ".lora_" in key):
            layer = modules.get(key.removeprefix(PREFIX).partition(".lora_")[0])
            where = f"a {type(layer).__name__}" if layer is not None and not attach.site_kind(layer) else ""
            if where := "the task's head" if key.startswith(heads) else where:
                message = f"the adapter has LoRA in {where} ({key}), where lora_lab adds no LoRA"
                raise Refused(f"{message}: merge the adapter in PEFT first", "not supported")
        if others := [name for name in config.get("modules_to_save") or () if known.isdisjoint(name.split("."))]:
            message = f"the adapter was trained with modules_to_save={others}, which lora_lab does not train"
            raise Refused(f"{message}: merge the adapter in PEFT first", "not supported")
        check_supported(config)
        if "method" in file.own:
            try:
                return file, method_from(file.own["method"])
            except LabError as error:
                message = f"the method in the header of {file.path / WEIGHTS} does not fit this version of lora_lab"
                raise Refused(f"{message}: {error}", "damaged settings") from error
        if kind == OURS:
            raise BadValue("the adapter file has lost its header, which named its method: save it again")
        if unknown := sorted(option for option, value in config.items() if value and option not in KNOWN):  # newer PEFT
            message = f"the config of the adapter in {path} sets {', '.join(unknown)[:500]}"
            warn(f"{message}, which lora_lab does not know; if this changes PEFT's outputs, the outputs here differ")
        return file, methods[kind].from_peft(config, model)


# ---- checks


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """In the `with` block, turn any error caused by the settings of the adapter in `path` into a LabError."""
    try:
        yield
    except LabError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError, re.error) as error:
        message = f"the config of the adapter in {path} is damaged: {type(error).__name__}: {error}"
        raise Refused(message, "damaged settings") from error


def _check_shapes(file: AdapterFile, needed: Mapping[str, Tensor], ignored: set[str]) -> None:
    """Check that a file has the keys and shapes that the model needs, and only finite values. Raises: Refused."""
    keys = file.keys() - ignored
    missing, unexpected = sorted(needed.keys() - keys), sorted(keys - needed.keys())
    if missing or unexpected:
        message = f"lacks {len(missing)} of {len(needed)} tensors, such as {missing[0]}" if missing else ""
        message = message or f"has {len(unexpected)} unexpected tensors, such as {unexpected[0]}"
        same = {key.replace("model.", "") for key in missing} == {key.replace("model.", "") for key in unexpected}
        renamed = same or (unexpected and not any(known_key(key) for key in unexpected))
        fault = "keys renamed" if renamed else "tensors missing" if missing else "extra tensors"
        raise Refused(f"the adapter in {file.path} {message}", fault)
    for key, tensor in needed.items():
        actual, shape = tuple(file[key].shape), tuple(tensor.shape)
        if actual != shape:
            dim = 1 if key.endswith(("lora_A.weight", "lora_embedding_A")) else 0  # the dimension that is not the rank
            only_rank = ".lora_" in key and len(actual) == len(shape) == 2 and actual[dim] == shape[dim]
            message = f"the adapter in {file.path}: {key} has shape {actual}, but this model needs {shape}"
            raise Refused(message, "damaged settings" if only_rank else "wrong base")
    file.check_finite()


def _copied(file: AdapterFile, needed: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    """Return the keys of embeddings and output layers that PEFT copied to a file because the vocabulary may have grown.

    Raises: Refused if a copied tensor differs from the model's own tensor.
    """
    keys, own = set[str](), dict(model.named_parameters(remove_duplicate=False))
    for key in file:
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if key in needed or (frozen := own.get(name)) is None:
            continue
        copied, dtypes = file[key], (frozen.dtype, file[key].dtype)  # rounding to bf16 may make them differ
        if not any(copied.to(frozen.device, dtype).equal(frozen.to(dtype)) for dtype in dtypes):
            why = f"includes its own {name.rpartition('.')[0]}, which differs from that of this base"
            raise Refused(f"the adapter in {file.path} {why}: merge the adapter in PEFT first", "not supported")
        keys.add(key)
    return keys


_FOREIGN = r"module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|default|lora_down|lora_up"


def known_key(key: str) -> bool:
    """Return whether PEFT or lora_lab may have written a key. Their keys contain no names of wrappers or adapters."""
    foreign = re.search(rf"(^|\.)({_FOREIGN})(\.|$)", key)
    return key == "prompt_embeddings" or (key.startswith("base_model.") and not foreign)


# ---- reading


class AdapterFile(dict[str, Tensor]):
    """An adapter folder: its checked config and header, and the tensors by key.

    config   The contents of `adapter_config.json`.
    own      The method and the base model's fingerprint from lora_lab's header, or {} in PEFT's files.
    dtypes   The dtype of each tensor, as named by safetensors.
    size     The size of the weights file in bytes.
    Raises: NotFound for a missing file, and BadValue for an invalid file.
    """

    def __init__(self, path: str | Path) -> None:
        folder = self.path = as_path(path)
        weights, old = folder / WEIGHTS, folder / OLD_WEIGHTS

        def refused(why: str, fault: str) -> Refused:
            return Refused(f"{weights} is truncated or not a safetensors file: {why}", fault)

        with readable(path):
            self.config = read_config(folder)
            if old.is_file() and not weights.exists():
                size = old.stat().st_size
                message = f"{folder} has no {WEIGHTS}, only a pickle (not opened): {OLD_WEIGHTS} of {size:,} bytes"
                raise Refused(message, "empty file" if size < 1000 else "a pickle")  # a pickle of {} takes 443 bytes
            start = _read(folder, WEIGHTS, 9)
            self.size, length = weights.stat().st_size, int.from_bytes(start[:8], "little")
            # A pickle begins with 0x80 and its protocol number. A header's size may, too, but then a brace follows.
            pickled = start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04"))
            if pickled and start[8:] != b"{":
                raise refused("it is a pickle, which could run arbitrary code (not opened)", "a pickle")
            if MOST + self.size // 64 < length <= self.size:  # parsing takes several times a header's size in memory
                raise refused(f"its header of {length:,} bytes is too long", "damaged file")
            try:
                # If a mapped file is truncated while it is read, the process is killed, but large files must be mapped.
                with safe_open(weights, "pt", backend="pread" if self.size < LARGE else "mmap") as file:
                    self.dtypes = {key: str(file.get_slice(key).get_dtype()) for key in file.keys()}
                    self.update({key: file.get_tensor(key) for key in self.dtypes})
                    header = (file.metadata() or {}).get("lora_lab", "{}")
            except (SafetensorError, OSError, RuntimeError) as error:
                cut = "fully covered" in str(error) or self.size - 8 < length < 100_000_000
                fault = "truncated file" if cut else "damaged file"
                raise refused(str(error), fault if self.size else "empty file") from error
            if not self:
                raise refused("it has no tensors", "empty file")
            self.own = parse_json(header, f"lora_lab's part of the header of {weights}")

    def check_finite(self) -> None:
        """Check, one chunk at a time, that all tensors hold only finite floating-point values. Raises: Refused."""
        for key, dtype in self.dtypes.items():
            subject = f"the adapter in {self.path}: {key}"
            if dtype not in FLOATS and not key.endswith(".num_batches_tracked"):  # batch norm's integer counter
                raise Refused(f"{subject} has dtype {dtype}, not one of {', '.join(FLOATS)}", "not floating-point")
            if not all(chunk.isfinite().all() for chunk in self[key].flatten().split(1 << 18)):
                raise Refused(f"{subject} has NaN or infinite values", "NaN or infinity")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in `adapter_config.json`. Raises: NotFound; BadValue, see `parse_json`."""
    folder = as_path(path)
    content = _read(folder, CONFIG, MOST + 1)
    if len(content) > MOST:
        raise BadValue(f"{folder / CONFIG} is larger than {MOST // 1024} KiB, which is too large for a config")
    return parse_json(content, str(folder / CONFIG))


def _read(folder: Path, name: str, limit: int) -> bytes:
    """Read the first bytes of a regular file. Refuse pipes and devices, which may block. Raises: NotFound, BadValue."""
    path = folder / name
    try:
        if not path.exists() and not path.is_symlink():
            raise NotFound(f"{folder} is not an adapter: it has no {name}; pass a folder that has one")
        if not path.is_file():
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise BadValue(f"{path} cannot be read: {error}") from error


def parse_json(content: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object, which error messages call `what`.

    Raises: BadValue for any other JSON value, for non-finite numbers, or for strings that cannot be encoded.
    """
    try:
        value = json.loads(content)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # rejects infinity and lone surrogates
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{what} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{what} holds {type(value).__name__}, not a JSON object")
    return value
