"""One trace in a process of its own, so that its memory can be told: prints seconds and peak resident bytes as JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import seconds
from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.methods.full import FullFineTuning

METHODS = {"LoRA r8": LoRA(rank=8), "full": FullFineTuning()}


def main(model: str, method: str, batch: int, seq: int) -> None:
    """Trace it here."""
    taken = seconds(lambda: memory(model, METHODS[method], batch=batch, seq=seq, trace=True))
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit]))


def apart(model: str, method: str, batch: int, seq: int) -> tuple[float, int]:
    """Seconds, imports not counted, and peak resident bytes of a trace in a fresh process."""
    command = [sys.executable, "-m", __name__, model, method, str(batch), str(seq)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    taken, resident = json.loads(done.stdout.splitlines()[-1])
    return taken, resident


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
