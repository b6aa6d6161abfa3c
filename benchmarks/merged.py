"""Check that a merged model is as fast as its base: MiniLM with LoRA of rank 8 on q and v, 1 and 32 rows.

The base, the merged model and the model with its adapter attached compute the same rows in alternation.
"""

import copy
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.measure import goal, paired, table
from lora_lab import LoRA, merge
from lora_lab.training.models import load_model

ROWS, TOKENS = (1, 32), 32
HEAD = ["rows", "base ms", "merged / base", "adapter attached / base", "base / itself (noise)"]


@torch.inference_mode()
def forward(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of all rows."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def report(quick: bool) -> Iterator[str]:
    """Yield the report in Markdown; milliseconds are medians."""
    base = load_model("minilm", num_labels=2)
    adapted = copy.deepcopy(base)
    LoRA(rank=8, targets=("q", "v")).attach(adapted)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    merged = copy.deepcopy(adapted)
    merge(merged)
    results, pairs = {}, 15 if quick else 60
    for rows in ROWS:
        ids = torch.randint(1000, 2000, (rows, TOKENS), generator=torch.Generator().manual_seed(0))
        run_base = partial(forward, base, ids)
        results[rows] = [paired(partial(forward, model, ids), run_base, pairs) for model in (merged, adapted, base)]
    yield "## Merged"
    yield f"MiniLM, fp32, {TOKENS} tokens per row, LoRA r8 on q and v; medians of ratios, with their quartiles"
    yield table(
        HEAD,
        [[str(rows), f"{1e3 * median(times[0].theirs):.1f}", *map(str, times)] for rows, times in results.items()],
    )
    for rows, times in results.items():
        yield goal(f"merged against base, rows: {rows}", times[0].ratio, 1.05)
