"""Items timed in rounds: table 1 and section 4.2. In a round all variants take turns, so what slows the machine
for a moment slows all of them; ratios are taken within a round.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lora_course.paper.reproduce.base import Interval, Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_lab.accounting.memory import memory
from lora_lab.accounting.models import config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare
from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import Verdict
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.merge import merge
from lora_lab.training.measure import measure, optimizer_of
from lora_lab.training.models import load_model

LEAST, FEWEST = 6, 5  # rounds that the rules of table 1 and of section 4.2 ask for

# ---- table 1: bottlenecks stand in series; LoRA stands beside, or is merged

GRIDS = (  # rows and tokens: the paper's, and smaller ones for slower machines
    ((1, 128), (16, 256), (32, 512)),
    ((1, 128), (8, 256), (16, 256)),
    ((1, 128), (4, 128), (16, 128)),
    ((1, 32), (4, 32), (16, 64)),
)
MERGED, UNMERGED, HOULSBY, LIN = "LoRA merged", "LoRA beside", "bottleneck H", "bottleneck L"
WANTED = 20  # rounds that are worth a smaller grid
LONGER = 1.3  # longer rows attend to more
SLOWER, SLOW = 0.05, 1.02  # share by which merged may be off; the ratio from which an answer is slowed
SIZE, RANK = 64, 8  # of a bottleneck; of LoRA


class Latency(Item):
    """grids: cells to time, the first that leaves enough of `most` rounds."""

    grids: Sequence[Sequence[tuple[int, int]]] = GRIDS
    most: int = 100  # as many as in the paper

    def expected(self, minutes: float) -> Plan:
        models, ids = ways(self.model), _inputs(4, 128)
        _turn(models, ids, 0)  # warms up
        a_token = sum(_turn(models, ids, 1).values()) / ids.numel()
        for cells in self.grids:
            a_round = sum(rows * tokens for rows, tokens in cells) * a_token * LONGER
            rounds = min(self.most, int(60 * minutes / a_round) - 1)
            if rounds >= min(WANTED, self.most):
                break
        _check_rounds(rounds, LEAST, minutes, (LEAST + 1) * a_round)
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


def _check_rounds(rounds: int, least: int, minutes: float, seconds: float) -> None:
    """Raises: BadValue for fewer rounds than the rule asks for."""
    if rounds < least:
        needed = f"{least} rounds take about {seconds / 60:.1f} on this machine"
        raise BadValue(f"{minutes:g} minutes are too few: {needed}")


# ---- section 4.2: memory, file and speed of training; for GPT-3 by the accountant

METHODS = {"full": FullFineTuning(), "LoRA": LoRA(rank=4)}
RATIO = "speed, LoRA over full"
BIG, ROUNDS = "gpt3-175b", 30
PEAKS = 6  # about as many rounds as measuring the peaks takes
STEP: dict[str, Any] = {"batch": 4, "seq": 64, "dtype": "fp32"}
MIB, GB = 2**20, 10**9


class Costs(Item):
    """Peaks and files of both methods, tokens a second in each round, and GPT-3's memory and file predicted."""

    def expected(self, minutes: float) -> Plan:
        steps = self._steps()
        started = time.perf_counter()
        for step in steps.values():
            step()
        a_round = time.perf_counter() - started
        rounds = min(ROUNDS, int(60 * minutes / a_round) - PEAKS)
        _check_rounds(rounds, FEWEST, minutes, (FEWEST + PEAKS) * a_round)
        return Plan({"rounds": rounds}, (rounds + PEAKS) * a_round)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        steps, speeds = self._steps(), {name: list[float]() for name in METHODS}
        for number in place.rounds(sizes["rounds"], FEWEST):
            for name in sorted(steps, reverse=bool(number % 2)):  # they take turns at being first
                started = time.perf_counter()
                steps[name]()
                speeds[name].append(STEP["batch"] * STEP["seq"] / (time.perf_counter() - started))
        gains = tuple(a / b for a, b in zip(speeds["LoRA"], speeds["full"], strict=True))
        rows: list[tuple[str, str, Callable[[Any], float]]] = [
            ("peak of a step", "MiB", lambda one: measure(self.model, one, **STEP).peak / MIB),
            ("file", "MiB", lambda one: params(self.model, one).adapter_bytes / MIB),
            ("GPT-3 memory", "GB", lambda one: memory(BIG, one, batch=1, seq=2048, dtype="fp16").peak / GB),
            ("GPT-3 file", "GB", lambda one: 2 * params(BIG, one).trainable / GB),  # in fp16
        ]
        found = [Row(f"{what}, {name}", (of(one),), unit) for what, unit, of in rows for name, one in METHODS.items()]
        timed = [Row(f"speed, {name}", tuple(values), "tokens/s") for name, values in speeds.items()]
        return [*found[:4], *timed, Row(RATIO, gains, "times"), *found[4:]], {}

    def judge(self, kept: Kept) -> Judged:
        peak, file = (kept.rows[f"{of}, LoRA"][0] / kept.rows[f"{of}, full"][0] for of in ("peak of a step", "file"))
        speed = Interval.of(kept.rows[RATIO])
        memory = part(peak < 0.5, peak >= 0.5, f"{peak:.2f} of full's")
        size = part(file < 0.01, file >= 0.01, f"1 in {1 / file:,.0f}")
        fast = part(speed.low > 1.1, speed.high < 1.1, f"{speed} times")
        return all_of({"memory": memory, "file": size, "speed": fast})

    def published(self, table: Any) -> dict[str, str]:
        speed = table.row(quantity="training speed")
        return {**super().published(table), RATIO: f"{speed['lora'] / speed['full']:.2f}"}

    def _steps(self) -> dict[str, Callable[[], None]]:
        """For each method, a training step that can be repeated; it has run once."""
        return {name: _warm(self.model, method) for name, method in METHODS.items()}


def _warm(name: str, method: Any) -> Callable[[], None]:
    setup = Setup(**STEP)
    model = build(config_of(name), setup)
    prepare(model, method, setup)
    optimizer = optimizer_of([p for p in model.parameters() if p.requires_grad], setup.optimizer)

    def step() -> None:
        forward_backward(model, setup)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return step
