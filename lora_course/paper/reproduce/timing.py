"""Timed items (table 1, section 4.2): variants take turns; ratios are computed per round, so slowdowns cancel out."""

import copy
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lora_course.paper.reproduce import Interval, Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_lab import BadValue, Bottleneck, FullFineTuning, LoRA, load_model, memory, merge, params
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare
from lora_lab.experiments.statistics import Verdict
from lora_lab.training.measure import measure, optimizer_of

LEAST, FEWEST = 6, 5  # rounds required by the rules of table 1 and of section 4.2

# ---- table 1: bottlenecks run in series; LoRA runs in parallel, or is merged

MERGED, UNMERGED, HOULSBY, LIN = "LoRA merged", "LoRA beside", "bottleneck H", "bottleneck L"
WANTED = 20  # use a smaller grid to reach this many rounds
LONGER = 1.3  # factor for the extra time of attention over longer rows
SLOWER, SLOW = 0.05, 1.02  # tolerance for merged LoRA; the ratio that counts as a slowdown
SIZE, RANK = 64, 8  # the size of a bottleneck; the rank of LoRA


class Latency(Item):
    """Choose the first grid that is small enough for the time limit, and time a forward pass at each of its sizes."""

    def expected(self, minutes: float) -> Plan:
        models, ids = ways(self.model), torch.randint(1000, 2000, (4, 128))
        _time_models(models, ids, 0)  # warms up
        per_token = sum(_time_models(models, ids, 1).values()) / ids.numel()
        for cells in self.grids:
            per_round = sum(rows * tokens for rows, tokens in cells) * per_token * LONGER
            rounds = min(self.most, int(60 * minutes / per_round) - 1)
            if rounds >= min(WANTED, self.most):
                break
        _check_rounds(rounds, LEAST, minutes, (LEAST + 1) * per_round)
        return Plan({"rounds": rounds, "cells": cells}, (rounds + 1) * per_round)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        models = ways(self.model)
        inputs = {f"{rows} x {tokens}": torch.randint(1000, 2000, (rows, tokens)) for rows, tokens in sizes["cells"]}
        ratios: dict[str, list[float]] = {f"{cell} {name}": [] for cell in inputs for name in models if name != "base"}
        for ids in inputs.values():
            _time_models(models, ids, seed=0)
        for number in place.rounds(sizes["rounds"], LEAST):
            for cell, ids in inputs.items():
                times = _time_models(models, ids, seed=number)
                base = times.pop("base")
                for name, seconds in times.items():
                    ratios[f"{cell} {name}"].append(seconds / base)
        return [Row(name, tuple(values), self.axis) for name, values in ratios.items()], {}

    def judge(self, kept: Kept) -> Judged:
        cells = [name.removesuffix(f" {MERGED}") for name in kept.rows if name.endswith(MERGED)]
        small, large = (Interval.of(kept.rows[f"{cell} {HOULSBY}"]) for cell in (cells[0], cells[-1]))
        merged = [Interval.of(kept.rows[f"{cell} {MERGED}"]) for cell in cells]
        slows = small.low > max(SLOW, large.high), small.high < max(SLOW, large.low)
        inside = all(ratio.low > 1 - SLOWER and ratio.high < 1 + SLOWER for ratio in merged)
        outside = any(ratio.low > 1 + SLOWER or ratio.high < 1 - SLOWER for ratio in merged)
        bottleneck = part(*slows, f"{small} at {cells[0]}, {large} at {cells[-1]}")
        return all_of({"bottleneck H": bottleneck, "merged": part(inside, outside, ", ".join(map(str, merged)))})

    def paper_says(self, table: Any) -> dict[str, str]:
        texts = {}
        for row in table.records():
            cell = f"{row['batch']} x {row['seq']}"
            texts[f"{cell} {MERGED}"] = "1 (it is the base)"
            for name, column in ((HOULSBY, "AdapterH"), (LIN, "AdapterL")):
                texts[f"{cell} {name}"] = f"{row[column] / row['FT/LoRA']:.3f} ({row['adapter_parameters']})"
        return texts


def ways(model: str) -> dict[str, nn.Module]:
    """Return the plain model and a copy for each kind of adapter; random parameters stand in for trained ones."""
    base = load_model(model, num_labels=2)
    unmerged = _with_adapter(base, LoRA(rank=RANK))
    merge(merged := copy.deepcopy(unmerged))
    houlsby, lin = (_with_adapter(base, Bottleneck(SIZE, place)) for place in ("houlsby", "lin"))
    models = {"base": base, MERGED: merged, UNMERGED: unmerged, HOULSBY: houlsby, LIN: lin}
    return {name: module.eval() for name, module in models.items()}


