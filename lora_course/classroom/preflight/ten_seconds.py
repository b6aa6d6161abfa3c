"""Train for ten seconds and print what came of it as one JSON object: `python -m ...preflight.ten_seconds`.

It runs in a process of its own, so that a torch that brings the process down is one finding among others.
"""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

from lora_lab.errors import Failed


def train_for(seconds: float, most: int = 400) -> dict[str, Any]:
    """Train an adapter of minilm on rt for so long, or so many steps; score nothing, keep nothing.

    Returns steps, seconds (of training alone), the first and the last loss in nats, and bytes in use at the end.
    Raises: Failed when the loss is no number.
    """
    from lora_lab.training import device
    from lora_lab.training.recipe import Recipe
    from lora_lab.training.train import Bench

    stop, losses, started = threading.Event(), list[float](), [0.0]

    def note(progress: Any) -> None:
        losses.append(progress.loss)
        if time.perf_counter() - started[0] > seconds:
            stop.set()

    bench = Bench(Recipe("minilm", "rt", steps=most, examples=512, validations=0), callbacks=[note])
    started[0] = time.perf_counter()
    bench.fit(stop)
    if not losses or not math.isfinite(losses[-1]):
        raise Failed("the loss is no number")
    took = time.perf_counter() - started[0]
    used = device.used_bytes(bench.device)
    return {"steps": len(losses), "seconds": took, "first": losses[0], "last": losses[-1], "bytes": used}


if __name__ == "__main__":
    print(json.dumps(train_for(10)))
