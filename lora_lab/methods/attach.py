"""Surgery on a model: find the sites, freeze, wrap, switch off, merge, and take everything out again."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lora_lab.accounting.sites import Site, sites_of_layer
from lora_lab.errors import BadValue
from lora_lab.layers import (
    AdaptedLayer,
    LoRAEmbedding,
    LoRALayer,
    LoRALinear,
    TrainedCopy,
    innermost,
    is_conv1d,
    out_by_in,
)
from lora_lab.methods.base import Method, Placement, Report
from lora_lab.methods.lora import LoRA

# What transformers calls the part of a classification model that no checkpoint brings: it starts random, so it trains.
HEADS = ("pre_classifier", "classifier", "score")


def sites_of(model: nn.Module) -> list[Site]:
    """Every place for an adapter in a model, in the model's order; the head, which trains as a whole, has none.

    Raises: BadValue when the model carries an adapter already.
    """
    if is_adapted(model):
        raise BadValue("this model carries an adapter already; take it out first with detach(model)")
    widths, heads = _role_widths(model), [name for name, _ in heads_of(model)]
    sites: list[Site] = []
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind and name.split(".")[0] not in heads:
            out_features, in_features = out_by_in(module).shape
            if kind == "embedding":  # a table of `vocabulary` rows: tokens in, vectors out
                in_features, out_features = out_features, in_features
            sites += sites_of_layer(name, in_features, out_features, kind, widths)
    return sites


def heads_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The model's own classification head(s), by name; none on a language model."""
    return [(name, module) for name, module in model.named_children() if name in HEADS]


def attach_lora(model: nn.Module, method: LoRA, placements: Sequence[Placement]) -> Report:
    """Freeze `model`, put a LoRA layer at each placement and a trained copy beside each head."""
    base_parameters = sum(p.numel() for p in model.parameters())
    base_fingerprint = fingerprint(model)
    model.requires_grad_(False)
    for placement in placements:
        _wrap(model, placement, method)
    return _reported(model, Report(method, tuple(placements), train_heads(model), base_parameters, base_fingerprint))


def attach_whole(model: nn.Module, method: Method) -> Report:
    """Let every weight of `model` train, its head among them."""
    _refuse_adapted(model)
    model.requires_grad_(True)
    numbers = sum(p.numel() for p in model.parameters())
    heads = tuple((name, sum(p.numel() for p in head.parameters())) for name, head in heads_of(model))
    own = numbers - sum(count for _, count in heads)
    return _reported(model, Report(method, (), heads, numbers, fingerprint(model), beside=own, within=True))


def attach_some(model: nn.Module, method: Method, trains: Callable[[str], bool]) -> Report:
    """Let those of the base's own parameters train whose names `trains` accepts, and a copy of each head."""
    _refuse_adapted(model)
    numbers, base, heads = sum(p.numel() for p in model.parameters()), fingerprint(model), dict(heads_of(model))
    model.requires_grad_(False)
    chosen = [p for name, p in model.named_parameters() if trains(name) and name.split(".")[0] not in heads]
    for parameter in chosen:
        parameter.requires_grad_(True)
    own = sum(p.numel() for p in chosen)
    if not own and not heads:
        raise BadValue(f"{method.name} finds nothing to train in this model; use lora")
    return _reported(model, Report(method, (), train_heads(model), numbers, base, beside=own, within=True))


def _refuse_adapted(model: nn.Module) -> None:
    if is_adapted(model):
        raise BadValue("this model carries an adapter already; take it out first with detach(model)")


def train_heads(model: nn.Module) -> tuple[tuple[str, int], ...]:
    """Put a trained copy beside each head; returns their names and numbers."""
    heads = heads_of(model)
    for name, head in heads:
        setattr(model, name, TrainedCopy(head, _fp32_copy(head)).train(head.training))
    return tuple((name, sum(p.numel() for p in head.parameters())) for name, head in heads)


def _reported(model: nn.Module, report: Report) -> Report:
    model.lora_lab_report = report  # type: ignore[assignment]  # what save_adapter needs to know
    return report


def _fp32_copy(head: nn.Module) -> nn.Module:
    # Parameter by parameter, so that it also works where they are only shapes, as in a trace of memory.
    memo = {id(p): nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in head.parameters()}
    return copy.deepcopy(head, memo)


def report_of(model: nn.Module) -> Report:
    """The report of the adapter that a model carries. Raises BadValue when it carries none."""
    report = getattr(model, "lora_lab_report", None)
    if not isinstance(report, Report):
        raise BadValue("this model carries no adapter; attach one first, for example LoRA(rank=8).attach(model)")
    return report


