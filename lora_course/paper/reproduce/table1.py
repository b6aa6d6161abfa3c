"""Table 1: what an adapter costs when a model answers. Bottlenecks stand in series, LoRA beside, or merged nowhere.

All answer the same rows in turn, round after round, so what slows the machine for a while slows all; ratios are taken
within a round.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_course.paper.reproduce.base import Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_lab.errors import BadValue
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.lora import LoRA
from lora_lab.methods.merge import merge
from lora_lab.training.models import load_model

Cells = tuple[tuple[int, int], ...]  # rows and tokens
GRIDS: tuple[Cells, ...] = (  # the paper's, and smaller ones for slower machines
    ((1, 128), (16, 256), (32, 512)),
    ((1, 128), (8, 256), (16, 256)),
    ((1, 128), (4, 128), (16, 128)),
    ((1, 32), (4, 32), (16, 64)),
)
MERGED, UNMERGED, HOULSBY, LIN = "LoRA merged", "LoRA beside", "bottleneck H", "bottleneck L"
ADDED = (MERGED, UNMERGED, HOULSBY, LIN)
ROUNDS, WANTED, LEAST = 100, 20, 6  # the paper's; those worth a smaller grid; the fewest that have an interval
LONGER = 1.3  # longer rows attend to more
SLOWER, SLOW = 0.05, 1.02  # share by which merged may be off; the ratio from which an answer is slowed
SIZE, RANK = 64, 8  # of a bottleneck; of LoRA

Times = Mapping[str, Mapping[str, list[float]]]  # cell -> way -> seconds of each round


def cell_name(rows: int, tokens: int) -> str:
    """As the table calls it: "1 x 128"."""
    return f"{rows} x {tokens}"


class Latency(Item):
    name = "table1"
    title = "Seconds of an answer: base, LoRA merged and beside, bottlenecks, on minilm"
    finding = "Bottlenecks H slow an answer, more in the smallest cell than in the largest; a merged LoRA by under 5 %."
    rule = (
        f"By ratios to the base within a round (95 % bootstrap interval of the median, {LEAST} rounds or more): holds "
        f"if bottleneck H's in the smallest cell lies above {SLOW} and above its own in the largest, and merged LoRA's "
        f"inside 0.95 to 1.05 in every cell; fails if H's in the smallest lies below {SLOW} or below its own in the "
        "largest, or merged LoRA's outside 0.95 to 1.05 in a cell; else undecided."
    )
    minutes = 8.0
    limits = (
        "A CPU and MiniLM in place of a Quadro RTX8000 and GPT-2 medium: on a GPU a small layer's start may weigh "
        "more beside its arithmetic than here (not measured). The paper has no row for LoRA beside the base."
    )
    axis = "time against the base (1 is equal)"
    line = 1.0

    def __init__(self, model: str = "minilm", grids: Sequence[Cells] = GRIDS, most: int = ROUNDS) -> None:
        self.model, self.grids, self.most = model, grids, most

    def expected(self, minutes: float) -> Plan:
        a_token = self._a_token()
        for cells in self.grids:
            a_round = sum(rows * tokens for rows, tokens in cells) * a_token * LONGER
            rounds = min(self.most, int(60 * minutes / a_round) - 1)
            if rounds >= min(WANTED, self.most):
                break
        if rounds < LEAST:
            needed = (LEAST + 1) * a_round / 60
            raise BadValue(f"{minutes:g} minutes are too few: {LEAST} rounds take about {needed:.1f} on this machine")
        return Plan({"rounds": rounds, "cells": [list(cell) for cell in cells]}, (rounds + 1) * a_round)

    def run(self, plan: Plan, place: Place) -> Times:
        models, cells = ways(self.model), plan.sizes["cells"]
        inputs = {cell_name(*cell): _inputs(*cell) for cell in cells}
        found: dict[str, dict[str, list[float]]] = {cell: {way: [] for way in models} for cell in inputs}
        for ids in inputs.values():
            _turn(models, ids, seed=0)  # warms up
        for number in place.rounds(plan.sizes["rounds"], LEAST):
            for cell, ids in inputs.items():
                for way, seconds in _turn(models, ids, seed=number).items():
                    found[cell][way].append(seconds)
        return found

    def rows(self, found: Times) -> list[Row]:
        return [Row(f"{cell} {way}", tuple(ratios(found, cell, way)), self.axis) for cell in found for way in ADDED]

    def judge(self, kept: Kept) -> Judged:
        cells = [name.removesuffix(f" {MERGED}") for name in kept.rows if name.endswith(MERGED)]
        small, large = (Interval.of(kept.rows[f"{cell} {HOULSBY}"]) for cell in (cells[0], cells[-1]))
        merged = [Interval.of(kept.rows[f"{cell} {MERGED}"]) for cell in cells]
        slows = small.low > max(SLOW, large.high), small.high < max(SLOW, large.low)
        inside = all(one.low > 1 - SLOWER and one.high < 1 + SLOWER for one in merged)
        outside = any(one.low > 1 + SLOWER or one.high < 1 - SLOWER for one in merged)
        h = part(*slows, f"{small} at {cells[0]}, {large} at {cells[-1]}")
        return all_of({"bottleneck H": h, "merged": part(inside, outside, ", ".join(map(str, merged)))})

    def published(self, table: Any) -> Mapping[str, str]:
        found = {}
        for row in table.records():
            cell = cell_name(row["batch"], row["seq"])
            found[f"{cell} {MERGED}"] = "1, being the base"
            for way, column in ((HOULSBY, "AdapterH"), (LIN, "AdapterL")):
                found[f"{cell} {way}"] = f"{row[column] / row['FT/LoRA']:.3f} ({row['adapter_parameters']})"
        return found

    def _a_token(self) -> float:
        """Seconds that a round takes for each token, of all ways together."""
        models, ids = ways(self.model), _inputs(4, 128)
        _turn(models, ids, 0)
        return sum(_turn(models, ids, 1).values()) / ids.numel()


@dataclass(frozen=True)
class Interval:
    """A median with the 95 % interval of a bootstrap over rounds."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        draws = np.random.default_rng(0).choice(values, (2000, len(values)))
        low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
        return cls(median(values), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratios(found: Times, cell: str, way: str) -> list[float]:
    """Of each round: the time of a way over the base's."""
    return [own / base for own, base in zip(found[cell][way], found[cell]["base"], strict=True)]


def ways(model: str) -> dict[str, nn.Module]:
    """The same model plain, and with each kind of adapter filled with numbers as training might leave them."""
    base = load_model(model, num_labels=2)
    found = {"base": base, UNMERGED: _with(base, LoRA(rank=RANK))}
    found[MERGED] = copy.deepcopy(found[UNMERGED])
    merge(found[MERGED])
    found[HOULSBY] = _with(base, Bottleneck(size=SIZE))
    found[LIN] = _with(base, Bottleneck(size=SIZE, placement="lin"))
    return {way: found[way].eval() for way in ("base", *ADDED)}


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


ITEM = Latency()
