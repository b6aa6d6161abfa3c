"""What an adapter does to a base: whether it fits, how large it is beside W, whether anything comes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import LabError
from lora_lab.layers import LoRALayer
from lora_lab.methods import faults
from lora_lab.methods.attach import adapted_layers, own_parameters, take_out
from lora_lab.methods.faults import Inspection, Problem, few, problem_of
from lora_lab.methods.io import AdapterFile, load_adapter
from lora_lab.methods.merge_report import MergeReport, Rounding, rounding_of
from lora_lab.methods.merging import disabled
from lora_lab.switched import innermost

TOKENS = 12
LOST = 0.5  # of the update, when it is merged into a half-precision weight
HALF = (torch.bfloat16, torch.float16)


def effect_of(found: Inspection, file: AdapterFile, model: nn.Module) -> None:
    """Load the adapter and add to what was `found`: ratios, does_something, and the faults that only a base shows."""
    with torch.no_grad():
        before = answer_of(model)
    try:
        report = load_adapter(model, file.path)
    except LabError as error:
        if not any(problem.name == faults.RENAMED for problem in found.problems):
            found.problems.append(problem_of(error, "on this base"))
        return
    try:
        with torch.no_grad():
            after = answer_of(model)
            if not report.method.within:
                with disabled(model, keep_head=report.adapter_parameters > 0):
                    before = answer_of(model)
        _weigh(found, model)
        _look_for_unused(found, model)
        _compare(found, before, after)
    finally:
        if not report.method.within:
            take_out(model)


def answer_of(model: nn.Module) -> Tensor:
    """What a model says to two rows of random tokens, always the same ones, in fp32: logits, or last hidden states."""
    generator = torch.Generator().manual_seed(0)
    config: Any = model.config
    place = next(model.parameters()).device
    ids = torch.randint(0, config.vocab_size, (2, TOKENS), generator=generator).to(place)
    both = _both(config, ids) if getattr(config, "is_encoder_decoder", False) else {"input_ids": ids}
    out = model(attention_mask=torch.ones_like(ids), **both)
    answer: Tensor = out[0]  # where an answer begins, of a model that looks for one
    return answer.float()


def _both(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """For encoder and decoder alike, each row with one end: there BART's and T5's classifiers read."""
    end = config.eos_token_id
    if isinstance(end, int):
        ids = torch.where(ids == end, (end + 1) % config.vocab_size, ids)
        ids[:, -1] = end
    return {"input_ids": ids, "decoder_input_ids": ids}


def _compare(found: Inspection, before: Tensor, after: Tensor) -> None:
    if after.shape != before.shape:  # vectors stand ahead of the rows, and are answered as well
        after = after[:, -before.shape[1] :]
    difference = (after - before).abs().max().item()
    if not math.isfinite(difference):
        found.problems.append(Problem(faults.NOT_FINITE, "on this base", "with it the base answers what is no number"))
        return
    found.difference, found.does_something = difference, difference > 0
    known = {problem.name for problem in found.problems}
    if not found.does_something and not known & {faults.ZERO_B, faults.CUT, faults.ROUNDED}:
        why = "the base gives the same logits with it and without it"
        found.problems.append(Problem(faults.NO_EFFECT, "on this base", why))


@torch.no_grad()
def _weigh(found: Inspection, model: nn.Module) -> None:
    """||W|| of each module, and how much of the update a merge into a half-precision weight would keep."""
    found.norms = [replace(norm, weight=_frozen(model, norm.module).float().norm().item()) for norm in found.norms]
    layers = [(path, layer) for path, layer in _lora(model) if layer.frozen_weight().dtype in HALF]
    report = MergeReport(tuple(_written(path, layer) for path, layer in layers))
    if report.rounding > LOST:
        why = f"merged into {report.rounded[0].dtype} weights {report.rounding:.0%} of the update would be rounded away"
        found.problems.append(Problem(faults.ROUNDED, "on this base", why))


def _written(path: str, layer: LoRALayer) -> Rounding:
    """What merging a layer would cost."""
    weight = layer.frozen_weight()
    return rounding_of(path, weight, weight.float() + layer.delta_weight())


def _lora(model: nn.Module) -> list[tuple[str, LoRALayer]]:
    return [(path, layer) for path, layer in adapted_layers(model) if isinstance(layer, LoRALayer)]


def _frozen(model: nn.Module, module: str) -> Tensor:
    weight: Tensor = innermost(model.get_submodule(module)).weight  # type: ignore[assignment]
    return weight


def _look_for_unused(found: Inspection, model: nn.Module) -> None:
    """Layers whose adapter gets no gradient from the model's answer: what they compute goes nowhere."""
    layers = _lora(model)
    if not layers:
        return
    with torch.enable_grad():
        answer = answer_of(model)
        weights = torch.linspace(-1, 1, answer.numel(), device=answer.device).view_as(answer).sin()
        own = [(path, p) for path, layer in layers for p in _trained(layer)]
        gradients = torch.autograd.grad((answer * weights).sum(), [p for _, p in own], allow_unused=True)
    reached = {path for (path, _), g in zip(own, gradients, strict=True) if g is not None and g.any()}
    dead = {path for path, layer in layers if not any(p.any() for p in _trained(layer))}
    unused = [path.replace(".base_layer", "") for path, _ in layers if path not in reached | dead]
    unused = [path for path in dict.fromkeys(unused) if ".experts." not in path]  # a router passes some by
    if unused:
        found.problems = [problem for problem in found.problems if problem.name != faults.SOME_ZERO]
        why = "what the layer computes does not reach the model's answer, so its adapter can never learn"
        found.problems.append(Problem(faults.UNUSED, few(unused), why))


def _trained(layer: LoRALayer) -> list[nn.Parameter]:
    return [p for _, p in own_parameters(layer) if p.requires_grad]
