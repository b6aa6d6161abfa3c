"""Adapter files, in the layout that PEFT reads and writes: `adapter_config.json` and `adapter_model.safetensors`.

    base_model.model.<path>.lora_A.weight         (rank, in)
    base_model.model.<path>.lora_B.weight         (out, rank)
    base_model.model.<path>.lora_embedding_A      (rank, vocabulary), likewise _B (d, rank), with no ".weight"
    base_model.model.classifier.weight | bias     the head

PEFT knows no slices of a fused layer. Our q and v of rank r on GPT-2's c_attn are exactly one of rank 2r:

    A = | A_q |  (2r, in)        B = | B_q  0  |  (3d, 2r)
        | A_v |                      | 0    0  |  <- the k rows
                                     | 0   B_v |

so the file holds more numbers than train. Loading is strict: a file that does not fit leaves the model as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lora_lab.accounting.sites import Site
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json, write_atomically, write_json
from lora_lab.layers import LoRAEmbedding, LoRALayer, LoRALinear, TrainedCopy, innermost, is_conv1d, out_by_in
from lora_lab.methods import method_from
from lora_lab.methods.attach import adapted_layers, fingerprint, heads_of, lora_layers, report_of, sites_of
from lora_lab.methods.base import Placement, Report
from lora_lab.methods.lora import LoRA
from lora_lab.methods.peft_config import check_kind, lora_from_peft, peft_from_lora

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DECISIVE = ("r", "lora_alpha", "use_rslora", "target_modules", "rank_pattern", "alpha_pattern")


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Write the model's adapter and trained head into the folder `path`; returns that folder.

    Raises: BadValue when the model carries no adapter, when it is merged or when the folder cannot be written.
    """
    report, folder = report_of(model), Path(path)
    if any(layer.merged for layer in lora_layers(model)):
        raise BadValue(
            "the adapter is merged into its base, whose own weights are then not there: unmerge(model) first"
        )
    # What PEFT's config has no field for travels in the weights' header, where PEFT does not look.
    own = {"method": report.method.settings(), "base_fingerprint": report.base_fingerprint}
    tensors = {key: t.detach().cpu().contiguous() for key, t in _tensors(model, report).items()}
    write_atomically(folder / WEIGHTS, safetensors_bytes(tensors, {"format": "pt", "lora_lab": json.dumps(own)}))
    write_json(folder / CONFIG, _config(model, report))
    return folder


def load_adapter(model: nn.Module, path: str | Path) -> Report:
    """Attach the adapter in the folder `path` to `model`, which carries none; ours and PEFT's load alike.

    Raises: NotFound for a missing file or a layer that the model lacks; BadValue for a file that is truncated, not
    safetensors, made for another base, or has missing, unexpected or wrongly shaped tensors. The model is then
    as it was.
    """
    config, tensors, own = _read(Path(path))
    sites = sites_of(model)
    _check_base(model, own, path)
    method = _method(config, own, sites, path)
    placements = method.place(sites)
    _check_config(config, own, _lora_config(model, method, placements), path)
    _drop_copied_base(model, tensors, placements)
    _check_shapes(_expected(placements, model), tensors, path)
    report = method.attach(model)
    _fill(model, tensors)
    return report


# ---- writing


def _tensors(model: nn.Module, report: Report) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, layers in _by_module(model).items():
        if isinstance(layers[0], LoRAEmbedding):
            tensors[f"{_PREFIX}{path}.lora_embedding_A"] = layers[0].lora_embedding_A
            tensors[f"{_PREFIX}{path}.lora_embedding_B"] = layers[0].lora_embedding_B
        else:
            a, b = _one_for_all_slices([layer for layer in layers if isinstance(layer, LoRALinear)])
            tensors[f"{_PREFIX}{path}.lora_A.weight"], tensors[f"{_PREFIX}{path}.lora_B.weight"] = a, b
    for name, _ in report.heads:
        head = model.get_submodule(name)
        assert isinstance(head, TrainedCopy)
        tensors |= {f"{_PREFIX}{name}.{key}": value for key, value in head.trained.state_dict().items()}
    return tensors


def _by_module(model: nn.Module) -> dict[str, list[LoRALayer]]:
    """The LoRA layers around each module, in the order of their rows."""
    around: dict[str, list[LoRALayer]] = {}
    for name, layer in adapted_layers(model):
        if isinstance(layer, LoRALayer):
            around.setdefault(name.replace(".base_layer", ""), []).append(layer)
    return {path: sorted(layers, key=lambda x: getattr(x, "rows", None) or (0, 0)) for path, layers in around.items()}


def _one_for_all_slices(layers: list[LoRALinear]) -> tuple[Tensor, Tensor]:
    """A (sum of ranks, in) and B (out, sum of ranks) of the one adapter that equals these on one layer."""
    if layers[0].rows is None:
        return layers[0].lora_A, layers[0].lora_B
    a = torch.cat([layer.lora_A for layer in layers])
    b = a.new_zeros(layers[0].out_features, a.shape[0])
    column = 0
    for layer in layers:
        relative = layer.scaling / layers[0].scaling  # the file has one scaling a module; 1 unless patterns differ
        b[slice(*layer.rows), column : column + layer.rank] = layer.lora_B * relative  # type: ignore[misc]
        column += layer.rank
    return a, b


def _config(model: nn.Module, report: Report) -> dict[str, Any]:
    if not isinstance(report.method, LoRA):
        raise BadValue(f"an adapter of {report.method.name} cannot be saved yet; lora's can")
    heads = [name for name, _ in report.heads]
    name = getattr(getattr(model, "config", None), "_name_or_path", None) or None
    return _lora_config(model, report.method, report.placements) | {
        "task_type": "SEQ_CLS" if heads else _task_type(model),
        "modules_to_save": list(dict.fromkeys([*heads, "classifier", "score"])) if heads else None,
        "base_model_name_or_path": name,
    }


