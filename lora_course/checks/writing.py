"""Exercises of lesson 01, write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lora_course.checks.verdict import Number, Verdict, attempt, exercise, not_yet, unsolved
from lora_course.receipts import draw


class LoRALinear(nn.Module):
    """What the learner writes: y = W x + b + (alpha / rank) B A x. Stands in where theirs is not right yet."""

    def __init__(self, base_layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base_layer.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> y (..., out_features)."""
        return self.base_layer(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)  # type: ignore[no-any-return]


def yours_or_ours(layer: Any) -> Any:
    """The learner's layer if it passes the check of exercise 1, else ours, and a sentence that says so."""
    if _judged(layer).passed:
        return layer
    print("Your LoRALinear doesn't pass its check yet. Until it does, this cell uses ours.")
    return LoRALinear


@exercise(
    "A is (rank, in_features) and B is (out_features, rank); wrap both in nn.Parameter. Which of the two is zero?",
    "B is torch.zeros(...), A is torch.randn(rank, in_features) / in_features**0.5, and scaling is alpha / rank",
    "forward returns self.base_layer(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)",
)
def check_lora_linear(layer: Any) -> Verdict:
    """Lesson 01: LoRALinear(base_layer, rank, alpha), a layer that starts as the identity beside a frozen one."""
    return _judged(layer)


def _judged(layer: Any) -> Verdict:
    if unsolved(layer):
        return not_yet("write the class LoRALinear")
    wide, high = draw("shape of the layer", (48, 20), (20, 48), (64, 30), (30, 64))
    rank, alpha = 4, 12.0
    base, x = nn.Linear(wide, high), torch.randn(2, 5, wide)  # (rows, tokens, in)
    made = attempt(layer, deepcopy(base), rank, alpha)
    if isinstance(made, Verdict):
        return made
    a, b = getattr(made, "lora_A", None), getattr(made, "lora_B", None)
    if unsolved(a) or unsolved(b) or unsolved(getattr(made, "scaling", None)):
        return not_yet("put code in place of each ...: scaling, lora_A and lora_B first, then forward")
    if not isinstance(a, nn.Parameter) or not isinstance(b, nn.Parameter):
        return Verdict(False, "lora_A or lora_B is a plain tensor: no optimizer finds it. Wrap it in nn.Parameter")
    if (tuple(a.shape), tuple(b.shape)) != ((rank, wide), (high, rank)):
        return Verdict(False, f"for {wide} inputs, {high} outputs and rank {rank}, A is {(rank, wide)} and B is "
                       f"{(high, rank)}; yours are {tuple(a.shape)} and {tuple(b.shape)}")  # fmt: skip
    trains = {name for name, p in made.named_parameters() if p.requires_grad}
    if frozen := {"lora_A", "lora_B"} - trains:
        return Verdict(False, f"{' and '.join(sorted(frozen))} must train, but requires_grad is False")
    if more := trains - {"lora_A", "lora_B"}:
        return Verdict(False, f"{', '.join(sorted(more))} would train too: base_layer.requires_grad_(False) freezes it")
    if isinstance(y := attempt(made, x), Verdict):
        return y
    if tuple(getattr(y, "shape", ())) != (2, 5, high):
        return Verdict(
            False, f"(2, 5, {wide}) goes in, {tuple(getattr(y, 'shape', ()))} comes out; it must be (2, 5, {high})"
        )
    if words := _start(a, b, torch.allclose(y, base(x), atol=1e-5)):
        return Verdict(False, words)
    with torch.no_grad():
        a.copy_(torch.randn(rank, wide))
        b.copy_(torch.randn(high, rank))
        plain, update = base(x), x @ a.T @ b.T
        wrong = {
            "only the frozen part is there: add scaling * B A x": plain,
            "the update is not multiplied by the scaling, alpha / rank": plain + update,
            "the update is multiplied by alpha, but not divided by the rank": plain + alpha * update,
            "the scaling is upside down: it is alpha / rank": plain + rank / alpha * update,
        }
        size = f"{rank * (wide + high):,} numbers train, beside {high} x {wide} = {high * wide:,} frozen ones in W"
        return _matched(made(x), plain + alpha / rank * update, f"it starts as the layer that it wraps; {size}", wrong)


