"""One training step followed storage by storage: over tensors without data for any model, or on a real one.

A meta tensor has a shape and a dtype but no numbers, so a laptop without a GPU builds, trains and follows a model of 70
billion parameters without its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from lora_lab.accounting.kernels import quantize_shapes, stand_ins
from lora_lab.accounting.models import auto_class, known_config, task_of
from lora_lab.accounting.setup import STEP, Moment, Setup
from lora_lab.accounting.tracker import Tracker
from lora_lab.errors import BadValue, LabError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ADAPTERS = ("lora_A", "lora_B", "lora_magnitude_vector")
CODES = ("packed", "absmax", "scales", "offset")
PERIODS = 4  # of layers in the shallowest trace: the first and last differ, which leaves two alike in between
Point = tuple[int, int, int]  # batch, tokens, rank; rank 0 is the method's


class Trace(NamedTuple):
    """Forward and backward at one point.

    trained   elements, and bytes per element, of each tensor
    events    as in `Tracker`: those of the weights, of the two passes, and when the gradients are freed
    """

    moments: list[Moment]
    trained: list[tuple[int, int]]
    flops: int
    events: tuple[list[tuple[int, int]], ...]


@dataclass(frozen=True)
class Depth:
    """How a model's layers repeat: `layers` of them, the first `irregular`, then periods of `period`."""

    layers: int
    irregular: int
    period: int

    @property
    def shallow(self) -> list[int]:
        """The depths to trace: two, a period apart, that end as the model does; the model's own if it is shallow."""
        n = self.irregular + PERIODS * self.period
        n += (self.layers - self.irregular) % self.period
        return [n, n + self.period] if self.layers > n + self.period else [self.layers]


@contextmanager
def no_data(setup: Setup, kind: str = "this model") -> Iterator[None]:
    """Inside the block, `empty` models have no data, and kernels keep what the setup's device keeps.

    Raises: BadValue for a model that asks for values.
    """
    # A fake tensor knows that it is on a CPU and picks a CPU's kernels; meta tensors are twice as fast.
    fake = nullcontext() if setup.device == "cuda" else FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with fake, stand_ins(cuda=setup.device == "cuda"):
            yield
    except LabError:
        raise
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        said = f"a step of {kind} cannot be traced without data ({' '.join(str(error).split())[:120]})"
        raise BadValue(f"{said}; try bert-base, gpt2 or llama-3.2-1b") from error


def empty(config: Mapping[str, Any], setup: Setup, num_labels: int = 2) -> nn.Module:
    """`build` without data, inside `no_data`, its linear layers quantized."""
    with torch.device("meta") if setup.device == "cuda" else nullcontext():
        model = build(config, setup, num_labels)
    if setup.quantised != "none":
        quantize_shapes(model, setup.quantised)
    return model


def build(config: Mapping[str, Any], setup: Setup, num_labels: int = 2) -> nn.Module:
    """The model of a config in the setup's dtype and with its dropout; random weights, see `empty`."""
    known = known_config(config)
    known.use_cache = False
    for name, value in vars(known).items():
        if ("dropout" in name or name.endswith("pdrop")) and not isinstance(value, bool):
            setattr(known, name, setup.dropout)
    known.num_labels = num_labels
    if known.is_encoder_decoder and getattr(known, "decoder_start_token_id", None) is None:
        known.decoder_start_token_id = known.pad_token_id  # as T5 and BART have it; a bare config leaves it out
    loader = auto_class(known, classify=task_of(known) == "encoder")
    made: Any = loader.from_config(known, dtype=DTYPES[setup.dtype])
    if not known.is_encoder_decoder:
        made.loss_type = made.loss_type or "ForCausalLM"  # GPT-2's class name does not imply it
    return made


def prepare(model: nn.Module, method: Any, setup: Setup) -> set[str]:
    """Attach the method, set the adapters' dtype and checkpointing; returns the names of the base's own tensors."""
    base = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if method is not None:
        method.attach(model)
    if setup.adapter_dtype != "auto":
        _set_adapters(model, setup.adapter_dtype)
    model.train()
    if setup.checkpointing:
        with warnings.catch_warnings():  # later releases rename it
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
    return {name for name, t in (*model.named_parameters(), *model.named_buffers()) if id(t) in base}


@contextmanager
def tracking(model: nn.Module, method: Any, setup: Setup) -> Iterator[tuple[Tracker, list[nn.Parameter]]]:
    """`prepare` the model; give the block a tracker that knows its parts, and the parameters that train."""
    base = prepare(model, method, setup)

    def part_of(name: str) -> str:
        if name not in base:
            return "adapters and head"
        coded = name.endswith(CODES) and setup.quantised != "none"
        return f"base in {setup.quantised}" if coded else "base"

    with Tracker(getattr(model.config, "vocab_size", 0)) as tracker:
        tracker.claim_model(model, part_of)
        yield tracker, [p for p in model.parameters() if p.requires_grad]


def weights(config: Mapping[str, Any], method: Any, setup: Setup) -> dict[str, int]:
    """Bytes of a model's weights and buffers, by part, with its method attached."""
    with no_data(setup), tracking(empty(config, setup), method, setup) as (tracker, _):
        return {where: size for (_, where), size in tracker.live.items() if size}


def follow(model: nn.Module, method: Any, setup: Setup, optimizer: Any) -> Tracker:
    """Attach the method, take two steps, and follow the second: in the first the optimizer has no states yet.

    optimizer   a function of the tensors that train
    """
    with tracking(model, method, setup) as (tracker, trained):
        made = optimizer(trained)
        for _ in range(2):
            tracker.restart()
            outputs = forward_backward(model, setup, tracker)
            tracker.enter(STEP)
            made.step()
            states = (v for state in made.state.values() for v in state.values() if isinstance(v, Tensor))
            tracker.claim(states, "optimizer", "states")
            for p in trained:
                p.grad = None
            del outputs
    return tracker


