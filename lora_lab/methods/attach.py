"""Surgery on a model: find the layers, freeze, put adapters in, and take everything out again."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lora_lab.adapter_layer import AdapterLayer, innermost, out_by_in
from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Placement, Report
from lora_lab.methods.heads import TrainedCopy, heads_of, warn_of_unknown_head
from lora_lab.methods.targets import HEADS, PLAIN_FUSED, Site, sites_of_layer

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}

# ---- what is put in


def _start(part: nn.Module, start: Mapping[str, Tensor | nn.Module]) -> None:
    """Make what a method starts with attributes of `part`: tensors as fp32 parameters, modules as they are."""
    for name, value in start.items():
        if isinstance(value, Tensor):
            value = nn.Parameter(value.detach().to(torch.float32, copy=True))
            part._parameters[name] = value  # not by assignment, which the property `bias` would refuse
        else:
            setattr(part, name, value)


class MethodLayer(AdapterLayer):
    """A frozen layer with the parameters of a `LayerMethod` beside it: y = after(base_layer(before(x)))."""

    def __init__(self, base_layer: nn.Module, method: Any, **told: Any) -> None:
        super().__init__(base_layer)
        self.method = method
        for name, value in told.items():
            setattr(self, name, value)
        _start(self, method.start(base_layer, **told))

    @property
    def bias(self) -> Tensor | None:
        """The trained one, where the method trains it; else the frozen layer's."""
        return self._parameters.get("bias", innermost(self).bias)  # type: ignore[arg-type]

    @property
    def unmergeable(self) -> str:  # type: ignore[override]
        """As the method says."""
        return str(self.method.unmergeable)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        y = self.base_layer(self.method.before(self, x), *args, **kwargs)
        return self.method.after(self, y, x)  # type: ignore[no-any-return]

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.method.merged_weights(self, weight, bias)  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """Tensors beside a layer that do not train and stand in no state dict; several layers may share one of these."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.contiguous(), persistent=False)  # multiplied as those from a file are


class Ahead(nn.Module):
    """Trained vectors ahead of every row of a model: a soft prompt, or a prefix of keys and values.

    They act through a forward pre-hook on the model, with the method's `vectors` and `prepend`, see `soft.py`.
    """

    head = merged = active = False
    unmergeable = "stands ahead of every row, and is no part of any weight of the base"

    def __init__(self, method: Any, start: Mapping[str, Tensor | nn.Module]) -> None:
        super().__init__()
        self.method, self.enabled = method, True
        _start(self, start)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        """What stands ahead of each of so many rows: (rows, ...)."""
        vectors: Tensor = self.method.vectors(self).to(dtype)
        return vectors.expand(rows, *vectors.shape)

    def hang(self, model: nn.Module, name: str) -> None:
        """Become `model.<name>` and act on all that is put into the model."""
        setattr(model, name, self)
        self.hook = model.register_forward_pre_hook(partial(_prepended, name), with_kwargs=True)


def _prepended(name: str, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    ahead: Any = getattr(model, name)  # by name: in a pack those of all runs hang there
    if not ahead.enabled:
        return None
    call = {**dict(zip(inspect.signature(model.forward).parameters, args, strict=False)), **kwargs}
    rows = next(len(call[given]) for given in ("input_ids", "inputs_embeds") if call.get(given) is not None)
    dtype = model.get_input_embeddings().weight.dtype  # type: ignore[operator]
    return (), ahead.method.prepend(model, call, ahead.vectors(rows, dtype))


# ---- where it may go


def site_kind(layer: nn.Module) -> str:
    """What an adapter could be put beside: "linear", "embedding", or "" for nothing.

    By exact type, for a subclass may do more than W x + b: Falcon's does not, and `plain_linear` says so of ours. An
    embedding may also scale its vectors, as Gemma's and BART's do.
    """
    if is_linear(layer) or getattr(layer, "plain_linear", False):
        return "linear"
    scaled = type(layer).__name__.endswith("ScaledWordEmbedding") and len(list(layer.parameters())) == 1
    return "embedding" if type(layer) is nn.Embedding or (isinstance(layer, nn.Embedding) and scaled) else ""


def is_linear(layer: nn.Module) -> bool:
    """Whether it computes W x + b and no more, as far as known."""
    return type(layer) is nn.Linear or type(layer).__name__ in ("Conv1D", "FalconLinear")


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
        foreign = (type(m).__name__ for m in model.modules() if isinstance(m, nn.Linear) and not site_kind(m))
        if name := next(foreign, ""):
            raise BadValue(
                f"the linear layers of this model are {name}, which cannot be adapted: load it plain, or in 4 bits "
                "with load_model(name, dtype='nf4')"
            )
    return sites


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


# ---- in and out


def attach(
    model: nn.Module,
    method: Method,
    parts: Sequence[tuple[str, Callable[[nn.Module], AdapterLayer]]],
    placements: Sequence[Placement] = (),
) -> Report:
    """Freeze `model`, put an adapter around the layer at each path, and a trained copy beside each head.

    parts        the path of each layer, and what makes an adapter of it; two at one path go one around the other
    placements   for the report, where adapters have a rank
    Raises: BadValue when the model carries an adapter already, or when nothing would train.
    """
    refuse_adapted(model)
    if not parts and not heads_of(model):
        raise BadValue(f"{method.name} finds nothing to train in this model; use lora")

    def put_in() -> None:
        for path, around in parts:
            layer = model.get_submodule(path)
            put(model, path, _in_mode_of(around(layer), layer))

    return _attached(model, method, put_in, placements)


def attach_ahead(model: nn.Module, method: Method, name: str, start: Callable[[], Mapping[str, Any]]) -> Report:
    """Freeze `model`, hang trained vectors ahead of its rows as `model.<name>`, and a trained copy beside each head.

    Raises: BadValue when the model carries an adapter already.
    """
    refuse_adapted(model)
    return _attached(model, method, lambda: Ahead(method, start()).train(model.training).hang(model, name))


def _attached(
    model: nn.Module, method: Method, put_in: Callable[[], None], placements: Sequence[Placement] = ()
) -> Report:
    numbers, base, heads = numbers_of(model), fingerprint(model), heads_of(model)
    with or_as_it_was(model):
        model.requires_grad_(False)
        put_in()
        warn_of_unknown_head(model)
        for name, head in heads:
            put(model, name, _in_mode_of(TrainedCopy(head), head))
    parts = () if placements else parts_of(model)
    return _reported(model, Report(method, tuple(placements), _sizes(heads), numbers, base, parts))


def attach_whole(model: nn.Module, method: Method) -> Report:
    """Let every weight of `model` train, its head among them."""
    refuse_adapted(model)
    if coded_layers(model):
        raise BadValue("codes of a few bits cannot train: load the base in fp32 or bf16, or train lora beside it")
    model.requires_grad_(True)
    numbers, heads = numbers_of(model), _sizes(heads_of(model))
    own = numbers - sum(count for _, count in heads)
    return _reported(model, Report(method, (), heads, numbers, fingerprint(model), (("every weight", own),)))


def _sizes(heads: Sequence[tuple[str, nn.Module]]) -> tuple[tuple[str, int], ...]:
    return tuple((name, sum(p.numel() for p in head.parameters())) for name, head in heads)


def _reported(model: nn.Module, report: Report) -> Report:
    model.lora_lab_report = report  # type: ignore[assignment]  # what save_adapter needs to know
    return report


def _in_mode_of(part: AdapterLayer, layer: nn.Module) -> AdapterLayer:
    """Put the adapter in the train/eval mode of the layer that it wraps, whose own modules stay in theirs."""
    for name, module in part.named_modules():
        if not name.startswith("base_layer"):
            module.training = layer.training
    return part


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set a submodule by its path. Raises: BadValue for a model that is that layer itself."""
    parent, _, leaf = path.rpartition(".")
    if not leaf:
        raise BadValue("this model is a single layer, which cannot be replaced: put it into nn.Sequential(layer)")
    holder = model.get_submodule(parent)
    setattr(holder, leaf, module)
    if isinstance(holder, nn.TransformerEncoderLayer) and isinstance(module, AdapterLayer):
        module.register_forward_pre_hook(_refuse_nested)  # in eval, torch calls the layer only if it has a hook


