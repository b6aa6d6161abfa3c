"""Surgery on a model: find the sites, freeze, put in what trains, and take everything out again."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lora_lab.errors import BadValue
from lora_lab.layers import TrainedCopy, out_by_in, site_kind
from lora_lab.methods.base import Method, Placement, Report
from lora_lab.methods.beside import Ahead
from lora_lab.methods.heads import heads_of, warn_of_others
from lora_lab.methods.targets import HEADS, PLAIN_FUSED, Site, sites_of_layer
from lora_lab.methods.wrapped import be_called, refuse_wrapped
from lora_lab.switched import AdaptedLayer, Switched


def sites_of(model: nn.Module) -> list[Site]:
    """Every place for an adapter in a model, in the model's order; the head, which trains as a whole, has none.

    Raises: BadValue when the model carries an adapter already, or when another library made its linear layers.
    """
    refuse_adapted(model)
    widths, heads = role_widths(model), [name for name, _ in heads_of(model)]
    sites: list[Site] = []
    for name, module in model.named_modules():
        kind = site_kind(module)
        if kind and name.split(".")[0] not in heads:
            out_features, in_features = out_by_in(module).shape
            if kind == "embedding":  # a table of `vocabulary` rows: tokens in, vectors out
                in_features, out_features = out_features, in_features
            sites += sites_of_layer(name, in_features, out_features, kind, widths)
    if not any(site.kind == "linear" and site.role not in ("head", "pooler") for site in sites):
        _refuse_foreign(model)
    return sites


def _refuse_foreign(model: nn.Module) -> None:
    """Raises BadValue naming linear layers of another library's kind, bitsandbytes' for example."""
    foreign = next((type(m).__name__ for m in model.modules() if isinstance(m, nn.Linear) and not site_kind(m)), None)
    if foreign:
        raise BadValue(
            f"the linear layers of this model are {foreign}, beside which no adapter is put: "
            "load it plain, or in 4 bits with load_model(name, dtype='nf4')"
        )


def attach_beside(
    model: nn.Module,
    method: Method,
    parts: Sequence[tuple[str, Callable[[nn.Module], AdaptedLayer]]],
    placements: Sequence[Placement] = (),
) -> Report:
    """Freeze `model`, put a part around the layer at each path, and a trained copy beside each head.

    parts        (path, what makes the part of the layer that stands there): two at one path go one around the other
    placements   the same for the report, of parts with a rank
    Raises: BadValue when the model carries an adapter already, or when nothing would train.
    """

    def put_in() -> None:
        if not parts and not heads_of(model):
            raise BadValue(f"{method.name} finds nothing to train in this model; use lora")
        for path, around in parts:
            layer = model.get_submodule(path)
            put(model, path, _awake_as(around(layer), layer))

    return _attached(model, method, put_in, placements)


def attach_ahead(model: nn.Module, method: Method, name: str, made: Callable[[], Ahead]) -> Report:
    """Freeze `model`, hang trained vectors ahead of its rows as `model.<name>`, and a trained copy beside each head.

    Raises: BadValue when the model carries an adapter already.
    """
    return _attached(model, method, lambda: made().train(model.training).hang(model, name))


def _attached(
    model: nn.Module, method: Method, put_in: Callable[[], None], placements: Sequence[Placement] = ()
) -> Report:
    """The base frozen, in it what `put_in` puts there, and a trained copy beside each head."""
    refuse_adapted(model)
    numbers, base, heads = numbers_of(model), fingerprint(model), heads_of(model)
    with or_as_it_was(model):
        model.requires_grad_(False)
        put_in()
        warn_of_others(model)
        for name, head in heads:
            put(model, name, _awake_as(TrainedCopy(head, _fp32_copy(head)), head))
    parts = () if placements else parts_of(model)
    return _reported(model, Report(method, tuple(placements), _sizes(heads), numbers, base, parts))


def _sizes(heads: Sequence[tuple[str, nn.Module]]) -> tuple[tuple[str, int], ...]:
    """Numbers in each head."""
    return tuple((name, sum(p.numel() for p in head.parameters())) for name, head in heads)


def attach_whole(model: nn.Module, method: Method) -> Report:
    """Let every weight of `model` train, its head among them."""
    refuse_adapted(model)
    if coded_layers(model):
        raise BadValue("codes of a few bits cannot train: load the base in fp32 or bf16, or train lora beside it")
    model.requires_grad_(True)
    numbers, heads = numbers_of(model), _sizes(heads_of(model))
    own = numbers - sum(count for _, count in heads)
    return _reported(model, Report(method, (), heads, numbers, fingerprint(model), (("every weight", own),)))


def refuse_adapted(model: nn.Module) -> None:
    """Raises BadValue when the model carries an adapter already, is no model, or is inside a wrapper of torch's."""
    refuse_wrapped(model)
    if is_adapted(model):
        raise BadValue("this model carries an adapter already; take it out first with detach(model)")


@contextmanager
def or_as_it_was(model: nn.Module) -> Iterator[None]:
    """If anything goes wrong inside the block, take out what was put in; what trained before trains again."""
    trained = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    except BaseException:
        take_out(model)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        raise


def numbers_of(model: nn.Module) -> int:
    """Numbers in a model; codes of a few bits count as the weights that they stand for."""
    coded = sum(layer.numbers for layer in coded_layers(model))
    return coded + sum(p.numel() for p in model.parameters())


