"""Quality against bits: the same LoRA, seeds and steps on a base held in 16, 8, 4, 3 and 2 bits, each with a verdict.

For a model whose weights are true fp32, such as MiniLM. SmolLM2's came from a 4-bit file, so that its loss of
quantising has been paid already: of it mechanics and memory are measured, and no curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lora_lab.accounting.setup import BYTES
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import Verdict, verdicts
from lora_lab.experiments.sweep import sweep
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.methods.quant import quantizable, quantize
from lora_lab.methods.targets import bits_per_weight
from lora_lab.training.device import split_dtype
from lora_lab.training.models import load_model
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store

SIXTEEN = "bf16"  # what the others are judged against: the same arithmetic, nothing quantised
CURVE = (SIXTEEN, "int8+bf16", "nf4+bf16", "nf3+bf16", "nf2+bf16")


def bits_of(dtype: str) -> float:
    """Bits that a linear weight of the base takes in a recipe's dtype, its share of the scales included."""
    form, computed = split_dtype(dtype)
    return bits_per_weight(form) if form else 8 * BYTES[computed]


def short(dtype: str) -> str:
    """A recipe's dtype as a label: "nf4" of "nf4+bf16"."""
    return split_dtype(dtype)[0] or dtype


@dataclass(frozen=True)
class Curve:
    """Runs by the dtype of their base, of the same seeds, and what they come to."""

    runs: Mapping[str, Runs]
    margin: float = 0.015

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Of each dtype against 16 bits, with Holm's correction over all of them."""
        there = {dtype: runs for dtype, runs in self.runs.items() if len(runs)}
        return verdicts(there, SIXTEEN, self.margin) if SIXTEEN in there and len(there) > 1 else {}

    def values(self, dtype: str, metric: str = "accuracy") -> list[float]:
        """A metric of each run, by seed."""
        return [run.metrics[metric] for run in self.runs[dtype].runs]

    def table(self, metric: str = "accuracy") -> list[dict[str, Any]]:
        """A row for each dtype, most bits first: dtype, bits, each, mean, outcome and the verdict in words."""
        rows = []
        for dtype in sorted((d for d in self.runs if len(self.runs[d])), key=bits_of, reverse=True):
            each, found = self.values(dtype, metric), self.verdicts.get(dtype)
            said = {"outcome": found.outcome, "words": str(found)} if found else {"outcome": None, "words": ""}
            rows.append({"dtype": dtype, "bits": bits_of(dtype), "each": each, "mean": sum(each) / len(each)} | said)
        return rows

    def __str__(self) -> str:
        """The conclusion in words, a line for each dtype."""
        return "\n".join(
            f"{short(row['dtype']):5} {row['bits']:6.3f} bits  {row['mean']:.1%}  {row['words']}".rstrip()
            for row in self.table()
        )


def bits_curve(
    dtypes: Sequence[str] = CURVE,
    *,
    model: str = "minilm",
    task: str = "rt",
    method: Method | None = None,
    lr: float = 2e-3,
    steps: int = 400,
    batch: int = 16,
    seeds: int = 5,
    margin: float = 0.015,
    store: Store | str | Path = "runs",
    fields: Mapping[str, Any] | None = None,
    **how: Any,
) -> Curve:
    """Train the same method on the same base in each dtype: seeds side by side, resumable as any sweep.

    lr      one for all: what 16 bits were tuned to
    fields  further ones of every recipe
    how     as `sweep` takes it: stop, note, size, callbacks
    Raises: BadValue for no seed; as `sweep`.
    """
    if seeds < 1:
        raise BadValue(f"seeds must be at least 1, not {seeds}")
    shared: dict[str, Any] = {"lr": lr, "steps": steps, "batch": batch, "validations": 0} | dict(fields or {})
    trained = method or LoRA()
    wanted = {d: [Recipe(model, task, trained, seed=s, dtype=d, **shared) for s in range(seeds)] for d in dtypes}
    swept = sweep([recipe for recipes in wanted.values() for recipe in recipes], store, **how)
    runs = {run.recipe: run for run in swept.finished.runs}
    return Curve({d: Runs(tuple(runs[r] for r in recipes if r in runs)) for d, recipes in wanted.items()}, margin)


def weight_errors(formats: Sequence[str], model: str = "minilm") -> dict[str, float]:
    """|W - W'| / |W| over all linear layers that are quantised (Frobenius norms), by format, from fp32 weights."""
    plain = load_model(model)
    weights = [out_by_in(plain.get_submodule(path)).detach() for path in quantizable(plain)]
    return {name: _error(weights, name) for name in formats}


def _error(weights: Sequence[torch.Tensor], name: str) -> float:
    lost = sum(float((quantize(w, name).dequantized() - w).square().sum()) for w in weights)
    return float((lost / sum(float(w.square().sum()) for w in weights)) ** 0.5)
