"""Exercises for lesson 01 (can you write it?): a LoRA layer, and merging it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lora_course.checks.verdict import Number, Verdict, attempt, exercise, matched, texts, unsolved
from lora_course.receipts import draw
from lora_lab import layers


class LoRALinear(layers.LoRALinear):
    """The lab's layer with the constructor that the exercise asks for, used until the student's own layer is right."""

    def __init__(self, base_layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base_layer.requires_grad_(False), rank, alpha / rank)


def layer_or_ours(layer: Any) -> Any:
    """Return the student's layer if it passes the check of exercise 1; otherwise, return the lab's."""
    return attempt(_judge, layer).yours_or_ours("LoRALinear", layer, LoRALinear)


@exercise
def check_lora_linear(layer: Any) -> Verdict:
    """Lesson 01: check LoRALinear(base_layer, rank, alpha), a frozen layer plus an update that is 0 at first."""
    return _judge(layer)


def _judge(layer: Any) -> Verdict:
    wide, high = draw("shape of the layer", (48, 20), (20, 48), (64, 30), (30, 64))
    rank, alpha = 4, 12.0
    base, x = nn.Linear(wide, high), torch.randn(2, 5, wide)  # (rows, tokens, in)
    if isinstance(lora := attempt(layer, deepcopy(base), rank, alpha), Verdict):
        return lora
    a, b = getattr(lora, "lora_A", None), getattr(lora, "lora_B", None)
    if unsolved(a) or unsolved(b) or unsolved(getattr(lora, "scaling", None)):
        return Verdict(None, "replace each ... with code: scaling, lora_A and lora_B first, then forward")
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return Verdict(False, "lora_A or lora_B is a layer, as in PEFT. That would train, but the cells below need "
                       "matrices, each an nn.Parameter: A (rank, in_features), B (out_features, rank)")  # fmt: skip
    if not isinstance(a, nn.Parameter) or not isinstance(b, nn.Parameter):
        return Verdict(False, "lora_A or lora_B is a plain tensor: no optimizer finds it. Wrap it in nn.Parameter")
    if (tuple(a.shape), tuple(b.shape)) != ((rank, wide), (high, rank)):
        return Verdict(False, f"for {wide} inputs, {high} outputs and rank {rank}, A is {(rank, wide)} and B is "
                       f"{(high, rank)}; yours are {tuple(a.shape)} and {tuple(b.shape)}")  # fmt: skip
    trainable = {name for name, p in lora.named_parameters() if p.requires_grad}
    if frozen := {"lora_A", "lora_B"} - trainable:
        return Verdict(False, f"{' and '.join(sorted(frozen))} must train, but requires_grad is False")
    if more := trainable - {"lora_A", "lora_B"}:
        return Verdict(False, f"{', '.join(sorted(more))} would train too: base_layer.requires_grad_(False) freezes it")
    if isinstance(y := attempt(lora, x), Verdict):
        return y
    shape, dtype = tuple(getattr(y, "shape", ())), getattr(y, "dtype", None)
    if (shape, dtype) != ((2, 5, high), x.dtype):
        right = f"the output must be (2, 5, {high}) in {x.dtype}, not {shape} in {dtype}"
        return Verdict(False, f"for x of shape (2, 5, {wide}), {right}")
    if error := _wrong_start(a, b, torch.allclose(y, base(x), atol=1e-5)):
        return Verdict(False, error)
    with torch.no_grad():
        a.copy_(torch.randn(rank, wide))
        b.copy_(torch.randn(high, rank))
        plain, update = base(x), x @ a.T @ b.T
        wrong = {
            "only the frozen part is there: add scaling * B A x": plain,
            "the update is not multiplied by the scaling, alpha / rank": plain + update,
            "the update is multiplied by alpha, but not divided by the rank": plain + alpha * update,
            "the scaling is upside down: it is alpha / rank": plain + rank / alpha * update,
            "that is rank-stabilized LoRA (alpha / sqrt(rank)); use alpha / rank": plain + alpha / rank**0.5 * update,
        }
        trained = f"{rank * (wide + high):,} numbers are trained, and the {high * wide:,} in W are frozen"
        why = f"at the start, it equals the base layer; {trained}"
        verdict = _judge_output(lora(x), plain + alpha / rank * update, why, wrong)
    x.requires_grad_()
    *gradients, below = torch.autograd.grad(lora(x).sum() + 0 * (a.sum() + b.sum() + x.sum()), (a, b, x))
    if verdict.passed and not all(map(torch.any, gradients)):
        return Verdict(False, "no gradient reaches A or B: leave out .data, detach and no_grad")
    if verdict.passed and not torch.allclose(below, (base.weight + alpha / rank * b @ a).sum(0), atol=1e-3):
        both = "the base layer and the update must both pass it on, so leave out detach and no_grad"
        return Verdict(False, f"the gradient for the layers below is wrong: {both}")
    return verdict


def _wrong_start(a: Tensor, b: Tensor, same: bool) -> str:
    """Return what is wrong with the initialization, or ""."""
    if not a.any() and not b.any():
        return "A and B are both zero: each gradient has the other matrix as a factor, so neither will ever move"
    if not a.any():
        return "A is zero and B random: that update starts at zero too, but LoRA does it the other way around"
    if b.any():
        return ("B is not zero, so the layer changes the model before the first step. Starting B at zero doesn't make "
                "learning slow: B has a gradient at the first step, and A one step later")  # fmt: skip
    if torch.linalg.matrix_rank(a) < len(a):
        return "A's rows depend on each other, so its r pieces would learn the same thing: fill A at random"
    if a.std() > 0.5:
        return f"A's standard deviation is {a.std():.1f}, too large: use nn.init.kaiming_uniform_(lora_A, a=5**0.5)"
    return "" if same else "at the start, your layer must compute exactly what base_layer(x) does, bias included"


MERGED = Number(**texts("pages")["merged"])


@exercise
def check_merge(merge: Callable[[Any], Any], model: nn.Module, tokens: Mapping[str, Tensor], labels: Tensor) -> Verdict:
    """Lesson 01: check merge(layer) on a layer and on the model. It turns a LoRALinear into one nn.Linear."""
    layer_class: Any = type(next(module for module in model.modules() if hasattr(module, "lora_B")))
    inner = deepcopy(base := nn.Linear(20, 48))
    layer = layer_class(inner, 4, 12.0)
    with torch.no_grad():
        layer.lora_B.copy_(torch.randn(48, 4))
        if isinstance(linear := attempt(merge, layer), Verdict):
            return linear
        if not torch.equal(inner.weight, base.weight):
            return Verdict(False, "base_layer itself has changed, so a second call would add the update twice: copy it")
        if not isinstance(linear, nn.Module):
            return Verdict(False, f"return an nn.Linear, not {type(linear).__name__}: the model needs a layer to call")
        if any(hasattr(module, "lora_B") for module in linear.modules()):
            return Verdict(False, "A and B are still beside W: return an nn.Linear, which has only one matrix")
        x, own = torch.randn(5, 20), base.bias if getattr(linear, "bias", None) is None else linear.bias
        y, plain, update = linear(x), base(x), x @ layer.lora_A.T @ layer.lora_B.T
        wrong = {
            "that is W alone: add scaling * B A to its weight": plain,
            "the update is not multiplied by the scaling": plain + update,
            "that is the update alone: add it to W": 3 * update + base.bias,
            "the bias is missing": plain - base.bias + 3 * update,
            "the matrix is right, but the bias is new: copy base_layer's": plain - base.bias + own + 3 * update,
            "you subtract the update: that would undo a merge": plain - 3 * update,
        }
        if not (verdict := _judge_output(y, plain + 3 * update, "", wrong)).passed:
            return verdict
        merged = deepcopy(model)
        names = [name for name, module in model.named_modules() if hasattr(module, "lora_B")]
        for name in names:
            merged.set_submodule(name, merge(merged.get_submodule(name)))
        before, after = model(**tokens).logits, merged(**tokens).logits
        error, right = (before - after).abs().max().item(), int((after.argmax(-1) == labels).sum())
    if error > 1e-5:
        return Verdict(False, f"one layer is right, but in the model the logits differ by {error:.0e}")
    if right < len(labels):
        return Verdict(False, f"the merge is right, but only {right} of {len(labels)} answers are right: train again")
    merged_all = f"{len(names)} linear layers are merged, and all {right} sentences are right"
    return Verdict(True, f"{merged_all}; the logits agree to {error:.0e}")


def _judge_output(y: Tensor, right: Tensor, why: str, wrong: Mapping[str, Tensor]) -> Verdict:
    fallback = "it isn't W x + b + (alpha / rank) B A x: check b, scaling and the order of A and B; leave out dropout"
    return matched(lambda z: y.shape == z.shape and torch.allclose(y, z, atol=1e-4), right, wrong, why, fallback)
