"""How fast the memory accountant answers, and how far its prediction lies from its trace."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks import big_trace
from benchmarks.measure import goal, seconds, table
from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.methods.full import FullFineTuning

LARGE, GIB = "llama-2-70b", 2**30
SHAPES = (("gpt2", 1, 1024), ("llama-2-7b", 1, 512), ("llama-3-8b", 2, 2048), (LARGE, 1, 2048))
WAYS: dict[str, dict[str, Any]] = {
    "LoRA r8": {"adapter_dtype": "bf16"},
    "LoRA r8, checkpointing": {"adapter_dtype": "bf16", "checkpointing": True},
    "LoRA r8, fp32 adapters": {"adapter_dtype": "fp32"},
    "full": {},
}
HEAD = ["model, batch x length", "method", "predicted GiB", "traced GiB", "predicted - traced %"]


def microseconds(method: Any, **setup: Any) -> float:
    """Median time of a prediction, each for a new length; a missing fit is made first."""
    memory(LARGE, method, seq=100, **setup)
    return 1e6 * median(seconds(lambda s=s: memory(LARGE, method, seq=s, **setup)) for s in range(100, 2000, 10))


def speed(quick: bool) -> str:
    """The verdicts on time and memory."""
    calls = {
        "LoRA r8": microseconds(LoRA(rank=8)),
        "full": microseconds(FullFineTuning()),
        "QLoRA with checkpointing": microseconds(LoRA(targets="all-linear"), quantised="nf4", checkpointing=True),
    }
    lines = [goal(f"prediction, {LARGE}, {name}, median microseconds", us, 1000, 0) for name, us in calls.items()]
    for name in ("LoRA r8",) if quick else big_trace.METHODS:
        taken, resident = big_trace.apart(LARGE, name, 1, 512)
        lines += [goal(f"trace of {LARGE} 1x512, {name}, seconds", taken, 20, 1)]
        lines += [goal("the same, peak resident GiB of its process", resident / GIB, 4)]
    return "\n".join(lines)


def gaps(quick: bool) -> list[tuple[str, str, int, int]]:
    """Model and shape, method, prediction and trace in bytes."""
    found = []
    for model, batch, seq in SHAPES[:2] if quick else SHAPES:
        for name, options in WAYS.items():
            method: Any = FullFineTuning() if name == "full" else LoRA(rank=8, targets=_targets(model))
            setup = {"batch": batch, "seq": seq, "optimizer": "adamw-foreach", **options}
            both = [memory(model, method, trace=traced, **setup).peak for traced in (False, True)]
            found.append((f"{model} {batch}x{seq}", name, *both))
    return found


def _targets(model: str) -> tuple[str, ...]:
    return ("c_attn",) if model == "gpt2" else ("q", "v")


def report(quick: bool) -> str:
    """The part on speed and on the prediction against the trace, in Markdown."""
    found = gaps(quick)
    rows = [[m, w, f"{p / GIB:.2f}", f"{t / GIB:.2f}", f"{100 * (p / t - 1):+.3f}"] for m, w, p, t in found]
    worst = max(abs(100 * (p / t - 1)) for _, _, p, t in found)
    verdict = goal("prediction against trace, largest error in percent", worst, 0.1, 3)
    return "\n".join(["### Prediction against trace\n", table(HEAD, rows) + "\n", verdict, speed(quick)])
