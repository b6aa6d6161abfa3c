"""Check the lab's predictions on a GPU: `lora-lab gpu-check` writes one file, which users can send to us.

The parts are memory, steps, packs and runs. A part that fails is recorded with its error, and the others continue.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lora_lab.accounting.memory import memory
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, in_a_sentence
from lora_lab.experiments.compare import compare
from lora_lab.experiments.grid import Grid
from lora_lab.experiments.sweep import Sweep
from lora_lab.machine import memory as machine_memory
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training import device
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.measure import measure
from lora_lab.training.memory_check import free_bytes
from lora_lab.training.models import load_model, load_tokenizer
from lora_lab.training.train import train

MODELS = ("minilm", "roberta-base", "smollm2", "gpt2-medium", "llama-3.2-1b", "llama-3.2-3b", "llama-3-8b")
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "full": (FullFineTuning(), {}),
    "LoRA": (LoRA(targets=("all-linear",)), {}),
    "LoRA, checkpointing": (LoRA(targets=("all-linear",)), {"checkpointing": True}),
    "QLoRA, checkpointing": (LoRA(targets=("all-linear",)), {"checkpointing": True, "quantized": "nf4"}),
}
ROOM = 0.9  # fraction of free memory that a measured step may need
BATCH, SEQ = 4, 512  # size of a measured step
TIMED, REPEATS = ("minilm", "smollm2"), 20  # models to time, and steps for each, here and in PEFT
PACKS, TASK, STEPS = (1, 4, 16, 64), "rt", 100
Row = dict[str, Any]


def gpu_check(where: str = "cuda", say: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Return {"environment", "memory", "step", "packs", "runs"}, with the rows of each. Raises: BadValue."""
    if where not in device.available_devices():
        raise BadValue(f"torch sees no {where} device here: install the CUDA build of torch on a machine with a GPU")
    found: dict[str, Any] = {"environment": device.environment(device.choose(64, device=where))}
    for name, rows in {"memory": memory_rows, "step": step_rows, "packs": pack_rows, "runs": run_rows}.items():
        found[name] = []
        try:
            for row in rows(where):
                found[name].append(row)
                say(f"{name}: {', '.join(f'{key} {value}' for key, value in row.items())}")
        except Exception as error:  # any error: earlier measurements must not be lost
            found[name].append({"error": in_a_sentence(error)})
            say(f"{name}: {found[name][-1]['error']}")
    return found


def memory_rows(where: str) -> Iterator[Row]:
    """Yield the peak and the reserved GiB of a real step with random weights, and the ratios of traced to real values.

    The limits of the ratios are 1.02 (peak) and 1.03 (reserved).
    """
    for model in MODELS:
        for case, (method, options) in CASES.items():
            setup = {"batch": BATCH, "seq": SEQ, "dtype": "bf16", "device": where, **options}
            traced = memory(model, method, trace=True, **setup)
            weights = memory(model, method, trace=True, **{**setup, "quantized": "none"}).categories["weights"]
            row: Row = {"model": model, "case": case, "predicted": round(traced.peak / GIB, 4)}
            if traced.peak > ROOM * free_bytes(where) or weights > ROOM * (machine_memory()[1] or 0):
                yield row | {"left out": "not enough free memory"}
                continue
            real = measure(model, method, **setup)
            row |= {"peak": round(real.peak / GIB, 4), "ratio": round(traced.peak / real.peak, 4)}
            if real.reserved and traced.reserved:
                row["reserved"] = round(real.reserved / GIB, 4)
                row["reserved ratio"] = round(traced.reserved / real.reserved, 4)
            device.free_memory()
            yield row


def step_rows(where: str) -> Iterator[Row]:
    """Yield ms per step in the lab and PEFT, timed alternately in bf16 on 8 x 64 tokens. Raises: ImportError."""
    import peft

    for name in TIMED:
        ours, theirs = (load_model(name, 2 if name == "minilm" else None, dtype="bf16") for _ in range(2))
        LoRA(rank=8, targets=("all-linear",)).attach(ours)
        theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        models = [model.to(where) for model in (ours, theirs)]
        trained = [[p for p in model.parameters() if p.requires_grad] for model in models]
        optimizers = [torch.optim.AdamW(parameters, lr=1e-4, fused=True) for parameters in trained]
        ids = torch.randint(5, 20_000, (8, 64), device=where)
        times: list[list[float]] = [[], []]
        for _ in range(REPEATS + 2):
            for own, model, optimizer in zip(times, models, optimizers, strict=True):
                started = time.perf_counter()
                model(input_ids=ids).logits.float().square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                torch.get_device_module(where).synchronize()
                own.append(time.perf_counter() - started)
        mine, peers = (1000 * median(own[2:]) for own in times)
        yield {"model": name, "ours": round(mine, 2), "peft": round(peers, 2), "ratio": round(mine / peers, 3)}


def pack_rows(where: str) -> Iterator[Row]:
    """Yield seconds per run of MiniLM, without scoring, for packs of several sizes."""
    for size in PACKS:
        with TemporaryDirectory() as folder:
            fields: Row = {"steps": STEPS, "batch": 8, "validations": 0, "device": where}
            recipes = Grid(rank=8, lr=1e-3, seed=range(size)).recipes("minilm", TASK, **fields)
            swept = Sweep(folder, size, scored=False).run(recipes)
            yield {"runs": size, "seconds per run": round(swept.seconds / size, 3), "failed": swept.failed}


def run_rows(where: str) -> Iterator[Row]:
    """Yield the outcome and seconds of a run, a comparison and generation."""
    with TemporaryDirectory() as folder:
        run = train("minilm", TASK, steps=STEPS, device=where, store=Path(folder, "run"))
        yield {"what": "train", "accuracy": run.metrics["accuracy"], "seconds": round(run.seconds, 1)}
        terms: Row = {"steps": STEPS, "rates": 2, "growth": 0, "seeds": 2, "device": where}
        for row in compare("minilm", TASK, "lora,full", Path(folder, "compare"), **terms).to_json()["methods"]:
            yield {"what": f"compare {row['label']}", "accuracy": row["accuracy"]["mean"], "error": row["error"]}
    model = load_model("smollm2", dtype="bf16").to(where)
    started = time.perf_counter()
    texts = generate(model, load_tokenizer("smollm2"), ["The sea was calm, and"] * 8, Decoding(max_new_tokens=32))
    taken = time.perf_counter() - started
    yield {"what": "generate 8 x 32 tokens", "seconds": round(taken, 2), "same": len(set(texts)) == 1}