def _with_adapter(base: nn.Module, method: Any) -> nn.Module:
    model = copy.deepcopy(base)
    method.attach(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "classifier" not in name:
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    return model


def _time_models(models: Mapping[str, nn.Module], ids: torch.Tensor, seed: int) -> dict[str, float]:
    """Time each model, in random order."""
    order, times = random.Random(seed).sample(sorted(models), len(models)), dict[str, float]()
    for name in order:
        start = time.perf_counter()
        with torch.inference_mode():
            models[name](input_ids=ids, attention_mask=torch.ones_like(ids))
        times[name] = time.perf_counter() - start
    return times


def _check_rounds(rounds: int, least: int, minutes: float, seconds: float) -> None:
    if rounds < least:
        raise BadValue(f"{minutes:g} minutes is not enough: {least} rounds take about {seconds / 60:.1f} minutes here")


# ---- section 4.2: memory, file size and training speed; for GPT-3, predictions by `lora_lab.accounting`

METHODS = {"full": FullFineTuning(), "LoRA": LoRA(rank=4)}
RATIO = "speed, LoRA over full"
BIG, ROUNDS = "gpt3-175b", 30
PEAKS = 6  # measuring the peaks takes about as long as this many rounds
STEP: dict[str, Any] = {"batch": 4, "seq": 64, "dtype": "fp32"}
MIB, GB = 2**20, 10**9


class Costs(Item):
    """Memory peaks, file sizes and tokens per second of both methods, and predictions for GPT-3."""

    def expected(self, minutes: float) -> Plan:
        steps = [_warm(self.model, method) for method in METHODS.values()]
        started = time.perf_counter()
        for step in steps:
            step()
        per_round = time.perf_counter() - started
        rounds = min(ROUNDS, int(60 * minutes / per_round) - PEAKS)
        _check_rounds(rounds, FEWEST, minutes, (FEWEST + PEAKS) * per_round)
        return Plan({"rounds": rounds}, (rounds + PEAKS) * per_round)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        steps = {name: _warm(self.model, method) for name, method in METHODS.items()}
        speeds = {name: list[float]() for name in METHODS}
        for number in place.rounds(sizes["rounds"], FEWEST):
            for name in sorted(steps, reverse=bool(number % 2)):  # alternate the order
                started = time.perf_counter()
                steps[name]()
                speeds[name].append(STEP["batch"] * STEP["seq"] / (time.perf_counter() - started))
        gains = tuple(a / b for a, b in zip(speeds["LoRA"], speeds["full"], strict=True))
        costs: list[tuple[str, str, Callable[[Any], float]]] = [
            ("peak of a step", "MiB", lambda method: measure(self.model, method, **STEP).peak / MIB),
            ("file", "MiB", lambda method: params(self.model, method).adapter_bytes / MIB),
            ("GPT-3 memory", "GB", lambda method: memory(BIG, method, batch=1, seq=2048, dtype="fp16").peak / GB),
            ("GPT-3 file", "GB", lambda method: 2 * params(BIG, method).trainable / GB),  # in fp16
        ]
        rows = [Row(f"{what}, {name}", (cost(m),), unit) for what, unit, cost in costs for name, m in METHODS.items()]
        timed = [Row(f"speed, {name}", tuple(values), "tokens/s") for name, values in speeds.items()]
        return [*rows[:4], *timed, Row(RATIO, gains, "times"), *rows[4:]], {}

    def judge(self, kept: Kept) -> Judged:
        peak, file = (kept.rows[f"{r}, LoRA"][0] / kept.rows[f"{r}, full"][0] for r in ("peak of a step", "file"))
        speed = Interval.of(kept.rows[RATIO])
        memory = part(peak < 0.5, peak >= 0.5, f"{peak:.2f} of full fine-tuning's")
        size = part(file < 0.01, file >= 0.01, f"1/{1 / file:,.0f} of full fine-tuning's")
        fast = part(speed.low > 1.1, speed.high < 1.1, f"{speed} times full fine-tuning's")
        return all_of({"memory": memory, "file": size, "speed": fast})

    def paper_says(self, table: Any) -> dict[str, str]:
        speed = table.row(quantity="training speed")
        return {**super().paper_says(table), RATIO: f"{speed['lora'] / speed['full']:.2f}"}


def _warm(name: str, method: Any) -> Callable[[], None]:
    """Return a training step that has run once."""
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
