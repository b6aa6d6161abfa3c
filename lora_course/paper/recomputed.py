"""Every number of the paper's tables that follows from something is computed anew and set beside the print.

    recomputed()      Recomputed(table, row, column, published "0.35M", derivation, exact 393216), its verdict
    frame("table3")   the same as a pandas frame
    why_not(...)      for all others: why they cannot be recomputed

Counts come from our own accountant (`lora_lab.params`), which sees only a model's config: where it and the print agree,
both are right. Ranks and bottlenecks are those of tables 9 to 11, 5 and 15, even where the code has others: 4.7M for
DeBERTa does not follow from table 10. Sizes that the paper does not state are those that come nearest to its count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd

from lora_course.paper import SPREAD, Table, facts, number, table
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import FP32, params
from lora_lab.experiments.study import method_of
from lora_lab.methods.base import Method
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning

EXACT, ROUNDED, NOT = "exact", "rounded", "does not follow"
TINY = 1e-9  # of a step: 353.5 is half a step from 354, whatever the floats say
GLUE = ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B")
GPT3 = "gpt3-175b"
FP16, GB, MIB = 2, 10**9, 2**20
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Recomputed:
    """A published number beside the one that follows from its description.

    row         the row of the table, from 0; None if the number stands in the table's words
    published   as printed, "0.35M"; its unit apart
    derivation  in words, how `exact` comes about
    exact       in the published unit, but M and B written out: 393216 for "0.35M"
    million     what M means: 10^6, or 2^20 where the paper counts so
    about       the coarsest step that the words allow: 10,000 for "about 10,000"; 0: as printed
    """

    table: str
    row: int | None
    column: str
    published: str
    derivation: str
    exact: float
    unit: str = ""
    million: int = 10**6
    about: float = 0

    @property
    def verdict(self) -> str:
        """exact, rounded or does not follow; see `verdict`."""
        return verdict(self.published, self.exact, million=self.million, about=self.about)


def verdict(published: str, exact: float, *, million: int = 10**6, about: float = 0) -> str:
    """Whether a printed figure is this number.

        exact             the number, rounded to the digits that are printed
        rounded           cut off instead of rounded (18.8M for 18.87M), or to fewer digits than its zeros suggest
                          (125.0M for 124.6M: two digits must be left), or within `about`
        does not follow   none of these

    Raises: BadValue if what is printed is no number.
    """
    digits = published.rstrip("KMB")
    value, step = number(published), 10.0 ** -len(digits.partition(".")[2]) * number(f"1{published[len(digits) :]}")
    if published.endswith("M"):
        value, step = value * million / 10**6, step * million / 10**6
    off = exact - value
    if abs(off) <= step * (0.5 + TINY):
        return EXACT
    significant = digits.replace(",", "").replace(".", "").lstrip("0")
    zeros = len(significant) - max(2, len(significant.rstrip("0")))
    coarse = max(10 ** max(0, zeros) * step, about)
    return ROUNDED if 0 <= off < step or abs(off) <= coarse / 2 else NOT


@cache
def recomputed() -> tuple[Recomputed, ...]:
    """All of them, the counts first."""
    return (*_counts(), *_ratios(), *_savings(), *_files_and_steps())


def frame(name: str | None = None) -> pd.DataFrame:
    """A row for each number, of one table or of all. Raises: NotFound for an unknown table."""
    rows = []
    for one in recomputed():
        if name is None or one.table == table(name).name:
            unit = f" {one.unit}".rstrip()
            exact = f"{one.exact:,.0f}" if one.exact >= 10_000 else f"{one.exact:.4g}"
            rows.append((one.table, _which(one), one.published + unit, exact + unit, one.verdict, one.derivation))
    return pd.DataFrame(rows, columns=["table", "number", "published", "exact", "verdict", "derivation"])


def why_not(table: Table, row: int, column: str) -> str | None:
    """Why this number cannot be recomputed; None if nothing says that it cannot."""
    known, score = facts("paper/recomputed"), column.removesuffix(SPREAD)
    reason = known["tables"].get(table.name, {}).get(column)
    for name, first, own, why in known["rows"]:
        if (name, first, own) == (table.name, str(table.rows[row][0]), column):
            reason = reason or why
    for why, columns in known["columns"].items():
        if column in columns or (why == "measured" and score in columns):
            reason = reason or why
    if score.partition("_")[0] in ("BLEU", "MET", "TER"):
        reason = reason or "measured"
    return known["reasons"].get(reason, reason) if reason else None


def _which(one: Recomputed) -> str:
    """Which number it is: what names its row, and the column."""
    if one.row is None:
        return "in words"
    columns = facts("paper/recomputed")["columns"]
    named = {*columns["name"], *columns["setting"]} - {"unit"}
    cells = [str(v) for k, v in table(one.table).records()[one.row].items() if k in named and v not in (None, "")]
    return f"{', '.join(cells)}: {one.column}"


# ---- trainable parameters


class PreLayer(NamedTuple):
    """An activation for each layer and token, L d_model (l_p + l_i) in section 5.1."""

    tokens: int


class TopLayers(NamedTuple):
    """FT-Top2: every weight of the topmost layers, without embeddings and final norm."""

    top: int


Counted = Method | PreLayer | TopLayers
WHOLE: dict[str, Counted] = {"FT": FullFineTuning(), "FT-Top2": TopLayers(2), "BitFit": BitFit()}


@cache
def counted(model: str, method: Counted, num_labels: int | None = None) -> tuple[str, int]:
    """A method in words, and how many numbers it trains."""
    a = architecture_of(model)
    match method:
        case PreLayer(tokens):
            return f"prefix of {tokens} tokens", a.layers * a.hidden * tokens
        case TopLayers(top):
            within = (m for m in a.modules if m.layer is not None and m.layer >= a.layers - top)
            return f"the {top} topmost layers", sum(m.parameters * m.count for m in within)
        case LoRA():
            words = f"LoRA of rank {method.rank} on {', '.join(method.targets)}"
        case Bottleneck():
            where = f", in {method.layers} layers" if method.layers else ""
            words = f"bottlenecks of {method.size} ({method.placement}{where})"
        case PromptTuning():
            words = f"{method.name} of {method.tokens} tokens"
        case _:
            words = "every weight" if method.trains_base else "every bias"
    return words, params(model, method, num_labels).trainable


def _counts() -> Iterator[Recomputed]:
    """Every count of tables 2 to 5 and 13 to 15."""
    for name in ("table2", "table3", "table13", "table14", "table4", "table15"):
        for i, row in enumerate(table(name).records()):
            gpt3 = name in ("table4", "table15")
            methods, source = _of_gpt3(name, row) if gpt3 else _of_row(row)
            model = GPT3 if gpt3 else facts("paper/recomputed")["zoo"][row["model"]]
            labels = 3 if not gpt3 and row["method"] == "BitFit" else None
            parts = [counted(model, method, labels) for method in methods]
            words = f"{' and '.join(words for words, _ in parts)} on {model}; {source}"
            yield Recomputed(name, i, "trainable", str(row["trainable"]), words, sum(count for _, count in parts))
    for row in table("table5").records():  # each row at 18M, which are 18 x 2^20
        words, count = counted(GPT3, LoRA(rank=row["rank"], targets=_targets(row["weights"])))
        yield Recomputed("table5", None, "", "18M", f"{words} on {GPT3}, in units of 2^20", count, million=2**20)


def _targets(weights: Any) -> tuple[str, ...]:
    """Roles for the paper's weights: ("q", "v") for "Wq,Wv"."""
    return tuple(name.removeprefix("W") for name in weights.split(","))


