"""One training step followed storage by storage: over tensors without data for any model, or on a real one.

A meta tensor has a shape and a dtype and no numbers, so a model of 70 billion is built, trained for two steps and
followed on a laptop, without weights and without a GPU. The second step counts: in the first the optimizer has no
states yet.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MethodType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from lora_lab.accounting.fit import STEP, Depth, NoFit, Run
from lora_lab.accounting.kernels import EightBitAdamW, FusedAdamW, MasterWeights, quantise, stand_ins
from lora_lab.accounting.models import auto_class, known_config, task_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.tracker import OPTIMIZER, Moment, Tracker
from lora_lab.errors import BadValue

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "attention_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout_rate", "hidden_dropout", "resid_dropout", "embed_dropout"),
)  # what families call it
ADAPTERS = ("lora_A", "lora_B", "lora_magnitude_vector")


class Attaches(Protocol):
    """A method, as far as a trace needs it."""

    def attach(self, model: Any) -> Any:
        """Freeze what is frozen and add what trains."""
        ...


@contextmanager
def no_data(setup: Setup) -> Iterator[None]:
    """Inside the block, `empty` models have no data, and kernels keep what the set-up's device keeps."""
    # A fake tensor knows that it is on a CPU, so it picks a CPU's kernels; meta tensors are twice as fast.
    fake = nullcontext() if setup.device == "cuda" else FakeTensorMode(allow_non_fake_inputs=True)
    with fake, stand_ins(cuda=setup.device == "cuda"):
        yield


def empty(config: Mapping[str, Any], setup: Setup, num_labels: int = 2) -> nn.Module:
    """`build` without data, inside `no_data`."""
    with torch.device("meta") if setup.device == "cuda" else nullcontext():
        return build(config, setup, num_labels)


def build(config: Mapping[str, Any], setup: Setup, num_labels: int = 2) -> nn.Module:
    """The model of a config in the set-up's dtype, its dropout set; random weights, see `empty`."""
    known = known_config(config)
    known.use_cache = False
    for name in DROPOUTS:
        if hasattr(known, name):
            setattr(known, name, setup.dropout)
    known.num_labels = num_labels
    if known.is_encoder_decoder and getattr(known, "decoder_start_token_id", None) is None:
        known.decoder_start_token_id = known.pad_token_id  # T5's and BART's own; a bare config leaves it out
    loader = auto_class(known, classify=task_of(known) == "encoder")
    attention = "sdpa" if loader._model_mapping[type(known)]._supports_sdpa else "eager"
    made = loader.from_config(known, dtype=DTYPES[setup.dtype], attn_implementation=attention)
    if not known.is_encoder_decoder:
        made.loss_type = made.loss_type or "ForCausalLM"  # GPT-2's name does not say it, and then it warns
    return made


def prepare(model: nn.Module, method: Attaches | None, setup: Setup) -> set[str]:
    """Quantize the model, attach the method, set the adapters' dtype; the names of the base's own tensors."""
    if setup.quantised != "none":
        quantise(model, setup.quantised)
    base = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if method is not None:
        method.attach(model)
    _set_adapters(model, setup)
    model.train()
    if setup.checkpointing:
        with warnings.catch_warnings():  # it has another name in later releases
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
    named = (*model.named_parameters(), *model.named_buffers())
    return {name for name, tensor in named if id(tensor) in base}


def weights(config: Mapping[str, Any], method: Attaches | None, setup: Setup) -> dict[str, int]:
    """Bytes of a model's weights and buffers, by part, its method attached."""
    with no_data(setup):
        model = empty(config, setup)
        base = prepare(model, method, setup)
        with Tracker() as tracker:
            tracker.claim_model(model, lambda name: part_of(base, setup, name))
    live = tracker.moments[-1].live
    return {where: live[i] for (_, where), i in tracker.labels.items() if live[i]}


def part_of(base: set[str], setup: Setup, name: str) -> str:
    """Which part of the model a parameter belongs to."""
    if name not in base:
        return "adapters and head"
    return f"base in {setup.quantised}" if "_codes" in name or "_absmax" in name else "base"


def follow(model: nn.Module, method: Attaches, setup: Setup) -> Tracker:
    """Attach the method, take two steps, and follow the second; on a real model the steps are real ones."""
    base = prepare(model, method, setup)
    optimizer = optimizer_of([p for p in model.parameters() if p.requires_grad], setup)
    with Tracker(getattr(model.config, "vocab_size", 0)) as tracker:
        tracker.claim_model(model, lambda name: part_of(base, setup, name))
        for _ in range(2):
            tracker.restart()
            outputs = forward_backward(model, setup, tracker)
            step(optimizer, tracker)
            del outputs
    return tracker


