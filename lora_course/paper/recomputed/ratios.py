"""Averages, slowdowns, amplification, section 4.2, checkpoints and steps: what follows from other printed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from statistics import mean

from lora_course.paper import Cell, table
from lora_course.paper.recomputed.base import Recomputed
from lora_course.paper.recomputed.counts import GPT3
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import FP32, params
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA

GLUE = ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B")
FP16 = 2  # bytes of a number
GB, MIB = 10**9, 2**20


def ratios() -> Iterator[Recomputed]:
    """Everything that is no count of parameters."""
    yield from slowdowns()
    yield from averages()
    yield from amplification()
    yield from savings()
    yield from checkpoints()
    yield from steps()


def averages() -> Iterator[Recomputed]:
    """Table 2: the mean of the eight tasks."""
    for i, row in enumerate(table("table2").records()):
        yield Recomputed(
            "table2", i, "Avg", str(row["Avg"]), "mean of the eight tasks", mean(_number(row[k]) for k in GLUE)
        )


def slowdowns() -> Iterator[Recomputed]:
    """Table 1: how much longer a pass takes with adapters."""
    for i, row in enumerate(table("table1").records()):
        for design in ("AdapterL", "AdapterH"):
            slower = 100 * (_number(row[design]) / _number(row["FT/LoRA"]) - 1)
            column = f"{design}_slower_%"
            yield Recomputed("table1", i, column, str(row[column]), f"{design} / (FT/LoRA) - 1", slower, "%")


def amplification() -> Iterator[Recomputed]:
    """Table 7: ||dW|| / ||U^T W V||, and ||U^T W V|| for random directions: ||W|| r / d on average (root mean square).

    U and V random with r columns each: every entry of U^T W V has the mean square ||W||^2 / d^2, and there are r^2.
    """
    d = architecture_of(GPT3).hidden
    for i, row in enumerate(table("table7").records()):
        times = _number(row["norm_dW"]) / _number(row["UWV_of_dW"])
        words = f"{row['norm_dW']} / {row['UWV_of_dW']}"
        yield Recomputed("table7", i, "amplification", str(row["amplification"]), words, times, "times")
        chance = _number(row["norm_W"]) * _number(row["rank"]) / d
        words = f"{row['norm_W']} x {row['rank']} / {d}, root mean square over random directions; printed is one draw"
        yield Recomputed("table7", i, "UWV_of_random", str(row["UWV_of_random"]), words, chance)


def savings() -> Iterator[Recomputed]:
    """Section 4.2 and the abstract, from the counts of GPT-3 and of LoRA of rank 4 on q and v."""
    full, lora = params(GPT3, FullFineTuning()).trainable, params(GPT3, LoRA(rank=4)).trainable
    own, one = "section4_2", "full"
    yield Recomputed(own, 0, one, "1200", "16 bytes each: mixed precision with Adam", 16 * full / GB, "GB")
    yield Recomputed(own, 0, one, "1200", "6 bytes each: weights and both moments in fp16", 6 * full / GB, "GB")
    yield Recomputed(own, 0, "lora", "350", "the frozen weights alone in fp16", FP16 * full / GB, "GB")
    yield Recomputed(own, 1, "said", "0.67", "2/3: without two moments as large as the weights", 1 - 1 / 3, "share")
    yield Recomputed(own, 2, one, "350", "every weight in fp16", FP16 * full / GB, "GB")
    yield Recomputed(own, 2, "lora", "0.035", "LoRA of rank 4 on q, v in fp16", FP16 * lora / GB, "GB")
    yield Recomputed(own, 2, "said", "10,000", "the two checkpoints", full / lora, "times", about=10_000)
    yield Recomputed(own, 3, one, "35000", "100 x 350 GB", 100 * 350, "GB")
    yield Recomputed(own, 3, "lora", "354", "350 GB + 100 x 35 MB", 350 + 100 * 0.035, "GB")
    yield from _speed()
    words = "every weight to LoRA of rank 4 on q, v"
    yield Recomputed(own, 5, "said", "10,000", words, full / lora, "times", about=10_000)


def _speed() -> Iterator[Recomputed]:
    row = table("section4_2").row(quantity="training speed")
    full, lora = _number(row["full"]), _number(row["lora"])
    time, speed = 100 * (1 - full / lora), 100 * (lora / full - 1)
    yield Recomputed("section4_2", 4, "said", "25", f"time saved for a token: 1 - {full} / {lora}", time, "%")
    yield Recomputed("section4_2", 4, "said", "25", f"tokens more in a second: {lora} / {full} - 1", speed, "%")


def checkpoints() -> Iterator[Recomputed]:
    """Sizes of files in the repository and its README, which tell what was really trained."""
    for name, printed in (("gpt2-medium", "1.5"), ("gpt2-large", "2.3")):
        size = FP32 * params(name, LoRA(rank=4)).trainable / MIB
        yield Recomputed("table3", None, "", printed, f"LoRA of rank 4 on {name} in fp32", size, "MB of 2^20")
    deberta = params("deberta-v2-xxlarge", LoRA(rank=16), num_labels=3)
    pooler = sum(row.full for row in deberta.modules if row.role == "pooler")
    size = FP32 * (deberta.trainable + deberta.head + pooler) / MIB
    words = "LoRA of rank 16, pooler and head in fp32; the file has names besides"
    yield Recomputed("table2", None, "", "27.1", words, size, "MB of 2^20", about=0.2)
    roberta = params("roberta-base", LoRA(rank=8), num_labels=3)
    size, words = FP32 * (roberta.trainable + roberta.head), "LoRA and head in fp32; the file has names besides"
    yield Recomputed("table2", None, "", "3,568,073", words, size, "bytes", about=50_000)


def steps() -> Iterator[Recomputed]:
    """Steps of table 11 on E2E. Its 42,061 training lines are its card's count; the paper says about 42,000."""
    row = table("table11").row(task="E2E")
    taken = ceil(42_061 * _number(row["epochs"]) / _number(row["batch"]))
    words = f"42,061 rows x {row['epochs']} epochs / {row['batch']}"
    yield Recomputed("table11", None, "", "26289", words, taken, "steps")
    yield Recomputed("table18", None, "", "26,000", words, taken, "steps", about=1_000)


def _number(cell: Cell) -> float:
    assert isinstance(cell, int | float)  # our own tables
    return cell