def _of_row(row: Row) -> tuple[list[Counted], str]:
    """What a row of tables 2, 3, 13 and 14 trains, and where its settings are from."""
    model, method, printed = (row[name] for name in ("model", "method", "trainable"))
    if method in WHOLE:
        return [WHOLE[method]], "no setting is needed"
    for *named, size in facts("paper/recomputed")["sought"]:
        if named == [model, method, printed]:
            nearest = PreLayer(size) if isinstance(size, int) else method_of(size)
            return [nearest], "the size is not stated, this one comes nearest"
    if method != "LoRA":
        stated = table("table9").row(model=model, method=method, trainable=printed, task="MNLI")["bottleneck"]
        return [Bottleneck(stated, "houlsby" if method == "AdapterH" else "pfeiffer")], "size of table 9"
    if model == "DeBERTa-XXL":
        setting, where = table("table10").row(task="MNLI"), "table 10"
    elif model.startswith("RoBERTa"):
        setting, where = table("table9").row(model=model, method="LoRA", mark="", task="MNLI"), "table 9"
    else:
        setting, where = table("table11").row(task="E2E"), "table 11"
    return [LoRA(rank=setting["rank"])], f"rank of {where}"


def _of_gpt3(name: str, row: Row) -> tuple[list[Counted], str]:
    """What a row of table 15 trains; table 4 states no setting: that of table 15's first row with the same count."""
    if name == "table4":
        same = [r for r in table("table15").records() if all(r[k] == row[k] for k in ("method", "trainable"))]
        return _of_gpt3("table15", same[0]) if same else ([WHOLE[row["method"]]], "no setting is needed")
    tokens, parts = (row["lp"] or 0) + (row["li"] or 0), list[Counted]()
    if row["rank"] is not None:
        parts.append(LoRA(rank=row["rank"], targets=_targets(row["weights"])))
    if row["method"] in ("PreEmbed", "LoRA+PE"):
        parts.append(PromptTuning(tokens))
    if row["method"] in ("PreLayer", "LoRA+PL"):
        parts.append(PreLayer(tokens))
    if row["bottleneck"] is not None:
        parts.append(Bottleneck(row["bottleneck"]))
    return parts or [WHOLE[row["method"]]], "settings of table 15"


# ---- what follows from other printed numbers


