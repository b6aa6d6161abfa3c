"""Check that a merged model is as fast as its base: MiniLM with LoRA of rank 8 on q and v, 1 and 32 rows.

The base, the merged model and the model with its adapter attached take turns computing the same rows.
"""

import copy
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.measure import goal, paired, table
from lora_lab import LoRA, load_model, merge

ROWS, TOKENS = (1, 32), 32
HEAD = ["rows", "base ms", "merged / base", "adapter attached / base", "base / itself (noise)"]


@torch.inference_mode()
def report(quick: bool) -> Iterator[str]:
    base = load_model("minilm", num_labels=2)
    adapted = copy.deepcopy(base)
    LoRA(rank=8, targets=("q", "v")).attach(adapted)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    merged = copy.deepcopy(adapted)
    merge(merged)
    yield "## Merged"
    yield f"MiniLM, fp32, {TOKENS} tokens per row, LoRA r8 on q and v; medians of ratios, with their quartiles"
    table_rows, goals = [], []
    for rows in ROWS:
        ids = torch.randint(1000, 2000, (rows, TOKENS), generator=torch.Generator().manual_seed(0))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        run_base, models = partial(base, **inputs), (merged, adapted, base)
        times = [paired(partial(model, **inputs), run_base, 15 if quick else 60) for model in models]
        table_rows.append([str(rows), f"{1e3 * median(times[0].theirs):.1f}", *map(str, times)])
        goals.append(goal(f"merged against base, rows: {rows}", times[0].ratio, 1.05))
    yield table(HEAD, table_rows)
    yield from goals
