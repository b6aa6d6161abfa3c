"""Exercises for lesson 08 (merge or swap?): a batch with many adapters, and the cost of forty merged copies."""

from collections.abc import Callable
from typing import Any

from lora_course.checks.verdict import Number, Verdict, attempt, exercise, matched, texts
from lora_lab.lazy import torch


@exercise
def check_mixed_batch(mixed: Callable[[Any, Any, Any, Any, float, Any], Any]) -> Verdict:
    """Lesson 08: check f(x, W, A, B, scaling, which), which computes one batch whose rows use different adapters."""
    generator = torch.Generator().manual_seed(0)
    x, w, a, b = (torch.randn(*shape, generator=generator) for shape in ((6, 4), (5, 4), (3, 2, 4), (3, 5, 2)))
    which = torch.tensor([0, 2, 1, 0, 2, 2])
    y = attempt(mixed, *(tensor.clone() for tensor in (x, w, a, b)), 3.0, which)
    if isinstance(y, Verdict):
        return y
    if getattr(y, "shape", None) != (6, 5):
        return Verdict(False, f"y must have shape (rows, out), (6, 5), not {getattr(y, 'shape', type(y).__name__)}")
    y = torch.as_tensor(y).float()
    update = torch.stack([b[n] @ (a[n] @ row) for n, row in zip(which, x, strict=True)])
    first = torch.stack([b[0] @ (a[0] @ row) for row in x])
    near = {
        "that is W x alone: add each row's detour": x @ w.T,
        "the scaling is missing": x @ w.T + update,
        "those are the detours alone: add W x": 3 * update,
        "every row uses the first adapter: pick A[which] and B[which]": x @ w.T + 3 * first,
        "every row uses the sum of all adapters: pick A[which] and B[which]": x @ w.T
        + 3 * torch.stack([sum(b[n] @ (a[n] @ row) for n in range(3)) for row in x]),
    }
    why = "six rows, three adapters, one product with W: a server does the same with a thousand adapters"
    fallback = "compare row 0 with W x + scaling * B[0] A[0] x, by hand"
    return matched(lambda other: torch.allclose(y, other, atol=1e-5), x @ w.T + 3 * update, near, why, fallback)


MIXED = Number(**texts("pages")["mixed"])


@exercise
def check_forty_copies(times: float | None, base: int, adapter: int) -> Verdict:
    """Lesson 08: check the ratio of the bytes of forty merged models to those of one base and forty adapters."""
    right = 40 * base / (base + 40 * adapter)
    misconceptions = {
        1 / right: "the ratio is the other way around: merged models take more",
        base / adapter: "that is one base against one adapter",
        40.0: "almost: the forty adapters take some space, too",
        (base + 40 * adapter) / base: "that is one base with its forty adapters against the base alone",
    }
    why = f"{right:.0f} times: each merged model contains the whole base again"
    fallback = "divide the size of forty merged models, each as large as the base, by that of a base and forty adapters"
    return Number(right, misconceptions, why, 0.02, fallback).judge(times)
