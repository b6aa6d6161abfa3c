"""Section 4.2: memory, file and speed of training, LoRA against full fine-tuning.

Memory and file by the accountant for GPT-3, as the paper states them; all three for real on a model that fits here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lora_course.paper.reproduce.base import Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_course.paper.reproduce.table1 import Interval
from lora_lab.accounting.memory import memory
from lora_lab.accounting.models import config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare
from lora_lab.errors import BadValue
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training.measure import measure, optimizer_of

METHODS = {"full": FullFineTuning(), "LoRA": LoRA(rank=4)}
IN_PAPER = {"GPT-3 memory": "memory to train", "GPT-3 file": "checkpoint", "speed": "training speed"}
RATIO = "speed, LoRA over full"
BIG = "gpt3-175b"
ROUNDS, LEAST = 30, 5
ROWS, TOKENS = 4, 64
GB = 10**9


@dataclass(frozen=True)
class Costs:
    """By method: peak bytes of a real step, bytes of the file, tokens a second in each round; predicted for GPT-3."""

    peaks: Mapping[str, int]
    files: Mapping[str, int]
    speeds: Mapping[str, list[float]]
    predicted: Mapping[str, float]  # GB, by row

    @property
    def gains(self) -> list[float]:
        """LoRA's speed over full fine-tuning's, in each round."""
        return [a / b for a, b in zip(self.speeds["LoRA"], self.speeds["full"], strict=True)]


class Costly(Item):
    name = "section4_2"
    title = "Memory, file and speed of training: LoRA of rank 4 against full, smollm2 here and GPT-3 predicted"
    finding = (
        "LoRA trains in less than half the memory of full fine-tuning and more than 1.1 times as fast, and its file is "
        "less than a hundredth of the size."
    )
    rule = (
        f"On smollm2, measured in {LEAST} rounds or more: holds if a LoRA step's peak is below half of a full one's, "
        "its file below a hundredth, and the 95 % interval of the ratio of speeds above 1.1; fails if the peak or the "
        "file is not below that, or the interval lies below 1.1; else undecided."
    )
    minutes = 5.0
    limits = (
        "The paper says more, of GPT-3: a third of the memory, a file 10,000 times smaller, a quarter less time. "
        "A model of 135 M parameters trained in fp32 on a CPU in place of 175 B on many GPUs: activations and logits, "
        "which LoRA does not save, weigh more here, and so does AdamW's pass over every weight, which it does save. "
        "GPT-3's rows are computed, not measured: one row of 2,048 tokens; weights, gradients and "
        "AdamW's moments in fp16 (8 bytes a parameter; what trains beside a frozen base in fp32), no sharding."
    )
    axis = "MiB, GB or tokens/s: see the row"

    def __init__(self, model: str = "smollm2") -> None:
        self.model = model

    def expected(self, minutes: float) -> Plan:
        setup = Setup(batch=ROWS, seq=TOKENS, dtype="fp32")
        steps = self._ready(setup)
        started = time.perf_counter()
        for way in steps.values():
            way()
        return self._sized(minutes, time.perf_counter() - started)

    def run(self, plan: Plan, place: Place) -> Costs:
        setup = Setup(batch=ROWS, seq=TOKENS, dtype="fp32")
        peaks = {
            name: measure(self.model, one, batch=ROWS, seq=TOKENS, dtype="fp32").peak for name, one in METHODS.items()
        }
        files = {name: params(self.model, one).adapter_bytes for name, one in METHODS.items()}
        ways, took = self._ready(setup), {name: list[float]() for name in METHODS}
        for number in place.rounds(plan.sizes["rounds"], LEAST):
            for name in sorted(ways, reverse=bool(number % 2)):  # in turn first
                started = time.perf_counter()
                ways[name]()
                took[name].append(setup.batch * setup.seq / (time.perf_counter() - started))
        return Costs(peaks, files, took, predicted())

    def rows(self, found: Costs) -> list[Row]:
        mib = [Row(f"peak of a step, {n}", (size / 2**20,), "MiB") for n, size in found.peaks.items()]
        files = [Row(f"file, {n}", (size / 2**20,), "MiB") for n, size in found.files.items()]
        speeds = [Row(f"speed, {n}", tuple(own), "tokens/s") for n, own in found.speeds.items()]
        ratio = Row(RATIO, tuple(found.gains), "times")
        return [*mib, *files, *speeds, ratio, *(Row(name, (value,), "GB") for name, value in found.predicted.items())]

    def judge(self, kept: Kept) -> Judged:
        peak, file = (kept.rows[f"{of}, LoRA"][0] / kept.rows[f"{of}, full"][0] for of in ("peak of a step", "file"))
        speed = Interval.of(kept.rows[RATIO])
        memory = part(peak < 0.5, peak >= 0.5, f"{peak:.2f} of full's")
        size = part(file < 0.01, file >= 0.01, f"1 in {1 / file:,.0f}")
        return all_of(
            {"memory": memory, "file": size, "speed": part(speed.low > 1.1, speed.high < 1.1, f"{speed} times")}
        )

    def published(self, table: Any) -> Mapping[str, str]:
        rows = {name: table.row(quantity=quantity) for name, quantity in IN_PAPER.items()}
        full = {f"{name}, full": f"{row['full']:g} {row['unit']}" for name, row in rows.items()}
        lora = {f"{name}, LoRA": f"{row['lora']:g} {row['unit']}" for name, row in rows.items()}
        speed = rows["speed"]
        return {**full, **lora, RATIO: f"{speed['lora'] / speed['full']:.2f}"}

    def others(self, table: Any) -> Mapping[str, str]:
        return {RATIO: table.expected["training speed"]}

    def _ready(self, setup: Setup) -> dict[str, Any]:
        """For each method: a step that can be taken again and again, once taken."""
        ways = {}
        for name, method in METHODS.items():
            model = build(config_of(self.model), setup)
            prepare(model, method, setup)
            optimizer = optimizer_of([p for p in model.parameters() if p.requires_grad], setup.optimizer)
            ways[name] = partial(one_step, model, optimizer, setup)
            ways[name]()
        return ways

    def _sized(self, minutes: float, a_round: float) -> Plan:
        rounds = min(ROUNDS, int((60 * minutes) / a_round) - 6)  # measuring the peaks takes about six
        if rounds < LEAST:
            raise BadValue(f"{minutes:g} minutes are too few: {LEAST} rounds take about {11 * a_round / 60:.1f}")
        return Plan({"rounds": rounds}, (rounds + 6) * a_round)


def one_step(model: Any, optimizer: Any, setup: Setup) -> None:
    """Forward, backward and the optimizer's step."""
    forward_backward(model, setup)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def predicted() -> dict[str, float]:
    """GB for GPT-3, by the accountant: the peak of a step, and the file in fp16."""
    peaks = {name: memory(BIG, one, batch=1, seq=2048, dtype="fp16").peak for name, one in METHODS.items()}
    numbers = {name: params(BIG, one).trainable for name, one in METHODS.items()}
    found = {f"GPT-3 memory, {name}": size / GB for name, size in peaks.items()}
    return found | {f"GPT-3 file, {name}": 2 * n / GB for name, n in numbers.items()}


ITEM = Costly()
