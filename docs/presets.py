"""Write the memory fits that ship, one file per zoo model: `python docs/presets.py [MODEL ...]`.

A fit is valid for every batch size, length, rank and optimizer, so a few fits per model answer most requests: full
fine-tuning, LoRA on q and v and on all linear layers, the same on a 4-bit base, a soft prompt and BitFit, with and
without checkpointing, with one row or several. The two models that ship with weights also have the fits for the memory
check of a run.
"""

import json
import lzma
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from lora_lab.accounting.fit import NoFit, fit
from lora_lab.accounting.memory import PRESETS, compact, key_of, regime_of
from lora_lab.accounting.models import architecture_of, config_of, zoo
from lora_lab.accounting.setup import Setup
from lora_lab.errors import LabError
from lora_lab.methods import method_from

LORA: tuple[dict[str, Any], ...] = {"name": "lora"}, {"name": "lora", "targets": ["all-linear"]}
LOCAL = ("minilm", "smollm2")  # models that train on a laptop
SMALL = (*LOCAL, "bert-base", "roberta-base", "gpt2")  # also fitted in fp32


def cases(name: str) -> Iterator[tuple[dict[str, Any], Setup]]:
    """Yield the method's settings and the setup of each fit that ships for a model."""
    for checkpointing in (False, True):
        for batch in (1, 2):
            step: dict[str, Any] = {"batch": batch, "seq": 64, "checkpointing": checkpointing}
            for method in ({"name": "full"}, *LORA, {"name": "prompt"}, {"name": "bitfit"}):
                yield method, Setup(**step)
                if name in SMALL:
                    yield method, Setup(**step, dtype="fp32")
            if name not in SMALL:
                for method in LORA:
                    yield method, Setup(**step, quantized="nf4")
    if name in LOCAL:
        others = ("head", "bitfit", "ia3", "prefix", "bottleneck", "ptuning")
        for method in ({"name": "full"}, *LORA, *({"name": other} for other in ("prompt", *others))):
            for dtype in ("fp32", "bf16"):
                for device in ("cpu", "cuda"):
                    yield method, Setup(batch=2, seq=64, dtype=dtype, device=device, padded=True)


def stored(name: str) -> Iterator[tuple[dict[str, Any], Setup]]:
    """Yield the cases in a model's current file, which include those of claims and of the paper's runs."""
    for key in json.loads(lzma.decompress((PRESETS / f"{name}.json.xz").read_bytes())):
        options, conditions, (one_row, low, _), labels = json.loads(key)
        options |= {"dropout": 0.1 * options["dropout"]} if "dropout" in options else {}
        conditions |= {"dropout": 0.1} if conditions.get("dropout") else {}
        yield options, Setup(batch=1 if one_row else 2, seq=low, num_labels=labels, **conditions)


def write(name: str) -> str:
    """Make a model's fits and write its file."""
    config, fits, missing = config_of(name), dict[str, Any](), []
    existing = stored(name) if (PRESETS / f"{name}.json.xz").exists() else ()
    for settings, setup in (*cases(name), *existing):
        try:
            method = method_from(settings)
            regime = regime_of(config, method, setup)
            key = key_of(method, setup, regime)
            if key not in fits:
                fits[key] = fit(config, method, setup, regime).pruned().to_json()
        except (LabError, NoFit) as reason:  # such as BitFit on a model without biases
            missing.append(f"{settings}, {setup}: {reason}")
    content = lzma.compress(compact({key: compact(entry) for key, entry in fits.items()}).encode(), preset=9)
    if fits:  # otherwise no step can be traced, and the lab uses a bound
        (PRESETS / f"{name}.json.xz").write_bytes(content)
    return "\n".join([f"{name}: {len(fits)} fits, {len(content):,} bytes", *missing])


def main(names: list[str]) -> None:
    """Write the files of these models, by default of all models with a single stack of layers."""
    chosen = names or [name for name in zoo() if architecture_of(name).task != "seq2seq"]
    with ProcessPoolExecutor() as pool:
        for message in pool.map(write, chosen):
            print(message, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
