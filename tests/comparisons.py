"""A made-up comparison, shaped as `lora-lab compare --json` prints one: for tests of what shows it, never shipped."""

from __future__ import annotations

import copy
from typing import Any

MIB = 2**20
# method, label, mean, trains, rate, predicted and measured MiB, seconds, added tokens, verdict on full
ROWS = (
    ("probe", "probe", 0.784, 0, None, None, 610, 2.1, 0, "worse"),
    ("head", "head", 0.776, 0, 5e-3, 118, 633, 3.4, 0, "worse"),
    ("bitfit", "BitFit", 0.803, 45_312, 4e-3, 236, 741, 7.9, 0, "undecided"),
    ("prompt", "prompt 20, random", 0.789, 7_680, 5e-2, 331, 820, 11.2, 20, "worse"),
    ("ptuning", "P-tuning 20", 0.791, 451_968, 5e-3, 340, 826, 11.9, 20, "worse"),
    ("prefix", "prefix 10", 0.795, 46_080, 1e-2, 262, 760, 9.4, 0, "worse"),
    ("bottleneck", "bottleneck 16", 0.812, 152_640, 1e-3, 259, 757, 9.1, 0, "equivalent"),
    ("ia3", "IA3", 0.801, 13_824, 2e-2, 241, 744, 8.2, 0, "undecided"),
    ("lora", "LoRA r8 q,v", 0.813, 73_728, 2e-3, 244, 748, 8.6, 0, "equivalent"),
    ("full", "full fine-tuning", 0.822, 22_713_216, 5e-5, 482, 1_140, 14.8, 0, ""),
)
SEEDS = (-0.006, 0.004, 0.0, 0.003, -0.001)


def comparison(*methods: str, seeds: int = 5, kind: str = "") -> dict[str, Any]:
    """A comparison of these methods (all ten without any); `kind` is LoRA's verdict against full fine-tuning."""
    rows = [_row(*line, seeds) for line in ROWS if not methods or line[0] in methods]
    for row in rows:
        row["against"] = {name: v for name, v in row["against"].items() if name in {r["method"] for r in rows}}
        if row["method"] == "lora" and kind and "full" in row["against"]:
            row["against"]["full"]["kind"] = kind
    return copy.deepcopy(
        {
            "model": "minilm", "task": "rt", "steps": 200, "batch": 8, "metric": "accuracy", "margin": 0.015,
            "seeds": list(range(seeds)), "tuning_seeds": [1000], "rates": {"lora": [1e-3, 2e-3, 4e-3]},
            "seconds": 1500.0, "methods": rows,
            "environment": {"device": "cpu", "hardware": "a made-up machine", "date": "2026-01-02"},
        }
    )  # fmt: skip


def _row(
    method: str, label: str, mean: float, trains: int, rate: float | None, predicted: int | None, measured: int,
    seconds: float, tokens: int, verdict: str, seeds: int,
) -> dict[str, Any]:  # fmt: skip
    each = [mean + off for off in SEEDS[:seeds]]
    against = {"full": _verdict(verdict)} if verdict else {}
    against |= {} if method == "probe" else {"probe": _verdict("better" if mean > 0.79 else "undecided")}
    tried = [] if rate is None else [(rate / 4, mean - 0.06), (rate / 2, mean - 0.01), (rate, mean + 0.004)]
    tried += [] if rate is None or method == "prompt" else [(2 * rate, mean - 0.02)]
    settings: dict[str, Any] = {"name": method, **({"l2": 10.0} if method == "probe" else {})}
    penalties = [{"l2": l2, "validation": mean - 0.001 * l2} for l2 in (10.0, 100.0)] if method == "probe" else []
    return {
        "method": method, "label": label, "settings": settings, "lr": rate, "edge": method == "prompt",
        "tried": penalties or [{"lr": lr, "validation": value} for lr, value in tried],
        "accuracy": {"mean": sum(each) / len(each), "std": 0.004, "n": seeds, "each": each},
        "trainable": trains, "head": 385 if method == "probe" else 770, "adapter_bytes": 4 * (trains + 770),
        "predicted_bytes": predicted and predicted * MIB, "peak_bytes": measured * MIB, "seconds": seconds,
        "added_tokens": tokens, "against": against, "runs": [f"{method:0<12}"],
    }  # fmt: skip


def _verdict(kind: str) -> dict[str, Any]:
    words = f"{kind} by 1.1 points (95 % interval 0.2 to 2.0; 5 seeds x 2,000 rows)"
    intervals = [{"level": 90, "low": 0.003, "high": 0.019}, {"level": 95, "low": 0.002, "high": 0.02}]
    numbers = {"difference": 0.011, "margin": 0.015, "points": True, "intervals": intervals}
    return {"kind": kind, "words": words, **numbers}