def _lora_config(model: nn.Module, method: LoRA, placements: Iterable[Placement]) -> dict[str, Any]:
    """What the config says of the adapters at these placements, whether they are attached yet or not."""
    around = {path: list(group) for path, group in groupby(placements, key=lambda p: p.site.module)}
    fused = {path: (sum(p.rank for p in parts), parts[0].scaling) for path, parts in around.items()}
    layer_names = {name.replace(".base_layer", "") for name, m in model.named_modules() if _could_be_target(m)}
    transposed = any(is_conv1d(innermost(model.get_submodule(path))) for path in fused)
    return peft_from_lora(method, fused, layer_names, transposed=transposed)


def _could_be_target(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or is_conv1d(module)


def _task_type(model: nn.Module) -> str:
    name = type(model).__name__
    return "CAUSAL_LM" if name.endswith(("ForCausalLM", "LMHeadModel")) else "FEATURE_EXTRACTION"


# ---- reading


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


def _method(config: Mapping[str, Any], own: Mapping[str, Any], sites: list[Site], path: str | Path) -> LoRA:
    check_kind(config)
    try:
        method = method_from(own["method"]) if "method" in own else lora_from_peft(config, sites)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue(f"the config of the adapter in {path} is damaged: {error}") from error
    assert isinstance(method, LoRA)
    return method


def _check_config(
    config: Mapping[str, Any], own: Mapping[str, Any], written: Mapping[str, Any], path: str | Path
) -> None:
    """Our own files say everything twice, in our words and in PEFT's: refuse one in which only one was changed."""
    for option in _DECISIVE if "method" in own else ():
        if config.get(option) != written[option]:
            raise BadValue(
                f"{CONFIG} in {path} says {option}={config.get(option)!r}, "
                f"but the adapter was saved with {written[option]!r}"
            )


def _check_base(model: nn.Module, own: Mapping[str, Any], path: str | Path) -> None:
    made_for = own.get("base_fingerprint")
    half = any(p.dtype == torch.float16 for p in model.parameters())  # fp16 rounds otherwise: no fingerprint
    if made_for and not half and made_for != fingerprint(model):
        raise BadValue(f"the adapter in {path} was trained on another base model: its weights differ from this one's")


def _drop_copied_base(model: nn.Module, tensors: dict[str, Tensor], placements: Iterable[Placement]) -> None:
    """PEFT also writes the frozen weight of an adapted embedding: take it if it is this base's own, else refuse."""
    for site in (p.site for p in placements if p.site.kind == "embedding"):
        for key in (f"{_PREFIX}{site.module}.base_layer.weight", f"{_PREFIX}{site.module}.weight"):
            copied = tensors.pop(key, None)
            own: Tensor = model.get_submodule(site.module).weight  # type: ignore[assignment]
            if copied is not None and not (copied.shape == own.shape and torch.equal(copied.to(own), own)):
                raise BadValue(f"the adapter brings its own {site.module}, which differs from this base model's")


def _expected(placements: Iterable[Placement], model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The key and shape of every tensor that an adapter at these placements has in a file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, group in groupby(placements, key=lambda p: p.site.module):
        parts = list(group)
        rank, site, layer = sum(p.rank for p in parts), parts[0].site, model.get_submodule(path)
        if site.kind == "embedding":
            shapes[f"{_PREFIX}{path}.lora_embedding_A"] = (rank, site.in_features)
            shapes[f"{_PREFIX}{path}.lora_embedding_B"] = (site.out_features, rank)
        else:
            shapes[f"{_PREFIX}{path}.lora_A.weight"] = (rank, site.in_features)
            shapes[f"{_PREFIX}{path}.lora_B.weight"] = (_whole_width(site, layer), rank)
    for name, head in heads_of(model):
        shapes |= {f"{_PREFIX}{name}.{key}": tuple(value.shape) for key, value in head.state_dict().items()}
    return shapes


def _whole_width(site: Site, layer: nn.Module) -> int:
    return site.out_features if site.rows is None else out_by_in(layer).shape[0]


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


@torch.no_grad()
def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for path, layers in _by_module(model).items():
        if isinstance(layers[0], LoRAEmbedding):
            layers[0].lora_embedding_A.copy_(tensors[f"{_PREFIX}{path}.lora_embedding_A"])
            layers[0].lora_embedding_B.copy_(tensors[f"{_PREFIX}{path}.lora_embedding_B"])
        else:
            slices = [layer for layer in layers if isinstance(layer, LoRALinear)]
            _split(slices, tensors[f"{_PREFIX}{path}.lora_A.weight"], tensors[f"{_PREFIX}{path}.lora_B.weight"])
    for name, head in adapted_layers(model):
        if isinstance(head, TrainedCopy):
            state = head.trained.state_dict()
            head.trained.load_state_dict({key: tensors[f"{_PREFIX}{name}.{key}"] for key in state})


def _split(layers: list[LoRALinear], a: Tensor, b: Tensor) -> None:
    """The inverse of `_one_for_all_slices`, into the layers' own parameters."""
    column = 0
    for layer in layers:
        part = slice(column, column + layer.rank)
        rows = slice(*layer.rows) if layer.rows else slice(None)
        layer.lora_A.copy_(a[part])
        layer.lora_B.copy_(b[rows, part] / (layer.scaling / layers[0].scaling))
        column += layer.rank
