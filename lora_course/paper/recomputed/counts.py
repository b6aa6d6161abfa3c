"""Trainable parameters, counted anew: the paper's own settings, our accountant, the zoo's configs.

Ranks and bottlenecks are those of tables 9 to 11, 5 and 15, even where the code has others: 4.7M for DeBERTa does not
follow from table 10. Sizes that the paper does not state (SOUGHT) are those that come nearest to its count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lora_course.paper import Cell, Table, table
from lora_course.paper.recomputed.base import Recomputed
from lora_lab.accounting.models import Architecture, architecture_of
from lora_lab.accounting.params import params
from lora_lab.methods.base import Method
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning

Row = dict[str, Cell]

GPT3 = "gpt3-175b"
ZOO = {
    "RoBERTa-base": "roberta-base", "RoBERTa-large": "roberta-large", "DeBERTa-XXL": "deberta-v2-xxlarge",
    "GPT-2 M": "gpt2-medium", "GPT-2 L": "gpt2-large",
}  # fmt: skip


class Formula(NamedTuple):
    """What the lab does not train, counted as the paper describes it."""

    words: str
    count: Callable[[Architecture], int]


def pre_layer(tokens: int) -> Formula:
    """PreLayer: an activation for each layer and token, L d_model (l_p + l_i) in section 5.1."""
    return Formula(f"prefix of {tokens} tokens", lambda a: a.layers * a.hidden * tokens)


def top_layers(top: int) -> Formula:
    """FT-Top2: every weight of the topmost layers, without embeddings and final norm."""

    def count(a: Architecture) -> int:
        return sum(m.parameters * m.count for m in a.modules if m.layer is not None and m.layer >= a.layers - top)

    return Formula(f"the {top} topmost layers", count)


# Sizes that no table states, found by trying: (model, method, as printed) -> what comes nearest.
SOUGHT: dict[tuple[Cell, ...], Method | Formula] = {
    ("RoBERTa-base", "AdapterDrop", "0.9M"): Bottleneck(size=48, placement="pfeiffer"),
    ("RoBERTa-base", "AdapterDrop", "0.3M"): Bottleneck(size=48, placement="pfeiffer", layers=4),
    ("GPT-2 M", "AdapterL", "0.37M"): Bottleneck(size=6, placement="lin"),
    ("GPT-2 M", "AdapterL", "11.09M"): Bottleneck(size=224, placement="lin"),
    ("GPT-2 M", "AdapterL", "11M"): Bottleneck(size=224, placement="lin"),
    ("GPT-2 M", "AdapterH", "11.09M"): Bottleneck(size=112),
    ("GPT-2 M", "PreLayer", "0.35M"): pre_layer(14),
    ("GPT-2 L", "AdapterL", "0.88M"): Bottleneck(size=8, placement="lin"),
    ("GPT-2 L", "AdapterL", "23.00M"): Bottleneck(size=248, placement="lin"),
    ("GPT-2 L", "AdapterL", "23M"): Bottleneck(size=248, placement="lin"),
    ("GPT-2 L", "PreLayer", "0.77M"): pre_layer(17),
}


class Counted(NamedTuple):
    """What a row trains: methods side by side, on a model, and where their settings are from."""

    methods: tuple[Method | Formula, ...]
    source: str
    num_labels: int | None = None


def counts() -> Iterator[Recomputed]:
    """Every count of tables 2 to 5 and 13 to 15."""
    for name in ("table2", "table3", "table13", "table14"):
        one = table(name)
        yield from (_count(one, i, ZOO[str(row["model"])], _small(row)) for i, row in enumerate(one.records()))
    one = table("table4")
    yield from (_count(one, i, GPT3, _of_table4(row)) for i, row in enumerate(one.records()))
    one = table("table15")
    yield from (_count(one, i, GPT3, _of_grid(row)) for i, row in enumerate(one.records()))
    yield from budget()


def budget() -> Iterator[Recomputed]:
    """Table 5: each row at 18M, which are 18 x 2^20."""
    for row in table("table5").records():
        method = LoRA(rank=_whole(row["rank"]), targets=targets(row["weights"]))
        words = f"{_words(method)} on {GPT3}, in units of 2^20"
        yield Recomputed("table5", None, "", "18M", words, params(GPT3, method).trainable, million=2**20)


def targets(weights: Cell) -> tuple[str, ...]:
    """Roles for the paper's weights: ("q", "v") for "Wq,Wv"."""
    return tuple(name.removeprefix("W") for name in str(weights).split(","))


