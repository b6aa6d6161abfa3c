"""Does a merged model run at its base's speed? minilm with LoRA of rank 8 on q and v, at 1 and at 32 rows.

The base, the merged model and the one with its adapter beside it answer the same rows in turn, so what is compared is
compared within one run.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.measure import Paired, goal, paired, table
from lora_lab import LoRA, merge
from lora_lab.training.models import load_model

ROWS, TOKENS = (1, 32), 32


def models() -> tuple[nn.Module, nn.Module, nn.Module]:
    """The base, the adapter beside it, and merged; each with its own weights."""
    base = load_model("minilm", num_labels=2)
    beside = copy.deepcopy(base)
    LoRA(rank=8, targets=("q", "v")).attach(beside)
    for name, parameter in beside.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    merged = copy.deepcopy(beside)
    merge(merged)
    return base, beside, merged


def answer(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits of all rows."""
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def measured(pairs: int) -> dict[int, tuple[Paired, Paired, Paired]]:
    """By rows: merged against base, the adapter beside its base against base, and the base against itself."""
    base, beside, merged = models()
    found = {}
    for rows in ROWS:
        ids = torch.randint(1000, 2000, (rows, TOKENS), generator=torch.Generator().manual_seed(0))
        against = [_against(base, model, ids, pairs) for model in (merged, beside, base)]
        found[rows] = (against[0], against[1], against[2])
    return found


def _against(base: nn.Module, model: nn.Module, ids: torch.Tensor, pairs: int) -> Paired:
    return paired(lambda: answer(model, ids), lambda: answer(base, ids), pairs)


def report(quick: bool) -> str:
    """The table and the verdicts, in Markdown; seconds are medians."""
    found = measured(15 if quick else 60)
    lines = [
        [f"{rows}", f"{1e3 * sorted(m.theirs)[len(m.theirs) // 2]:.1f}", str(m), str(b), str(same)]
        for rows, (m, b, same) in found.items()
    ]
    head = ["rows", "base ms", "merged / base", "adapter beside / base", "base / itself (noise)"]
    goals = [goal(f"merged against base at {n} rows", m.ratio, 1.05) for n, (m, _, _) in found.items()]
    what = f"minilm, fp32, {TOKENS} tokens a row, LoRA r8 on q and v; medians of ratios, with their quartiles"
    return "\n".join(["## Merged\n", f"{what}\n", table(head, lines) + "\n", *goals])