def _start(a: Tensor, b: Tensor, same: bool) -> str:
    """What is wrong with a start, or nothing."""
    if not a.any() and not b.any():
        return "A and B are both zero: each gradient has the other matrix as a factor, so neither will ever move"
    if not a.any():
        return "A is zero and B random: that starts as the identity too, but LoRA does it the other way round"
    if b.any():
        return ("B is not zero, so the layer changes the model before the first step. Zero B does not learn slowly: "
                "its gradient is there at once, and A's one step later")  # fmt: skip
    if a.std() > 0.5:
        return f"A's standard deviation is {a.std():.1f}: divide by in_features**0.5, or A x grows with the width"
    return "" if same else "at the start it must compute exactly what base_layer(x) computes, bias included"


MERGED = Number(
    13,
    {
        8: "that leaves out the scaling, alpha / rank = 2",
        10: "that is the update alone: add it to W",
        5: "that is one entry of B A: multiply it by the scaling, then add it to W",
        3: "that is W alone: B A isn't zero there",
    },
    "3 + 2 x 5. The merged matrix has W's shape, so the model is as large and as fast as before",
    hint="B A is 2 x 2. Its entry in row 2, column 1 is B's second number times A's first",
)
"""Row 2, column 1 of W + alpha / rank * B A for W = [[1, 2], [3, 4]], A = [[1, 0]], B = [[0], [5]], alpha 2, rank 1."""


@exercise(
    "W' = W + scaling * B A: which of the two products, B A or A B, has the shape of W?",
    "work on a copy: plain = deepcopy(layer.base_layer), then change plain.weight.data",
    "plain.weight.data += layer.scaling * (layer.lora_B @ layer.lora_A).data, and return plain",
)
def check_merge(
    merge: Callable[[Any], Any] | None, model: nn.Module, tokens: Mapping[str, Tensor], labels: Tensor
) -> Verdict:
    """Lesson 01: merge(layer) turns a LoRALinear into one nn.Linear; tried on one layer and on the model."""
    if merge is None or unsolved(merge):
        return not_yet("write merge(layer)")
    kind: Any = type(next(module for module in model.modules() if hasattr(module, "lora_B")))
    base = nn.Linear(20, 48)
    layer = kind(deepcopy(base), 4, 12.0)
    with torch.no_grad():
        layer.lora_B.copy_(torch.randn(48, 4))
        said = attempt(merge, deepcopy(layer))
        if isinstance(said, Verdict):
            return said
        if isinstance(said, Tensor):
            return Verdict(
                False, "return the plain layer, not only its matrix: the model needs something that it can call"
            )
        if any(hasattr(module, "lora_B") for module in said.modules()):
            return Verdict(False, "A and B are still beside W: return an nn.Linear with one matrix in it")
        x = torch.randn(5, 20)
        plain, update = base(x), x @ layer.lora_A.T @ layer.lora_B.T
        wrong = {
            "that is W alone: add scaling * B A to its weight": plain,
            "the update is not multiplied by the scaling": plain + update,
            "that is the update alone: add it to W": 3 * update + base.bias,
            "the bias is missing": plain - base.bias + 3 * update,
            "the update is subtracted: that would take it out again": plain - 3 * update,
        }
        one = _matched(said(x), plain + 3 * update, "", wrong)
        if not one.passed:
            return one
        whole = deepcopy(model)
        names = [name for name, module in model.named_modules() if hasattr(module, "lora_B")]
        for name in names:
            whole.set_submodule(name, merge(whole.get_submodule(name)))
        before, after = model(**tokens).logits, whole(**tokens).logits
        apart, right = (before - after).abs().max().item(), int((after.argmax(-1) == labels).sum())
    if apart > 1e-5:
        return Verdict(False, f"one layer is right, but in the model the logits differ by {apart:.0e}")
    if right < len(labels):
        return Verdict(False, f"the merge is right, but only {right} of {len(labels)} sentences are: train again")
    return Verdict(
        True, f"{len(names)} layers merged, all {right} sentences right, logits within {apart:.0e} of before"
    )


def _matched(y: Tensor, right: Tensor, why: str, wrong: Mapping[str, Tensor]) -> Verdict:
    def same(other: Tensor) -> bool:
        return y.shape == other.shape and torch.allclose(y, other, atol=1e-4)

    if same(right):
        return Verdict(True, why)
    fallback = "the outputs differ from W x + b + (alpha / rank) B A x: check the order of A and B"
    return Verdict(False, next((words for words, other in wrong.items() if same(other)), fallback))
