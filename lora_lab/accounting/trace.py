"""One training step followed storage by storage: over fake tensors for any model, or on a real one.

A fake tensor has a shape and a dtype and no numbers, so a 70-billion model is built, trained for two steps and
followed on a laptop: no weights, no GPU. The second step is the one that counts, for in the first the optimizer has
no states yet. What the kernels keep differs between devices; `kernels` puts a GPU's in the place of the CPU's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MethodType
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from transformers import masking_utils

from lora_lab.accounting.estimates import NOTES, Estimate, Term
from lora_lab.accounting.four_bit import quantise
from lora_lab.accounting.kernels import cuda_kernels, replaced
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.tracker import OPTIMIZER, Tracker
from lora_lab.errors import BadValue

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "attention_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),
)  # what families call it
STEPS = 2
ADAPTERS = ("lora_A", "lora_B", "lora_magnitude_vector")
NOT_TRACED = ("deberta-v2", "t5")  # one asks for values that fake tensors lack, the other for two stacks of tokens


class Attaches(Protocol):
    """A method, as far as a trace needs it."""

    def attach(self, model: Any) -> Any:
        """Freeze what is frozen and add what trains."""
        ...


def trace(config: Mapping[str, Any], method: Attaches, setup: Setup, *, num_labels: int = 2) -> Estimate:
    """The peak of a training step over fake tensors, exact to the byte for eager PyTorch with transformers' models.

    config      as in config.json; a classifier is built for an encoder, a language model else
    Raises: BadValue for a set-up that is not traced (sharding, 8-bit optimizer, MoE with data-dependent routing).
    """
    setup.check_modelled()
    if setup.shard or setup.optimizer == "adamw-8bit":
        raise BadValue("a trace follows one device and PyTorch's own optimizers; leave out shard and adamw-8bit")
    if config.get("model_type") in NOT_TRACED:
        raise BadValue(f"a step of {config['model_type']} cannot be traced; try bert-base, gpt2 or llama-3.2-1b")
    if any("experts" in field and value for field, value in config.items()) and (
        setup.dtype != "bf16" or setup.quantised != "none"
    ):
        raise BadValue(
            "experts run as one grouped product, which PyTorch has in bf16 alone: trace them so, unquantised"
        )
    kernels = cuda_kernels() if setup.device == "cuda" else nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), kernels, plain_masks():
        found = follow(build(config, setup, num_labels), method, setup, mode="traced")
    return replace(found, notes=NOTES)


def build(config: Mapping[str, Any], setup: Setup, num_labels: int = 2) -> nn.Module:
    """The model of a config, in the set-up's dtype, its dropout set; random weights, or fake ones in a fake mode."""
    fields = copy.deepcopy(dict(config))
    if fields.get("model_type") == "gpt3":
        fields["model_type"] = "gpt2"  # the same layers, larger
    known = transformers.AutoConfig.for_model(**fields)
    known.use_cache = False
    for name in DROPOUTS:
        if hasattr(known, name):
            setattr(known, name, setup.dropout)
    known.num_labels = num_labels
    causal = type(known) in transformers.AutoModelForCausalLM._model_mapping
    encoder = known.model_type in ("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2")
    loader = transformers.AutoModelForCausalLM if causal and not encoder else None
    loader = loader or transformers.AutoModelForSequenceClassification
    attention = "sdpa" if loader._model_mapping[type(known)]._supports_sdpa else "eager"
    made = loader.from_config(known, dtype=DTYPES[setup.dtype], attn_implementation=attention)
    made.loss_type = made.loss_type or "ForCausalLM"  # which GPT-2's name does not say, and then it is warned of
    return made


def follow(model: nn.Module, method: Attaches, setup: Setup, *, mode: str = "measured") -> Estimate:
    """Attach the method, take two steps, and report the second. On a real model the steps are real ones."""
    optimizer = prepare(model, method, setup)
    with Tracker(getattr(model.config, "vocab_size", 0)) as tracker:
        tracker.claim_model(model)
        for _ in range(STEPS):
            tracker.forget_peak()
            step(model, optimizer, setup, tracker)
    formula = "live bytes of tensors, followed storage by storage"
    terms = tuple(Term(category, category, formula, size) for category, size in tracker.at_peak.items())
    return Estimate(mode, tracker.peak, tracker.peak_phase, terms, tracker.phase_peaks)


def prepare(model: nn.Module, method: Attaches, setup: Setup) -> torch.optim.Optimizer:
    """The model as the set-up wants it, the method attached, and the optimizer of what trains."""
    if setup.quantised != "none":
        quantise(model, setup.quantised)
    method.attach(model)
    _set_adapters(model, setup)
    model.train()
    if setup.checkpointing:
        with warnings.catch_warnings():  # it has another name in later releases
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
    return optimizer_of([p for p in model.parameters() if p.requires_grad], setup.optimizer)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, setup: Setup, tracker: Tracker | None = None) -> None:
    """Forward, loss, backward, optimizer step, each told to the tracker; all rows are full, so nothing is padded."""
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
    del loss, ids, labels, padding
    tell("the optimizer's step")
    optimizer.step()
    if tracker:
        states = (value for state in optimizer.state.values() for value in state.values())
        tracker.claim((value for value in states if isinstance(value, Tensor)), OPTIMIZER)
    optimizer.zero_grad(set_to_none=True)


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
        if setup.adapter_dtype == "fp32" and getattr(module, "rows", None):
            raise BadValue(
                "PEFT adapts a fused layer as a whole: name it (c_attn, qkv_proj), or leave adapter_dtype out"
            )
        if setup.adapter_dtype == "fp32" and (hasattr(module, "start_A") or hasattr(module, "lora_magnitude_vector")):
            raise BadValue("dora and pissa are traced as the lab multiplies them: leave adapter_dtype out")
        if setup.adapter_dtype == "fp32" and any(name == "lora_A" for name, _ in own):
            module.forward = MethodType(_in_fp32, module)  # type: ignore[assignment]


def _in_fp32(layer: Any, x: Tensor) -> Tensor:
    """An adapted layer as PEFT runs it beside a half-precision base: the detour in fp32, the sum cast back."""
    y: Tensor = layer.base_layer(x)
    h = nn.functional.linear(layer.dropout(x.to(torch.float32)), layer.lora_A)
    return (y + nn.functional.linear(h, layer.lora_B) * layer.scaling).to(y.dtype)


def optimizer_of(trained: Sequence[Tensor], name: str) -> torch.optim.Optimizer:
    """PyTorch's optimizer in the form that the set-up names."""
    if name == "sgd":
        return torch.optim.SGD(trained, lr=1e-4, foreach=False)
    foreach, fused = name == "adamw-foreach", name == "adamw-fused"
    return torch.optim.AdamW(trained, lr=1e-4, foreach=foreach, fused=fused or None)


def plain_masks() -> AbstractContextManager[Any]:
    """transformers asks the *values* of positions whether rows are packed; fake ones have none, and ours are not."""
    return replaced(masking_utils, "find_packed_sequence_indices", _none)


def _none(position_ids: Tensor) -> None:
    return None