def fingerprint(model: nn.Module) -> str:
    """A short hash of the frozen base: the start of every weight matrix, rounded to bf16, so that one checkpoint has
    one fingerprint in fp32 and in bf16. Adapters and heads do not count.
    """
    digest = sha256()
    for name, parameter in sorted(_base_matrices(model)):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.is_meta or isinstance(parameter, FakeTensor):
            continue  # only a shape, as in a trace of memory: there are no numbers to tell checkpoints apart by
        start = parameter.detach()[0, :16].to("cpu", torch.bfloat16)
        digest.update(start.float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _base_matrices(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parameter.dim() == 2 and not parts[-1].startswith("lora_") and parts[0] not in HEADS:
            yield name.replace(".base_layer", ""), parameter


def is_adapted(model: nn.Module) -> bool:
    """Whether the model carries an adapter."""
    return any(True for _ in adapted_layers(model))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Every layer with something trained beside it, with its path; of two around one layer, the outer one first."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AdaptedLayer))


@contextmanager
def disabled(model: nn.Module, *, keep_head: bool = False) -> Iterator[None]:
    """Inside the block the model answers as it did before attaching; with keep_head only the head stays trained.

    A merged adapter is unmerged for the block and merged again after it, each time up to a rounding of the weight.
    """
    layers = [m for _, m in adapted_layers(model) if not (keep_head and isinstance(m, TrainedCopy))]
    before = [(layer, layer.enabled, layer.merged) for layer in layers]
    try:
        for layer, _, merged in before:
            if merged and isinstance(layer, LoRALayer):
                layer.unmerge()
            layer.enabled = False
        yield
    finally:
        for layer, enabled, merged in before:
            layer.enabled = enabled
            if merged and isinstance(layer, LoRALayer):
                layer.merge()


def merge(model: nn.Module) -> None:
    """Fold every adapter into its frozen weight, so that the model runs at the base's own speed.

    Raises: BadValue when there is no adapter, and when an adapted layer shares its weight with another (tied
    embeddings): merged, the adapter would move both, and the model would no longer be the one that was trained.
    """
    report_of(model)
    owners = Counter(
        id(module.weight) for module in model.modules() if isinstance(getattr(module, "weight", None), nn.Parameter)
    )
    for name, layer in adapted_layers(model):
        if isinstance(layer, LoRALayer) and owners[id(innermost(layer).weight)] > 1:
            raise BadValue(
                f"cannot merge: {name} shares its weight with another layer (tied embeddings); untie them first"
            )
    for layer in lora_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Take every merged adapter out of its weight again; does nothing where none is merged."""
    report_of(model)
    for layer in lora_layers(model):
        layer.unmerge()


def detach(model: nn.Module) -> None:
    """Give the model back as it was before attaching: adapters out, the original head in. It stays frozen."""
    unmerge(model)
    while layers := list(adapted_layers(model)):
        for name, layer in layers:
            if not any(other != name and name.startswith(f"{other}.") for other, _ in layers):  # outermost first
                put(model, name, layer.base_layer)
    del model.lora_lab_report


def lora_layers(model: nn.Module) -> list[LoRALayer]:
    """Every LoRA layer of a model, heads not among them."""
    return [layer for _, layer in adapted_layers(model) if isinstance(layer, LoRALayer)]


def _wrap(model: nn.Module, placement: Placement, method: LoRA) -> None:
    site, rank, scaling = placement.site, placement.rank, placement.scaling
    layer = model.get_submodule(site.module)
    wrapped: nn.Module
    if isinstance(layer, nn.Embedding):
        wrapped = LoRAEmbedding(layer, rank, scaling)
    else:
        wrapped = LoRALinear(layer, rank, scaling, dropout=method.dropout, init=method.init, rows=site.rows)
    put(model, site.module, wrapped.train(layer.training))  # in a model that answers, no dropout


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set a submodule by its path."""
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _kind(module: nn.Module) -> str:
    """The kind of site a module is, or "" for none. Exact types: a subclass may do more than W x + b,
    unless it says that it does not.
    """
    if type(module) is nn.Linear or is_conv1d(module) or getattr(module, "plain_linear", False):
        return "linear"
    return "embedding" if type(module) is nn.Embedding else ""


def _role_widths(model: nn.Module) -> dict[str, int]:
    """Outputs of each role in the fused layers of this model, from its config; {} where it has none."""
    config = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return {}
    head_size = getattr(config, "head_dim", None) or int(getattr(config, "hidden_size", 0)) // heads
    kv = (getattr(config, "num_key_value_heads", None) or heads) * head_size
    mlp = getattr(config, "intermediate_size", None) or 0
    return {"q": heads * head_size, "k": kv, "v": kv, "gate": mlp, "up": mlp}
