"""Follow each storage in a training step of a real model, or of a model that is built without data.

A meta tensor has a shape and a dtype but no data, so a laptop without a GPU can build, train and trace a 70B model.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from lora_lab.accounting.kernels import stand_ins
from lora_lab.accounting.models import auto_class, known_config, meta_model, task_of
from lora_lab.accounting.setup import STEP, Moment, Setup
from lora_lab.accounting.tracker import Tracker
from lora_lab.errors import BadValue, LabError, LabWarning
from lora_lab.layers import LoRALinear
from lora_lab.machine import BUILDING, quiet
from lora_lab.methods.attach import Ahead, adapter_layers, own_parameters
from lora_lab.methods.quant import quantize_model

logging.getLogger(FakeTensorMode.__module__).disabled = True  # it prints the traceback of errors that are raised anyway
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CACHES = {"DynamicCache", "DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}  # caches of keys and values only
FLAT = (  # these models accept only a mask of shape (rows, tokens)
    "Bloom", "Deberta", "LongT5", "LayoutLM", "Esm", "Canine", "OpenAIGPT", "Mamba", "Mra", "Yoso", "Funnel",
    "FalconMamba", "XLNet", "Nystromformer", "EuroBert",
)  # fmt: skip
CODES = ("packed", "absmax", "scales", "offset")
Point = tuple[int, int, int]  # batch, tokens, rank; rank 0 means the method's own rank


class Trace(NamedTuple):
    """A trace of the forward and backward passes at one batch size and length.

    trained   An (elements, bytes per element) pair for each trainable tensor.
    events    The tracker's events in three lists: creating the weights, the two passes, and freeing the gradients.
    """

    moments: list[Moment]
    trained: list[tuple[int, int]]
    flops: int
    events: tuple[list[tuple[int, int]], ...]


def build(config: Mapping[str, Any], setup: Setup) -> nn.Module:
    """Build a config's model with random weights and with the setup's dtype, dropout and quantization."""
    full_config = known_config(config)
    full_config.use_cache = False
    for name, value in vars(full_config).items():
        if ("dropout" in name or name.endswith("pdrop")) and not isinstance(value, bool):
            setattr(full_config, name, float(setup.dropout))
    full_config.num_labels = setup.num_labels
    full_config.problem_type = "single_label_classification" if setup.num_labels > 1 else None
    if full_config.is_encoder_decoder and getattr(full_config, "decoder_start_token_id", None) is None:
        full_config.decoder_start_token_id = full_config.pad_token_id  # as in T5 and BART; configs often omit it
    with BUILDING:
        model: Any = auto_class(full_config).from_config(full_config, dtype=DTYPES[setup.dtype])
    for module in model.modules():
        if getattr(module, "rope_type", "") == "dynamic":  # it would read the positions' values
            module.rope_type = "default"
    if not full_config.is_encoder_decoder:
        model.loss_type = model.loss_type or "ForCausalLM"  # GPT-2's class name does not imply this type
    if setup.quantized != "none":
        quantize_model(model, setup.quantized)
    return model


def prepare(model: nn.Module, method: Any, setup: Setup) -> dict[str, str]:
    """Attach the method, set the adapters' dtype and checkpointing, and return the part that each tensor belongs to."""
    base = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    with warnings.catch_warnings(action="ignore", category=LabWarning):  # about layers that stay frozen
        if method is not None:
            method.attach(model)
    adapters = [part for _, part in adapter_layers(model) if not part.head]
    for part in adapters if setup.adapter_dtype != "auto" else ():
        for _, parameter in own_parameters(part):
            parameter.data = parameter.data.to(DTYPES[setup.adapter_dtype])
        if setup.adapter_dtype != "fp32" or isinstance(part, Ahead):  # a prompt takes the dtype of the embeddings
            continue
        if part.out_slice:
            raise BadValue("PEFT adapts fused layers as a whole: use target c_attn or qkv_proj, or omit adapter_dtype")
        if type(part) is not LoRALinear:
            raise BadValue("only plain LoRA on linear layers can be traced with adapter_dtype fp32: omit adapter_dtype")
        part.forward = MethodType(_in_fp32, part)  # type: ignore[method-assign]  # adapters also compute in fp32
    model.train()
    if setup.checkpointing:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # later releases rename the option
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
    parts = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        in_base = f"base in {setup.quantized}" if setup.quantized != "none" and name.endswith(CODES) else "base"
        parts[name] = in_base if id(tensor) in base else "adapters and head"
    return parts