def coded_layers(model: nn.Module) -> list[Any]:
    """The layers whose weights are held as codes of a few bits, see `methods/quantized.py`."""
    return [module for module in model.modules() if hasattr(module, "dequantized")]


def _reported(model: nn.Module, report: Report) -> Report:
    model.lora_lab_report = report  # type: ignore[assignment]  # what save_adapter needs to know
    return report


def _fp32_copy(head: nn.Module) -> nn.Module:
    # Parameter by parameter, so that it also works where they are only shapes, as in a trace of memory.
    memo = {id(p): nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in head.parameters()}
    return copy.deepcopy(head, memo)


def report_of(model: nn.Module) -> Report:
    """The report of the adapter that a model carries. Raises BadValue when it carries none, or a bank of them."""
    report = getattr(model, "lora_lab_report", None)
    if not isinstance(report, Report) and is_adapted(model):
        raise BadValue(
            "this model holds a bank of adapters: bank.save(name, folder) writes one, bank.close() takes them out"
        )
    if not isinstance(report, Report):
        raise BadValue("this model carries no adapter; attach one first, for example LoRA(rank=8).attach(model)")
    return report


def shapes_of(model: nn.Module) -> nn.Module:
    """The model with shapes in the place of its weights: attaching to it costs nothing, whatever is attached.

    Raises: BadValue for a model that cannot be copied.
    """
    memo: dict[int, object] = {id(b): b.data.to("meta") for b in model.buffers()}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(p.data.to("meta"), requires_grad=p.requires_grad)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the objects that the model holds raise
        raise BadValue(
            f"an adapter is tried on a copy of the model first, and this {type(model).__name__} cannot be copied "
            f"({type(error).__name__}: {error}): take out of it what copy.deepcopy cannot copy"
        ) from error


def fingerprint(model: nn.Module) -> str:
    """A short hash of the frozen base: the start of every weight matrix, rounded to bf16, so that one checkpoint has
    one fingerprint in fp32 and in bf16, and quantised. Adapters and heads do not count. "" of a base in fp16, which
    rounds otherwise: its checkpoint cannot be told from its numbers.
    """
    if coded_layers(model):
        return str(getattr(model, "lora_lab_fingerprint", ""))  # what it was before it was quantised
    digest, matrices = sha256(), sorted(_base_matrices(model))
    if any(parameter.dtype == torch.float16 for _, parameter in matrices):
        return ""
    for name, parameter in matrices:
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.is_meta or isinstance(parameter, FakeTensor):
            continue  # only a shape, as in a trace of memory: there are no numbers to tell checkpoints apart by
        start = parameter.detach()[0, :16].to("cpu", torch.bfloat16)
        digest.update(start.float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _base_matrices(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    beside = {name for path, part in switched(model) for name, _ in own_parameters(part, f"{path}.")}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and name not in beside and name.split(".")[0] not in HEADS:
            yield name.replace(".base_layer", ""), parameter


def is_adapted(model: nn.Module) -> bool:
    """Whether a method is attached to the model."""
    return hasattr(model, "lora_lab_report") or any(True for _ in switched(model))


def switched(model: nn.Module) -> Iterator[tuple[str, Switched]]:
    """Everything that a method put into a model, with its path; of two around one layer, the outer one first."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Switched))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Every layer with something trained beside it, in the same order."""
    return ((name, module) for name, module in switched(model) if isinstance(module, AdaptedLayer))


def own_parameters(part: Switched, prefix: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """What a part brought into the model: its parameters without those of the frozen layer inside it."""
    return ((f"{prefix}{name}", p) for name, p in part.named_parameters() if not name.startswith("base_layer."))


def parts_of(model: nn.Module) -> tuple[tuple[str, int], ...]:
    """Everything that a method put into a model but the heads: where it stands, and how many numbers train in it."""
    found: Counter[str] = Counter()
    for path, part in switched(model):
        if not isinstance(part, TrainedCopy):
            found[path.replace(".base_layer", "")] += sum(p.numel() for _, p in own_parameters(part))
    return tuple(found.items())


def take_out(model: nn.Module) -> None:
    """Remove everything that was put into a model, and the report of it."""
    while parts := list(switched(model)):
        path, part = parts[0]  # the outermost of those around one layer
        part.take_out(model, path)
    if hasattr(model, "lora_lab_report"):
        del model.lora_lab_report


def _awake_as(part: AdaptedLayer, layer: nn.Module) -> AdaptedLayer:
    """In a model that answers, no dropout: what stands beside a layer trains if that does, which stays as it is."""
    for name, module in part.named_modules():
        if not name.startswith("base_layer"):
            module.training = layer.training
    return part


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set a submodule by its path. Raises: BadValue for a model that is that layer itself."""
    parent, _, leaf = path.rpartition(".")
    if not leaf:
        raise BadValue(
            "this model is a single layer, in whose place nothing can stand: put it into nn.Sequential(layer)"
        )
    holder = model.get_submodule(parent)
    setattr(holder, leaf, module)
    if isinstance(module, AdaptedLayer):
        be_called(holder, module)


def role_widths(model: nn.Module) -> dict[str, int]:
    """Outputs of each role in the fused layers of this model, from its config; {} where they cannot be told apart."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", "") not in PLAIN_FUSED:
        return {}
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    inner = getattr(config, "intermediate_size", None) or 0
    return {"q": heads * head_dim, "k": kv, "v": kv, "gate": inner, "up": inner}