def _ratios() -> Iterator[Recomputed]:
    """Slowdowns of table 1, averages of table 2, amplification of table 7.

    With U and V random, r columns each, every entry of U^T W V has the mean square ||W||^2 / d^2, and there are r^2.
    """
    for i, row in enumerate(table("table1").records()):
        for design in ("AdapterL", "AdapterH"):
            slower, column = 100 * (row[design] / row["FT/LoRA"] - 1), f"{design}_slower_%"
            yield Recomputed("table1", i, column, str(row[column]), f"{design} / (FT/LoRA) - 1", slower, "%")
    for i, row in enumerate(table("table2").records()):
        average = mean(row[task] for task in GLUE)
        yield Recomputed("table2", i, "Avg", str(row["Avg"]), "mean of the eight tasks", average)
    d = architecture_of(GPT3).hidden
    for i, row in enumerate(table("table7").records()):
        words, times = f"{row['norm_dW']} / {row['UWV_of_dW']}", row["norm_dW"] / row["UWV_of_dW"]
        yield Recomputed("table7", i, "amplification", str(row["amplification"]), words, times, "times")
        words = f"{row['norm_W']} x {row['rank']} / {d}, root mean square over random directions; printed is one draw"
        by_chance = row["norm_W"] * row["rank"] / d
        yield Recomputed("table7", i, "UWV_of_random", str(row["UWV_of_random"]), words, by_chance)


def _savings() -> Iterator[Recomputed]:
    """Section 4.2 and the abstract, from the counts of GPT-3 and of LoRA of rank 4 on q and v."""
    full, lora = params(GPT3, FullFineTuning()).trainable, params(GPT3, LoRA(rank=4)).trainable
    speed = table("section4_2").row(quantity="training speed")
    slow, fast = speed["full"], speed["lora"]
    for row, column, published, words, exact, unit, about in (
        (0, "full", "1200", "16 bytes each: mixed precision with Adam", 16 * full / GB, "GB", 0),
        (0, "full", "1200", "6 bytes each: weights and both moments in fp16", 6 * full / GB, "GB", 0),
        (0, "lora", "350", "the frozen weights alone in fp16", FP16 * full / GB, "GB", 0),
        (1, "said", "0.67", "2/3: without two moments as large as the weights", 1 - 1 / 3, "share", 0),
        (2, "full", "350", "every weight in fp16", FP16 * full / GB, "GB", 0),
        (2, "lora", "0.035", "LoRA of rank 4 on q, v in fp16", FP16 * lora / GB, "GB", 0),
        (2, "said", "10,000", "the two checkpoints", full / lora, "times", 10_000),
        (3, "full", "35000", "100 x 350 GB", 100 * 350, "GB", 0),
        (3, "lora", "354", "350 GB + 100 x 35 MB", 350 + 100 * 0.035, "GB", 0),
        (4, "said", "25", f"time saved for a token: 1 - {slow} / {fast}", 100 * (1 - slow / fast), "%", 0),
        (4, "said", "25", f"tokens more in a second: {fast} / {slow} - 1", 100 * (fast / slow - 1), "%", 0),
        (5, "said", "10,000", "every weight to LoRA of rank 4 on q, v", full / lora, "times", 10_000),
    ):
        yield Recomputed("section4_2", row, column, published, words, exact, unit, about=about)


def _files_and_steps() -> Iterator[Recomputed]:
    """Sizes of files in the repository, which tell what was really trained; steps of table 11 on E2E.

    E2E's 42,061 training lines are its card's count; the paper says about 42,000.
    """
    for name, printed in (("gpt2-medium", "1.5"), ("gpt2-large", "2.3")):
        size, words = FP32 * params(name, LoRA(rank=4)).trainable / MIB, f"LoRA of rank 4 on {name} in fp32"
        yield Recomputed("table3", None, "", printed, words, size, "MB of 2^20")
    deberta, roberta = (
        params(name, LoRA(rank=rank), num_labels=3) for name, rank in (("deberta-v2-xxlarge", 16), ("roberta-base", 8))
    )
    pooler = sum(row.full for row in deberta.modules if row.role == "pooler")
    size = FP32 * (deberta.trainable + deberta.head + pooler) / MIB
    words = "LoRA of rank 16, pooler and head in fp32; the file has names besides"
    yield Recomputed("table2", None, "", "27.1", words, size, "MB of 2^20", about=0.2)
    size, words = FP32 * (roberta.trainable + roberta.head), "LoRA and head in fp32; the file has names besides"
    yield Recomputed("table2", None, "", "3,568,073", words, size, "bytes", about=50_000)
    row = table("table11").row(task="E2E")
    steps, words = ceil(42_061 * row["epochs"] / row["batch"]), f"42,061 rows x {row['epochs']} epochs / {row['batch']}"
    yield Recomputed("table11", None, "", "26289", words, steps, "steps")
    yield Recomputed("table18", None, "", "26,000", words, steps, "steps", about=1_000)