def forward_backward(model: nn.Module, setup: Setup, tracker: Tracker | None = None) -> Any:
    """Forward, loss, backward; rows are full, so nothing is padded. What the loop's variables still hold comes back."""
    tell = tracker.enter if tracker else lambda phase: None
    tell("forward")
    where = next(model.parameters()).device
    ids = torch.zeros(setup.batch, setup.seq, dtype=torch.long, device=where)
    classifies = "SequenceClassification" in type(model).__name__
    labels = torch.zeros(setup.batch, dtype=torch.long, device=where) if classifies else ids.clone()
    padding = {"attention_mask": _mask(setup, model)} if setup.padded else {}
    outputs = model(input_ids=ids, labels=labels, use_cache=True, **padding) if setup.outputs_kept else None
    loss: Tensor = (outputs or model(input_ids=ids, labels=labels, **padding)).loss
    tell("backward")
    loss.backward()
    return outputs


def step(optimizer: Any, tracker: Tracker, phase: str = STEP) -> None:
    """The optimizer's step, its states claimed, and the gradients dropped."""
    tracker.enter(phase)
    optimizer.step()
    states = (value for state in optimizer.state.values() for value in state.values())
    tracker.claim((value for value in states if isinstance(value, Tensor)), OPTIMIZER, "states")
    optimizer.zero_grad(set_to_none=True)