def _count(one: Table, index: int, model: str, what: Counted) -> Recomputed:
    found = [_trained(model, method, what.num_labels) for method in what.methods]
    words = f"{' and '.join(_words(m) for m in what.methods)} on {model}; {what.source}"
    return Recomputed(one.name, index, "trainable", str(one.column("trainable")[index]), words, sum(found))


def _trained(model: str, method: Method | Formula, num_labels: int | None) -> int:
    if isinstance(method, Formula):
        return method.count(architecture_of(model))
    return params(model, method, num_labels).trainable


def _small(row: Row) -> Counted:
    """What a row of tables 2, 3, 13 and 14 trains."""
    model, method, printed = row["model"], row["method"], row["trainable"]
    if method in WHOLE:
        return Counted((WHOLE[str(method)],), "no setting is needed", 3 if method == "BitFit" else None)
    if sought := SOUGHT.get((model, method, printed)):
        return Counted((sought,), "the size is not stated, this one comes nearest")
    if method == "LoRA":
        return _lora_of(str(model))
    return _adapter_of_table9(row)


def _lora_of(model: str) -> Counted:
    if model == "DeBERTa-XXL":
        setting, where = table("table10").row(task="MNLI"), "table 10"
    elif model.startswith("RoBERTa"):
        setting, where = table("table9").row(model=model, method="LoRA", mark="", task="MNLI"), "table 9"
    else:
        setting, where = table("table11").row(task="E2E"), "table 11"
    return Counted((LoRA(rank=_whole(setting["rank"])),), f"rank of {where}")


def _adapter_of_table9(row: Row) -> Counted:
    where = {key: row[key] for key in ("model", "method", "trainable")}
    placement = "houlsby" if row["method"] == "AdapterH" else "pfeiffer"
    size = _whole(table("table9").row(**where, task="MNLI")["bottleneck"])
    return Counted((Bottleneck(size=size, placement=placement),), "size of table 9")


def _of_table4(row: Row) -> Counted:
    """Table 4 states no setting: that of table 15 with the same count, the first where there are two."""
    same = [r for r in table("table15").records() if (r["method"], r["trainable"]) == (row["method"], row["trainable"])]
    return _of_grid(same[0]) if same else Counted((WHOLE[str(row["method"])],), "no setting is needed")


def _of_grid(row: Row) -> Counted:
    """What a row of table 15 trains on GPT-3."""
    tokens = _whole(row["lp"] or 0) + _whole(row["li"] or 0)
    parts: dict[str, Method | Formula] = {}
    if row["rank"] is not None:
        parts["LoRA"] = LoRA(rank=_whole(row["rank"]), targets=targets(row["weights"]))
    if row["method"] in ("PreEmbed", "LoRA+PE"):
        parts["PE"] = PromptTuning(tokens)
    if row["method"] in ("PreLayer", "LoRA+PL"):
        parts["PL"] = pre_layer(tokens)
    if row["bottleneck"] is not None:
        parts["H"] = Bottleneck(size=_whole(row["bottleneck"]))
    return Counted(tuple(parts.values()) or (WHOLE[str(row["method"])],), "settings of table 15")


def _words(method: Method | Formula) -> str:
    """LoRA of rank 8 on q, v."""
    match method:
        case LoRA():
            return f"LoRA of rank {method.rank} on {', '.join(method.targets)}"
        case Bottleneck():
            where = f", in {method.layers} layers" if method.layers else ""
            return f"bottlenecks of {method.size} ({method.placement}{where})"
        case PromptTuning():
            return f"{method.name} of {method.tokens} tokens"
        case FullFineTuning():
            return "every weight"
        case Formula():
            return method.words
    return "every bias"


def _whole(cell: Cell) -> int:
    assert isinstance(cell, int)  # our own tables
    return cell


WHOLE: dict[str, Method | Formula] = {"FT": FullFineTuning(), "FT-Top2": top_layers(2), "BitFit": BitFit()}