def _refuse_nested(part: nn.Module, args: tuple[Any, ...]) -> None:
    if args[0].is_nested:
        raise BadValue(
            "torch packs padded rows into a nested tensor here, which adapters cannot read: make the "
            "nn.TransformerEncoder with enable_nested_tensor=False"
        )


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


def take_out(model: nn.Module) -> None:
    """Remove everything that was put into a model, and the report of it."""
    while parts := list(adapters(model)):
        path, part = parts[0]  # the outermost of those around one layer
        if hook := getattr(part, "hook", None):
            hook.remove()
        if isinstance(part, AdapterLayer):
            model.set_submodule(path, part.base_layer)
        else:
            delattr(model, path)
    if hasattr(model, "lora_lab_report"):
        del model.lora_lab_report


# ---- what is there


def inside(model: nn.Module) -> nn.Module:
    """The model itself, inside whatever torch has wrapped around it."""
    while word := _wrapper(model):
        model = getattr(model, word)
    return model


def _wrapper(model: object) -> str | None:
    return next((_WRAPPERS[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _WRAPPERS), None)


def refuse_adapted(model: nn.Module) -> None:
    """Raises BadValue for a model with an adapter, ours or PEFT's, inside a wrapper of torch's, or that is no model."""
    if not isinstance(model, nn.Module):
        raise BadValue(f"{str(model)[:60]!r} is a {type(model).__name__} and no model: load_model(name) gives one")
    if word := _wrapper(model):
        raise BadValue(
            f"this model is inside a {type(model).__name__}: give what it wraps, model.{word}, and wrap it after"
        )
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise BadValue("this model carries an adapter of PEFT's: take it out first with unload() or merge_and_unload()")
    if is_adapted(model):
        raise BadValue("this model carries an adapter already; take it out first with detach(model)")


def is_adapted(model: nn.Module) -> bool:
    """Whether a method is attached to the model."""
    return hasattr(model, "lora_lab_report") or any(True for _ in adapters(model))


def report_of(model: nn.Module) -> Report:
    """The report of the adapter that a model carries. Raises BadValue when it carries none, or a bank of them."""
    report = getattr(model, "lora_lab_report", None)
    if isinstance(report, Report):
        return report
    if is_adapted(model):
        raise BadValue(
            "this model holds a bank of adapters: bank.save(name, folder) writes one, bank.close() takes them out"
        )
    raise BadValue("this model carries no adapter; attach one first, for example LoRA(rank=8).attach(model)")


def adapters(model: nn.Module) -> Iterator[tuple[str, AdapterLayer | Ahead]]:
    """Everything that a method put into a model, with its path; of two around one layer, the outer one first."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AdapterLayer | Ahead))


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Every layer with something trained beside it, in the same order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AdapterLayer))


def plain_path(path: str) -> str:
    """The path that a layer has in the plain model."""
    return path.replace(".base_layer", "")


def own_parameters(part: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """What a part brought into the model: its parameters without those of the frozen layer inside it."""
    return ((f"{prefix}{name}", p) for name, p in part.named_parameters() if not name.startswith("base_layer."))


def parts_of(model: nn.Module) -> tuple[tuple[str, int], ...]:
    """Everything that a method put into a model but the heads: where it stands, and how many numbers train in it."""
    found: Counter[str] = Counter()
    for path, _, p in parameters_of_parts(model):
        found[plain_path(path)] += p.numel()
    return tuple(found.items())


def parameters_of_parts(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """The path of each such thing, and each of its parameters by name; one that several share comes once."""
    seen = set[int]()
    for path, part in adapters(model):
        for name, p in () if part.head else own_parameters(part):
            if id(p) not in seen:
                yield path, name, p
            seen.add(id(p))


def numbers_of(model: nn.Module) -> int:
    """Numbers in a model; codes of a few bits count as the weights that they stand for."""
    coded = sum(layer.numbers for layer in coded_layers(model))
    return coded + sum(p.numel() for p in model.parameters())


def coded_layers(model: nn.Module) -> list[Any]:
    """The layers whose weights are held as codes of a few bits, see `quant.py`."""
    return [module for module in model.modules() if hasattr(module, "dequantized")]


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
    one fingerprint in fp32, in bf16 and quantized. Adapters and heads do not count. "" of a base in fp16, which rounds
    otherwise.
    """
    if coded_layers(model):
        return str(getattr(model, "lora_lab_fingerprint", ""))  # what it was before it was quantized
    own = {name for path, part in adapters(model) for name, _ in own_parameters(part, f"{path}.")}
    matrices = sorted(
        (plain_path(name), parameter)
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and name not in own and name.split(".")[0] not in HEADS
    )
    if any(parameter.dtype == torch.float16 for _, parameter in matrices):
        return ""
    digest = sha256()
    for name, parameter in matrices:
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if not (parameter.is_meta or isinstance(parameter, FakeTensor)):  # of a trace there are only shapes
            digest.update(parameter.detach()[0, :16].to("cpu", torch.bfloat16).float().numpy().tobytes())
    return digest.hexdigest()[:16]