def record(
    config: Mapping[str, Any], method: Any, setup: Setup, points: Sequence[Point], num_labels: int = 2
) -> list[Trace]:
    """Forward and backward of one model at each point, over tensors without data and without an optimizer."""
    traces: dict[Point, Trace] = {}
    for rank in dict.fromkeys(rank for *_, rank in points):
        own = replace(method, rank=rank) if rank else method
        with no_data(setup, config.get("model_type", "")):
            model = empty(config, setup, num_labels)
            with tracking(model, own, setup) as (tracker, trained):
                sizes = [(p.numel(), p.element_size()) for p in trained]
                weights = len(tracker.events)
                for point in (point for point in points if point[2] == rank):
                    tracker.restart()
                    start = len(tracker.events)
                    outputs = forward_backward(model, replace(setup, batch=point[0], seq=point[1]), tracker)
                    tracker.enter(STEP)
                    end = len(tracker.events)
                    for p in trained:
                        p.grad = None
                    del outputs
                    events = tracker.events[:weights], tracker.events[start:end], tracker.events[end:]
                    traces[point] = Trace(tracker.moments, sizes, tracker.flops, events)
    return [traces[point] for point in points]


def forward_backward(model: nn.Module, setup: Setup, tracker: Tracker | None = None) -> Any:
    """Forward, loss, backward; all rows are full. Returns what the loop's variables still hold."""
    enter = tracker.enter if tracker else lambda phase: None
    enter("forward")
    ids = torch.zeros(setup.batch, setup.seq, dtype=torch.long, device=next(model.parameters()).device)
    labels = ids.new_zeros(setup.batch) if "SequenceClassification" in type(model).__name__ else ids.clone()
    padding = {"attention_mask": _mask(setup, model)} if setup.padded else {}
    if setup.padded and type(model).__name__.startswith("OPT"):  # it computes positions from a two-dimensional mask
        padding["position_ids"] = ids.new_zeros(setup.batch, padding["attention_mask"].shape[2])
    outputs = model(input_ids=ids, labels=labels, use_cache=True, **padding) if setup.outputs_kept else None
    loss: Tensor = (outputs or model(input_ids=ids, labels=labels, **padding)).loss
    enter("backward")
    loss.backward()
    return outputs


def _mask(setup: Setup, model: nn.Module) -> Tensor:
    """Which token may attend to which, as transformers has it for rows of unequal length: (rows, 1, queries, keys)."""
    own = dict(model.named_parameters())
    prompt, prefix = (len(own.get(f"soft_{name}.prompt", ())) for name in ("prompt", "prefix"))
    queries, where = prompt + setup.seq, next(model.parameters()).device
    return torch.ones(setup.batch, 1, queries, prefix + queries, dtype=torch.bool, device=where)


def _set_adapters(model: nn.Module, dtype: str) -> None:
    """Convert the adapters to a dtype other than the lab's own; fp32 ones are multiplied in fp32 too."""
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        for name, parameter in own.items():
            if name in ADAPTERS or path.startswith(("soft_prompt", "soft_prefix")):
                other = parameter.detach().to(DTYPES[dtype])
                setattr(module, name, nn.Parameter(other, requires_grad=parameter.requires_grad))
        if dtype != "fp32":
            continue
        if getattr(module, "out_slice", None):
            raise BadValue("PEFT adapts a fused layer as a whole: name it (c_attn, qkv_proj), or omit adapter_dtype")
        if hasattr(module, "start_A") or hasattr(module, "lora_magnitude_vector"):
            raise BadValue("dora and pissa are traced as the lab multiplies them: omit adapter_dtype")
        if "lora_A" in own:
            module.forward = MethodType(_in_fp32, module)  # type: ignore[assignment]


def _in_fp32(layer: Any, x: Tensor) -> Tensor:
    """An adapted layer as PEFT runs it beside a half-precision base: the adapter in fp32, the sum cast back."""
    y: Tensor = layer.base_layer(x)
    h = nn.functional.linear(layer.dropout(x.to(torch.float32)), layer.lora_A)
    return (y + nn.functional.linear(h, layer.lora_B) * layer.scaling).to(y.dtype)


def depth_of(config: Mapping[str, Any]) -> Depth | None:
    """How a model's layers repeat; None for two stacks of layers, or layers that are not a list of modules."""
    model = empty(config, Setup())
    known: Any = model.config
    n = known.num_hidden_layers
    stack = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n), None)
    if stack is None or known.is_encoder_decoder:
        return None
    kinds = getattr(known, "layer_types", None) or [""] * n
    shapes = ([(name, p.shape) for name, p in layer.named_parameters()] for layer in stack)
    signs = list(zip(kinds, shapes, strict=True))
    for period in range(1, n // 2 + 1):
        irregular = max((i + 1 for i in range(n - period) if signs[i] != signs[i + period]), default=0)
        if irregular + period <= n // 2:
            return Depth(n, irregular, period)
    return Depth(n, 0, n)


def at_depth(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The config of a model with this many layers; lists with an entry per layer are cut, or repeated."""
    fields, was = dict(config), known_config(config).num_hidden_layers
    fields[next((name for name in ("n_layer", "num_layers") if name in fields), "num_hidden_layers")] = layers
    for name, value in fields.items():
        if isinstance(value, list) and len(value) == was:
            period = next((p for p in range(1, was) if value[was // 2 : -p] == value[was // 2 + p :]), was)
            fields[name] = [value[i] if i < was else value[was - period + (i - was) % period] for i in range(layers)]
    return fields