def follow(model: nn.Module, method: Any, setup: Setup, optimizer: Any) -> Tracker:
    """Attach the method, take two steps, and track only the second, when the optimizer already has its states.

    optimizer   A function that makes an optimizer from the trainable parameters.
    """
    parts = prepare(model, method, setup)
    with Tracker() as tracker:
        optim = optimizer(tracker.claim_model(model, parts))
        for _ in range(2):
            tracker.restart()
            outputs = forward_backward(model, setup, tracker)
            tracker.enter(STEP)
            optim.step()
            states = (v for state in optim.state.values() for v in state.values() if isinstance(v, Tensor))
            tracker.claim(states, "optimizer", "states")
            model.zero_grad()
            del outputs
    return tracker


@contextmanager
def without_data(
    config: Mapping[str, Any], method: Any, setup: Setup
) -> Iterator[tuple[nn.Module, Tracker, list[nn.Parameter]]]:
    """Build and track a model without data. For backward, it saves the same tensors as on the setup's device.

    Yield the model with the method attached, its tracker, and its trainable parameters.
    Raises: BadValue for a model whose step depends on the values of tensors.
    """
    cuda = setup.device == "cuda"
    # Fake tensors report a CPU as their device, so CPU kernels run. For CUDA, use meta tensors: they are twice as fast.
    fake = nullcontext() if cuda else FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with fake, stand_ins(cuda):
            with torch.device("meta") if cuda else nullcontext():
                model = build(config, setup)
            parts = prepare(model, method, setup)
            with Tracker() as tracker:
                yield model, tracker, tracker.claim_model(model, parts)
    except LabError:
        raise
    except Exception as error:  # transformers may raise any error for an odd config
        kind = config.get("model_type", "")
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        message = f"a step of {kind} cannot be traced without data ({reason}); try bert-base, gpt2 or llama-3.2-1b"
        raise BadValue(message) from error


def record(config: Mapping[str, Any], method: Any, setup: Setup, points: Sequence[Point]) -> list[Trace]:
    """Trace the forward and backward passes of one model at each point, without data or an optimizer."""
    traces = []
    for rank, same_rank in groupby(points, key=lambda point: point[2]):
        ranked = replace(method, rank=rank) if rank else method
        with without_data(config, ranked, setup) as (model, tracker, trained):
            weights = len(tracker.events)
            for batch, seq, _ in same_rank:
                tracker.restart()
                start = len(tracker.events)
                outputs = forward_backward(model, replace(setup, batch=batch, seq=seq), tracker)
                tracker.enter(STEP)
                end = len(tracker.events)
                sizes = [(p.numel(), p.element_size()) for p in trained if p.grad is not None]  # AdamW skips the others
                model.zero_grad()
                del outputs
                events = tracker.events[:weights], tracker.events[start:end], tracker.events[end:]
                traces.append(Trace(tracker.moments, sizes, tracker.flops, events))
    return traces


def forward_backward(model: nn.Module, setup: Setup, tracker: Tracker | None = None) -> Any:
    """Run forward, loss and backward on rows of full length. Return the outputs that the training loop still holds."""
    enter = tracker.enter if tracker else lambda phase: None
    enter("forward")
    ids = torch.zeros(setup.batch, setup.seq, dtype=torch.long, device=next(model.parameters()).device)
    kind = torch.float32 if setup.num_labels == 1 else torch.long  # one label: regression
    classes = ids.new_zeros(setup.batch, dtype=kind)
    labels = classes if "SequenceClassification" in type(model).__name__ else ids.clone()
    padding = {"attention_mask": _mask(setup, model)} if setup.padded else {}
    if setup.padded and type(model).__name__.startswith("OPT"):  # OPT computes positions from a two-dimensional mask
        padding["position_ids"] = ids.new_zeros(setup.batch, padding["attention_mask"].shape[2])
    outputs = model(input_ids=ids, labels=labels, use_cache=True, **padding) if setup.outputs_kept else None
    loss: Tensor = (outputs or model(input_ids=ids, labels=labels, **padding)).loss
    enter("backward")
    loss.backward()
    return outputs


