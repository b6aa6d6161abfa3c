"""Table 1: what an adapter costs when a model answers. Bottlenecks stand in series; LoRA stands beside, or is merged.

All answer the same rows in turn, round after round, so what slows the machine slows all of them; ratios are taken
within a round.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lora_course.paper.reproduce.base import Interval, Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import Verdict
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.lora import LoRA
from lora_lab.methods.merge import merge
from lora_lab.training.models import load_model

GRIDS = (  # rows and tokens: the paper's, and smaller ones for slower machines
    ((1, 128), (16, 256), (32, 512)),
    ((1, 128), (8, 256), (16, 256)),
    ((1, 128), (4, 128), (16, 128)),
    ((1, 32), (4, 32), (16, 64)),
)
MERGED, UNMERGED, HOULSBY, LIN = "LoRA merged", "LoRA beside", "bottleneck H", "bottleneck L"
WANTED, LEAST = 20, 6  # rounds that are worth a smaller grid; the fewest that have an interval
LONGER = 1.3  # longer rows attend to more
SLOWER, SLOW = 0.05, 1.02  # share by which merged may be off; the ratio from which an answer is slowed
SIZE, RANK = 64, 8  # of a bottleneck; of LoRA


class Latency(Item):
    """grids: cells to time, the first that leaves enough of `most` rounds."""

    grids: Sequence[Sequence[tuple[int, int]]] = GRIDS
    most: int = 100  # as many as in the paper

    def __init__(self, name: str = "table1", **changes: Any) -> None:
        super().__init__(name, **changes)

    def expected(self, minutes: float) -> Plan:
        models, ids = ways(self.model), _inputs(4, 128)
        _turn(models, ids, 0)  # warms up
        a_token = sum(_turn(models, ids, 1).values()) / ids.numel()
        for cells in self.grids:
            a_round = sum(rows * tokens for rows, tokens in cells) * a_token * LONGER
            rounds = min(self.most, int(60 * minutes / a_round) - 1)
            if rounds >= min(WANTED, self.most):
                break
        if rounds < LEAST:
            needed = (LEAST + 1) * a_round / 60
            raise BadValue(f"{minutes:g} minutes are too few: {LEAST} rounds take about {needed:.1f} on this machine")
        return Plan({"rounds": rounds, "cells": [list(cell) for cell in cells]}, (rounds + 1) * a_round)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        models = ways(self.model)
        inputs = {f"{rows} x {tokens}": _inputs(rows, tokens) for rows, tokens in sizes["cells"]}
        ratios: dict[str, list[float]] = {f"{cell} {way}": [] for cell in inputs for way in models if way != "base"}
        for ids in inputs.values():
            _turn(models, ids, seed=0)
        for number in place.rounds(sizes["rounds"], LEAST):
            for cell, ids in inputs.items():
                took = _turn(models, ids, seed=number)
                base = took.pop("base")
                for way, seconds in took.items():
                    ratios[f"{cell} {way}"].append(seconds / base)
        return [Row(name, tuple(values), self.axis) for name, values in ratios.items()], {}

    def judge(self, kept: Kept) -> Judged:
        cells = [name.removesuffix(f" {MERGED}") for name in kept.rows if name.endswith(MERGED)]
        if not cells:
            raise KeyError(MERGED)
        small, large = (Interval.of(kept.rows[f"{cell} {HOULSBY}"]) for cell in (cells[0], cells[-1]))
        merged = [Interval.of(kept.rows[f"{cell} {MERGED}"]) for cell in cells]
        slows = small.low > max(SLOW, large.high), small.high < max(SLOW, large.low)
        inside = all(one.low > 1 - SLOWER and one.high < 1 + SLOWER for one in merged)
        outside = any(one.low > 1 + SLOWER or one.high < 1 - SLOWER for one in merged)
        h = part(*slows, f"{small} at {cells[0]}, {large} at {cells[-1]}")
        return all_of({"bottleneck H": h, "merged": part(inside, outside, ", ".join(map(str, merged)))})

    def published(self, table: Any) -> dict[str, str]:
        found = {}
        for row in table.records():
            cell = f"{row['batch']} x {row['seq']}"
            found[f"{cell} {MERGED}"] = "1, being the base"
            for way, column in ((HOULSBY, "AdapterH"), (LIN, "AdapterL")):
                found[f"{cell} {way}"] = f"{row[column] / row['FT/LoRA']:.3f} ({row['adapter_parameters']})"
        return found


def ways(model: str) -> dict[str, nn.Module]:
    """The same model plain, and with each kind of adapter filled with numbers as training might leave them."""
    base = load_model(model, num_labels=2)
    beside = _with(base, LoRA(rank=RANK))
    merge(merged := copy.deepcopy(beside))
    found = {"base": base, MERGED: merged, UNMERGED: beside}
    found |= {HOULSBY: _with(base, Bottleneck(SIZE)), LIN: _with(base, Bottleneck(SIZE, "lin"))}
    return {way: one.eval() for way, one in found.items()}


def _with(base: nn.Module, method: Any) -> nn.Module:
    model = copy.deepcopy(base)
    method.attach(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "classifier" not in name:
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    return model


def _inputs(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(1000, 2000, (rows, tokens), generator=torch.Generator().manual_seed(0))


def _turn(models: Mapping[str, nn.Module], ids: torch.Tensor, seed: int) -> dict[str, float]:
    """Seconds of each, in an order that changes from round to round."""
    order, took = random.Random(seed).sample(sorted(models), len(models)), dict[str, float]()
    for way in order:
        start = time.perf_counter()
        with torch.inference_mode():
            models[way](input_ids=ids, attention_mask=torch.ones_like(ids))
        took[way] = time.perf_counter() - start
    return took
