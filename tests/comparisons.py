"""A made-up comparison whose answers were not kept, shaped as `lora-lab compare --json` prints one."""

from __future__ import annotations

from typing import Any

ROWS = {"probe": ("probe", 0.784), "lora": ("LoRA r8 q,v", 0.813), "full": ("full fine-tuning", 0.822)}
INTERVALS = [{"level": 90, "low": 0.003, "high": 0.019}, {"level": 95, "low": 0.002, "high": 0.02}]
VERDICT = {"kind": "equivalent", "difference": 0.011, "margin": 0.015, "points": True, "intervals": INTERVALS}


def comparison(*methods: str) -> dict[str, Any]:
    """Each of these methods against full fine-tuning."""
    rows = []
    for method, (label, mean) in ((method, ROWS[method]) for method in methods):
        scores = {"each": [mean + off for off in (-0.006, 0.004, 0.0, 0.003, -0.001)]}
        against = {} if method == "full" else {"full": VERDICT}
        rows.append({"method": method, "label": label, "accuracy": scores, "settings": {}, "against": against})
    terms = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "metric": "accuracy", "margin": 0.015}
    return {**terms, "methods": rows}