def optimizer_of(trained: Sequence[Tensor], setup: Setup) -> Any:
    """The optimizer in the form that the set-up names."""
    name = setup.optimizer

    def make(parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        if name == "sgd":
            return torch.optim.SGD(parameters, lr=1e-4, foreach=False)
        if name == "adamw-8bit":
            return EightBitAdamW(parameters, {"lr": 1e-4})
        if name == "adamw-fused" and all(p.is_meta for p in parameters):
            return FusedAdamW(parameters, {"lr": 1e-4})
        return torch.optim.AdamW(
            parameters, lr=1e-4, foreach=name == "adamw-foreach", fused=name == "adamw-fused" or None
        )

    return MasterWeights(trained, make) if setup.master_weights else make(trained)


def _mask(setup: Setup, model: nn.Module) -> Tensor:
    """Which token may attend to which, as transformers makes it of rows of unequal length: (batch, 1, asks, all)."""
    own = dict(model.named_parameters())
    prompt = len(own["soft_prompt.prompt"]) if "soft_prompt.prompt" in own else 0
    prefix = own["soft_prefix.keys_values"].shape[1] if "soft_prefix.keys_values" in own else 0
    asks, where = prompt + setup.seq, next(model.parameters()).device
    return torch.ones(setup.batch, 1, asks, prefix + asks, dtype=torch.bool, device=where)


def _set_adapters(model: nn.Module, setup: Setup) -> None:
    """The adapters in another dtype than the lab's own, or multiplied in another, where the set-up asks for it."""
    if setup.adapter_dtype == "auto":
        return
    for path, module in model.named_modules():
        own = list(module.named_parameters(recurse=False))
        for name, parameter in own:
            trains = name in ADAPTERS or path.startswith(("soft_prompt", "soft_prefix"))
            if trains and parameter.dtype != DTYPES[setup.adapter_dtype]:
                other = parameter.detach().to(DTYPES[setup.adapter_dtype])
                setattr(module, name, nn.Parameter(other, requires_grad=parameter.requires_grad))
        if setup.adapter_dtype != "fp32":
            continue
        if getattr(module, "rows", None):
            raise BadValue(
                "PEFT adapts a fused layer as a whole: name it (c_attn, qkv_proj), or leave adapter_dtype out"
            )
        if hasattr(module, "start_A") or hasattr(module, "lora_magnitude_vector"):
            raise BadValue("dora and pissa are traced as the lab multiplies them: leave adapter_dtype out")
        if any(name == "lora_A" for name, _ in own):
            module.forward = MethodType(_in_fp32, module)  # type: ignore[assignment]


def _in_fp32(layer: Any, x: Tensor) -> Tensor:
    """An adapted layer as PEFT runs it beside a half-precision base: the detour in fp32, the sum cast back."""
    y: Tensor = layer.base_layer(x)
    h = nn.functional.linear(layer.dropout(x.to(torch.float32)), layer.lora_A)
    return (y + nn.functional.linear(h, layer.lora_B) * layer.scaling).to(y.dtype)


def depth_of(config: Mapping[str, Any]) -> Depth:
    """How a model's layers repeat. Raises: NoFit for two stacks of layers, or layers that do not repeat."""
    model = empty(config, Setup())
    known: Any = model.config
    if known.is_encoder_decoder:
        raise NoFit("an encoder and a decoder are traced together, case by case")
    n = known.num_hidden_layers
    stack = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n), None)
    if stack is None:
        raise NoFit("its layers are no list of modules")
    kinds = getattr(known, "layer_types", None) or [""] * n
    signs: list[Any] = [
        (kind, *((name, p.shape) for name, p in m.named_parameters())) for kind, m in zip(kinds, stack, strict=True)
    ]
    for period in range(1, n // 2 + 1):
        irregular = max((i + 1 for i in range(n - period) if signs[i] != signs[i + period]), default=0)
        if irregular + period <= n // 2:
            return Depth(n, irregular, period)
    return Depth(n, 0, n)


def at_depth(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The config of a model with so many layers; lists with an entry for each layer get shorter, or repeat."""
    fields = dict(config)
    for own in ("num_hidden_layers", "n_layer", "num_layers"):
        if own in fields:
            was, fields[own] = fields[own], layers
            break
    else:
        raise NoFit("its config does not say how many layers there are")
    for name, value in fields.items():
        if isinstance(value, list) and len(value) == was:
            period = next((p for p in range(1, was) if value[was // 2 :][: -p or None] == value[was // 2 + p :]), was)
            fields[name] = [value[i] if i < was else value[was - period + (i - was) % period] for i in range(layers)]
    return fields


# ---- what a fit asks for: several points of one model, every optimizer at once


def record(
    config: Mapping[str, Any],
    method: Attaches,
    setup: Setup,
    points: Sequence[tuple[int, int]],
    optimizers: Sequence[str],
    num_labels: int = 2,
) -> Run:
    """Steps of one model at each (batch, tokens), without any optimizer's states, and each optimizer's own step."""
    with no_data(setup):
        model = empty(config, setup, num_labels)
        base = prepare(model, method, setup)
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        phases: dict[str, list[list[Moment]]] = {}
        flops: dict[str, list[int]] = {"forward": [], "backward": []}
        states: dict[str, int] = {}

        def give_back(trained: Any, gradients: Sequence[Tensor | None]) -> None:
            for (_, p), gradient in zip(trained, gradients, strict=True):
                p.grad = gradient

        def note() -> None:
            by_phase: dict[str, list[Moment]] = {}
            for moment in tracker.moments:
                by_phase.setdefault(moment.phase, []).append(moment)
            for phase, moments in by_phase.items():
                phases.setdefault(phase, []).append(moments)
            tracker.restart()

        with Tracker(getattr(model.config, "vocab_size", 0)) as tracker:
            tracker.claim_model(model, lambda name: part_of(base, setup, name))
            forward_backward(model, replace(setup, batch=points[0][0], seq=points[0][1]), tracker)
            for number, (batch, seq) in enumerate(points):
                give_back(trained, [None] * len(trained))
                tracker.restart()
                outputs = forward_backward(model, replace(setup, batch=batch, seq=seq), tracker)
                for phase in flops:
                    flops[phase].append(tracker.flops.get(phase, 0))
                note()
                for name in optimizers if number == 0 or setup.outputs_kept else ():
                    optimizer = optimizer_of([p for _, p in trained], replace(setup, optimizer=name))
                    gradients = [p.grad for _, p in trained]
                    step(optimizer, tracker)
                    give_back(trained, gradients)
                    tracker.restart()
                    step(optimizer, tracker, phase=f"{STEP}: {name}")
                    states[name] = tracker.live(OPTIMIZER)
                    give_back(trained, gradients)
                    del optimizer, gradients
                    tracker.moments = [m for m in tracker.moments if m.phase.startswith(STEP)]
                    note()
                del outputs
    size = len(tracker.labels)
    made = {}
    for phase, runs in phases.items():
        ops = [m.op for m in runs[0]]
        if any([m.op for m in other] != ops for other in runs):
            raise NoFit(f"in {phase} the order of operations depends on batch and length")
        live = np.array([[(*m.live, *(0,) * (size - len(m.live))) for m in one] for one in runs], dtype=float)
        made[phase] = (ops, [m.path for m in runs[0]], live)
    return Run(list(tracker.labels), made, states, [(name, p.numel()) for name, p in trained], flops)
