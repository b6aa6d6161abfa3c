"""Attach adapters to a model, find them, and remove them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lora_lab.adapter_layer import AdapterLayer, out_by_in
from lora_lab.errors import BadValue, warn
from lora_lab.methods.targets import HEADS, PLAIN_FUSED, Site, sites_of_layer

# ---- modules that methods insert


class MethodLayer(AdapterLayer):
    """Wrap a frozen layer and compute `y = after(base_layer(before(x)))` with a `LayerMethod` and its parameters.

    start   The values of the layer's attributes, by name. Tensors become fp32 parameters.
    """

    def __init__(self, base_layer: nn.Module, method: Any, start: Mapping[str, Any]) -> None:
        super().__init__(base_layer)
        self.method, self.unmergeable = method, method.unmergeable
        for name, value in start.items():
            if isinstance(value, Tensor):  # set directly, because `bias` is a read-only property
                self._parameters[name] = nn.Parameter(value.detach().to(torch.float32, copy=True))
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        y = self.base_layer(self.method.before(self, x), *args, **kwargs)
        return self.method.after(self, y, x)  # type: ignore[no-any-return]

    def merged_weights(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.method.merged_weights(self, weight, bias)  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """Hold frozen tensors that are left out of the state dict. Several layers may share one `Frozen` module."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.contiguous(), persistent=False)


class TrainedCopy(AdapterLayer):
    """A task head and its trainable copy. The copy and its output are fp32, whatever dtype the base model has."""

    head = True

    def __init__(self, base_layer: nn.Module, trained: nn.Module | None = None) -> None:
        super().__init__(base_layer)
        if trained is None:  # copying each tensor works on the meta device, too; the buffers are batch norm's
            floats: Any = (t for t in [*base_layer.parameters(), *base_layer.buffers()] if t.is_floating_point())
            fp32 = ((t, t.detach().to(torch.float32, copy=True)) for t in floats)
            memo: Any = {id(t): nn.Parameter(c) if isinstance(t, nn.Parameter) else c for t, c in fp32}
            trained = copy.deepcopy(base_layer, memo)
        self.trained = trained

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        # model.to(bfloat16) may have changed the dtype. DataParallel's replicas have an empty parameters().
        own = (p for m in self.trained.modules() for p in getattr(m, "_former_parameters", m._parameters).values())
        y = self.trained(x.to(next(p.dtype for p in own if p is not None)), *args, **kwargs)
        return y.float() if isinstance(y, Tensor) else y  # type: ignore[no-any-return]