def kv_cache(model: Any) -> list[tuple[int, int]]:
    """For each layer, return the bytes per token of its keys and values, and its window in tokens (0 for none).

    Raises: BadValue for a model that keeps state other than keys and values.
    """
    ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad(), quiet():  # some models warn about the cache's old name
        cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    layers = getattr(cache, "layers", [])
    if not layers or not {type(part).__name__ for part in (cache, *layers)} <= CACHES:
        kind = model.config.model_type
        raise BadValue(f"the state that {kind} keeps while generating is not covered; try llama-3-8b or gemma-2-9b")
    filled = [part for part in layers if part.keys is not None]  # the layers without keys use those of an earlier layer
    sizes = [(part.keys.nbytes + part.values.nbytes) // part.keys.shape[2] for part in filled]
    return [(size, getattr(part, "sliding_window", 0)) for size, part in zip(sizes, filled, strict=True)]


def _mask(setup: Setup, model: nn.Module) -> Tensor:
    """Return the attention mask that transformers makes for rows of unequal length: (rows, 1, queries, keys).

    With ALiBi (BLOOM, Falcon) and for `FLAT` models, return a mask (rows, tokens), which these models expand.
    """
    if type(model).__name__.startswith(FLAT) or getattr(model.config, "alibi", False):
        return torch.ones(setup.batch, setup.seq, dtype=torch.long, device=next(model.parameters()).device)
    parameters = dict(model.named_parameters())
    prompt, prefix = (len(parameters.get(f"soft_{name}.prompt", ())) for name in ("prompt", "prefix"))
    queries, device = prompt + setup.seq, next(model.parameters()).device
    return torch.ones(setup.batch, 1, queries, prefix + queries, dtype=torch.bool, device=device)


def _in_fp32(layer: Any, x: Tensor) -> Tensor:
    """Run an adapted layer as PEFT does on a half-precision base: the adapter is in fp32, and the sum is cast back."""
    y: Tensor = layer.base_layer(x)
    h = nn.functional.linear(layer.dropout(x.to(torch.float32)), layer.lora_A)
    return (y + nn.functional.linear(h, layer.lora_B) * layer.scaling).to(y.dtype)


def depth_of(config: Mapping[str, Any], method: Any) -> tuple[int, int, int] | None:
    """Return (layers, irregular, period): after the first `irregular` layers, the rest repeat every `period` layers.

    The method is attached, because it may adapt only some layers. Return None if there are several stacks of layers, or
    if layers are not in a ModuleList.
    """
    full_config = known_config(config)
    model: Any = meta_model(config, 2 if task_of(full_config) == "encoder" else None)  # raises if it cannot be built
    with warnings.catch_warnings(action="ignore", category=LabWarning):
        method.attach(model)
    n = getattr(full_config, "num_hidden_layers", 0)  # a model for text and images has several stacks
    stack = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n), None)
    if not stack or model.config.is_encoder_decoder:
        return None
    kinds = getattr(model.config, "layer_types", None) or [""] * n
    shapes = ([(name, p.shape, p.requires_grad) for name, p in layer.named_parameters()] for layer in stack)
    signatures = list(zip(kinds, shapes, strict=True))
    for period in range(1, n // 2 + 1):
        irregular = max((i + 1 for i in range(n - period) if signatures[i] != signatures[i + period]), default=0)
        if irregular + period <= n // 2:
            return n, irregular, period
    return n, 0, n


def at_depth(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Return the config with this many layers. Lists with one entry per layer are shortened or extended."""
    fields, n = dict(config), known_config(config).num_hidden_layers
    fields[next((name for name in ("n_layer", "num_layers") if name in fields), "num_hidden_layers")] = layers
    for name, value in fields.items():
        if isinstance(value, list) and len(value) == n:
            period = next((p for p in range(1, n) if value[n // 2 : -p] == value[n // 2 + p :]), n)
            fields[name] = (value + value[-period:] * layers)[:layers]
    return fields