class PooledHead(TrainedCopy):
    """Compute fp32 logits `W z + b` of shape (rows, classes) from mean hidden states z of shape (rows, d).

    W and b start at zero. A hook on the base model captures hidden states, since BERT's own head gets only the first
    token. The heads of GPT-2 and Llama get every token, so `every_token` repeats a row's logits for each token.
    """

    unmergeable = "reads the mean of all tokens, which no head in transformers does"

    def __init__(self, base_layer: nn.Module, model: Any, *, every_token: bool) -> None:
        device, config = next(base_layer.parameters()).device, model.config
        trained = nn.Linear(config.hidden_size, config.num_labels, device=device, dtype=torch.float32)
        nn.init.zeros_(trained.weight)
        nn.init.zeros_(trained.bias)
        super().__init__(base_layer, trained)
        self.every_token, self.captured = every_token, None  # type: Any, Any
        self.hook = model.base_model.register_forward_hook(self.capture, with_kwargs=True)

    def capture(self, base: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Store the hidden states and the attention mask. This method is a forward hook of the base model."""
        if self.active:
            self.captured = (output[0], kwargs.get("attention_mask"))

    def features(self) -> Tensor:
        """Return the mean hidden state of each captured row, as an fp32 tensor (rows, d). Clear the captured states."""
        (hidden, mask), self.captured = self.captured, None
        if mask is None or mask.dim() != 2:  # other masks don't show which tokens are padding
            return hidden.float().mean(1)  # type: ignore[no-any-return]
        weights = mask.float() / mask.float().sum(1, keepdim=True)
        return torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        y = super().forward(self.features() if self.active else x, *args, **kwargs)
        return y.unsqueeze(1).expand(-1, x.shape[1], -1) if self.active and self.every_token else y


class Ahead(MethodLayer):
    """Trainable vectors that a forward pre-hook on the model adds in front of every row of the input; see `soft.py`.

    members   In a pack, one module for each member. The batch holds the members' rows one after another.
    """

    def __init__(self, method: Any, start: Mapping[str, Any], members: Iterable[nn.Module] = ()) -> None:
        super().__init__(nn.Identity(), method, start)  # a placeholder, since no layer is replaced
        self.members = nn.ModuleList(members)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Return the trainable vectors to put in front of each row of a batch, as a tensor (rows, ...)."""
        if self.members:
            return torch.cat([member.vectors(rows // len(self.members), dtype) for member in self.members])  # type: ignore[operator]
        vectors: Tensor = self.method.vectors(self).to(dtype)
        return vectors.expand(rows, *vectors.shape)

    def register(self, model: nn.Module, name: str) -> None:
        """Register this module as `model.<name>`, and add a hook to the model's forward pass."""
        setattr(model, name, self)
        self.hook = model.register_forward_pre_hook(self._prepend, with_kwargs=True)

    def _prepend(self, model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if not self.active:
            return None
        call = {**dict(zip(inspect.signature(model.forward).parameters, args, strict=False)), **kwargs}
        rows = next(len(call[key]) for key in ("input_ids", "inputs_embeds") if call.get(key) is not None)
        vectors = self.vectors(rows, model.get_input_embeddings().weight.dtype)
        return (), self.method.prepend(model, call, vectors)


# ---- sites


def site_kind(layer: nn.Module) -> str:
    """Return the kind of adapter that fits a layer: "linear", "embedding", or "" if no adapter fits.

    The layer must have the attribute `plain_linear`, or its type must match exactly, because a subclass may compute
    something else. Embeddings that scale their vectors, as in Gemma and BART, are supported.
    """
    if is_linear(layer) or getattr(layer, "plain_linear", False):
        return "linear"
    scaled = type(layer).__name__.endswith("ScaledWordEmbedding") and len(list(layer.parameters())) == 1
    return "embedding" if type(layer) is nn.Embedding or scaled else ""


def is_linear(layer: nn.Module) -> bool:
    """Return whether a layer computes `W x + b` and nothing else."""
    return type(layer) is nn.Linear or type(layer).__name__ in ("Conv1D", "FalconLinear")


def sites_of(model: nn.Module) -> list[Site]:
    """Return every `Site` of a model, in model order. Task heads are left out, because they are trained directly.

    Raises: BadValue if the model already has an adapter, if its linear layers come from another library, or if the
    weight of a linear layer is not a parameter.
    """
    refuse_adapted(model)
    widths, sites = role_widths(model), list[Site]()
    for name, module in outside_heads(model):
        if is_linear(module) and "weight" not in module._parameters:  # merging can't store a weight in such a layer
            raise BadValue(f"the weight of {name} is computed in each step, as in pruning: make it a parameter first")
        if kind := site_kind(module):
            out_features, in_features = out_by_in(module).shape
            if kind == "embedding":  # the weight is (vocabulary, d), which is (in, out)
                in_features, out_features = out_features, in_features
            sites += sites_of_layer(name, in_features, out_features, kind, widths)
    if not any(site.kind == "linear" and site.role not in ("head", "pooler") for site in sites):
        foreign = (type(m).__name__ for m in model.modules() if isinstance(m, nn.Linear) and not site_kind(m))
        if name := next(foreign, ""):
            message = f"the linear layers of this model are of type {name}, which cannot be adapted"
            raise BadValue(f"{message}: load the model unquantized, or in 4 bits with load_model(name, dtype='nf4')")
    return sites


def role_widths(model: nn.Module) -> dict[str, int]:
    """Return the output width of each role in a model's fused layers, or {} if the order of the roles is unknown."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", "") not in PLAIN_FUSED or getattr(config, "is_heterogeneous", False):
        return {}
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    inner = getattr(config, "intermediate_size", None) or 0
    return {"q": heads * head_dim, "k": kv, "v": kv, "gate": inner, "up": inner}


def heads_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the path and module of each task head with parameters. A language model has no task heads.

    A pooler that is missing from a classifier's checkpoint counts as a head.
    """
    names = (*HEADS, *getattr(model, "lora_lab_random_heads", ()))
    return [(name, m) for name, m in model.named_modules() if name in names and any(True for _ in m.parameters())]


def outside_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and module of everything except the task heads."""
    heads = {module for _, head in heads_of(model) for module in head.modules()}
    return ((name, module) for name, module in model.named_modules() if module not in heads)


def scores_last_token(model: Any) -> bool:
    """Return whether a model is a causal classifier: it scores each token, but only the last token's scores matter."""
    named = hasattr(model, "classifier") and model.config.model_type in ("ctrl", "modernbert-decoder")
    return "TokenClassification" not in type(model).__name__ and (named or hasattr(model, "score"))


# ---- attaching and removing


def wrap(model: nn.Module, path: str, adapter: AdapterLayer) -> None:
    """Replace the layer at `path` with an adapter that wraps the layer, and keep the layer's train or eval mode."""
    put(model, path, adapter.train(adapter.base_layer.training))


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the submodule at `path`. Raises: BadValue if the path names the model itself."""
    parent, _, leaf = path.rpartition(".")
    if not leaf:
        raise BadValue("this model is a single layer, which cannot be replaced: wrap it in nn.Sequential(layer)")
    container = model.get_submodule(parent)
    setattr(container, leaf, module)
    if isinstance(container, nn.TransformerEncoderLayer) and isinstance(module, AdapterLayer):
        module.register_forward_pre_hook(_do_nothing)  # in eval mode, torch calls the layer only if it has a hook
        for encoder in model.modules():  # in eval mode, only torch's fused encoder layers accept nested tensors
            if isinstance(encoder, nn.TransformerEncoder):
                vars(encoder).setdefault("nested_before", encoder.use_nested_tensor)
                encoder.use_nested_tensor = False


def _do_nothing(*_: object) -> None:  # not a lambda, so that models can be pickled
    pass


def train_heads(model: nn.Module) -> None:
    """Replace each task head with a trainable copy, unless the method has already replaced the heads.

    Issue a warning about other layers outside the base model, because they stay frozen and may be random.
    """
    if any(isinstance(head, AdapterLayer) for _, head in heads_of(model)):
        return
    base, embeddings = getattr(model, "base_model_prefix", ""), getattr(model, "get_output_embeddings", lambda: None)
    if hasattr(model, base) and embeddings() is None:  # it contains a base model and is not a language model
        parts = [part for part in model.named_children() if part[0] not in (base, *dict(heads_of(model)))]
        frozen = [(name, part) for name, part in parts if not all(p.requires_grad for p in part.parameters())]
        if names := ", ".join(name for name, part in frozen if not isinstance(part, AdapterLayer)):
            which = f"{names} of this {type(model).__name__} is neither the base model nor a known head"
            fate = "it stays frozen, and is random if the checkpoint lacks it"
            warn(f"{which}: {fate}; to adapt it, name its layers as targets")
    for name, head in heads_of(model):
        wrap(model, name, TrainedCopy(head))


@contextmanager
def restore_on_error(model: nn.Module) -> Iterator[None]:
    """If the `with` block raises an error, remove the adapters and restore `requires_grad` of every parameter."""
    saved = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    except BaseException:
        remove_adapters(model)
        for parameter, requires_grad in saved:
            parameter.requires_grad_(requires_grad)
        raise


def remove_adapters(model: nn.Module) -> None:
    """Remove everything that a method added to a model, including the report."""
    model = inside(model)
    while parts := list(adapter_layers(model)):
        path, part = parts[0]  # outer adapters come first
        if isinstance(part, Ahead):
            delattr(model, path)
        else:
            model.set_submodule(path, part.base_layer)
        if hook := getattr(part, "hook", None):
            hook.remove()
    for module in model.modules():
        if "nested_before" in vars(module):
            module.use_nested_tensor = vars(module).pop("nested_before")
    vars(model).pop("lora_lab_report", None)


# ---- inspecting a model

_WRAPPERS = {"OptimizedModule": "_orig_mod"}  # {class: the attribute that holds the inner model}
_WRAPPERS |= dict.fromkeys(("DataParallel", "DistributedDataParallel", "AveragedModel"), "module")


def inside(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers such as `DataParallel`. Raises: BadValue if an object is not a model."""
    while attribute := _WRAPPERS.get(type(model).__name__):
        model = getattr(model, attribute)
    if not isinstance(model, nn.Module):
        raise BadValue(f"{str(model)[:60]!r} is a {type(model).__name__}, not a model: load one with load_model(name)")
    return model


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode in the `with` block, then restore the mode of each module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def refuse_adapted(model: nn.Module) -> None:
    """Raise BadValue if an object is not a model, is wrapped by torch, or already has an adapter."""
    if inside(model) is not model:
        kind = type(model).__name__
        raise BadValue(f"this model is wrapped in {kind}: pass the inner model, model.{_WRAPPERS[kind]}, instead")
    refuse_peft(model)
    if is_adapted(model):
        raise BadValue("this model already has an adapter; remove it first with detach(model)")


def refuse_peft(model: nn.Module) -> None:
    """Raise BadValue if a model has a PEFT adapter, which this lab would overlook."""
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise BadValue("this model has a PEFT adapter: remove it first with unload() or merge_and_unload()")


def is_adapted(model: nn.Module) -> bool:
    """Return whether a method is attached to the model."""
    return hasattr(model, "lora_lab_report") or any(True for _ in adapter_layers(model))


def report_of(model: nn.Module) -> Any:
    """Return the `Report` of a model's adapter. Raises: BadValue if it has a bank, a PEFT adapter, or no adapter."""
    if hasattr(model := inside(model), "lora_lab_report"):
        return model.lora_lab_report
    if name := next((name for name, module in model.named_modules() if hasattr(module, "lora_lab_report")), ""):
        raise BadValue(f"the adapter belongs to module {name} of this {type(model).__name__}: pass that module instead")
    if is_adapted(model):
        raise BadValue("this model has a bank of adapters: bank.save(name, folder) saves one, bank.close() removes all")
    refuse_peft(model)
    raise BadValue("this model has no adapter; attach one first, for example LoRA(rank=8).attach(model)")


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Yield the path and module of everything that a method added to a model, outer adapters before inner ones."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AdapterLayer))


def method_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """For each layer that a `LayerMethod` changes, yield its path in the plain model, and its adapter."""
    return ((plain_path(name), layer) for name, layer in adapter_layers(model) if isinstance(layer, MethodLayer))


def plain_path(path: str) -> str:
    """Return a layer's path in the model without adapters, given its path in the adapted model."""
    return path.replace(".base_layer", "")


def own_parameters(part: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield an adapter's parameters with their names, except those of the frozen layer inside the adapter."""
    return ((name, p) for name, p in part.named_parameters() if not name.startswith("base_layer."))


def adapter_parameters(model: nn.Module) -> set[int]:
    """Return the ids of the parameters of all adapters and heads, whether or not they are trained."""
    return {id(p) for _, part in adapter_layers(model) for _, p in own_parameters(part)}


def parameters_of_parts(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Yield the path, name and value of each trainable parameter outside the heads. Yield shared parameters once."""
    seen = {id(p) for _, head in heads_of(model) for p in head.parameters()}
    adapters: list[tuple[str, Any]] = [(path, own_parameters(part)) for path, part in adapter_layers(model)]
    for path, named in [*adapters, *((path, module._parameters.items()) for path, module in model.named_modules())]:
        for name, p in named:
            if p is not None and p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                yield path, name, p


def quantized_layers(model: nn.Module) -> list[Any]:
    """Return the quantized layers of a model; see `quant.py`."""
    return [module for module in model.modules() if hasattr(module, "dequantized")]


def is_offloaded(model: nn.Module) -> bool:
    """Return whether any layer's weights are on the meta device when they aren't in use."""
    return any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in model.modules())


def shapes_of(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device, to keep only shapes. Leave out accelerate's hooks, because they hold weights.

    Raises: BadValue if torch cannot copy the model, for example if it stores a tensor that it has computed.
    """
    memo: dict[int, object] = {id(b): b.data.to("meta") for b in model.buffers()}
    memo |= dict.fromkeys(id(module._hf_hook) for module in model.modules() if hasattr(module, "_hf_hook"))
    memo |= {id(p): nn.Parameter(p.data.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise BadValue(f"this {type(model).__name__} cannot be copied with copy.deepcopy: {error}") from error


def fingerprint(model: nn.Module) -> str:
    """Return a short hash of a plain model, computed from the first values of every weight matrix, rounded to bf16.

    A checkpoint's hash is the same in fp32, bf16 and quantized formats. In fp16 or with offloaded weights, it is empty.
    """
    if quantized_layers(model):
        return str(getattr(model, "lora_lab_fingerprint", ""))  # computed before quantization
    heads = tuple(f"{name}." for name, _ in heads_of(model))
    matrices = [(name, p) for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith(heads)]
    if is_offloaded(model) or any(p.dtype == torch.float16 for _, p in matrices):
        return ""
    digest = sha256()
    for name, p in sorted(matrices):
        digest.update(f"{name}{tuple(p.shape)}".encode())
        if not (p.is_meta or isinstance(p, FakeTensor)):  # meta and fake tensors have no values
            digest.update(p.detach()[:1, :16].to("cpu", torch.bfloat16).float().numpy().tobytes())
    return digest.hexdigest()[:16]
