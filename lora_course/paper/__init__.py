"""The tables and figures of Hu et al. 2021 as data, each with its known errors.

    data/paper/table5.json  ->  Table(name "table5", columns, rows, notes, discrepancies, expected)

    table("table5").row(weights="Wq", rank=8)["MNLI"]      91.0
    table("table5").frame()                                a pandas frame
    table("table5")                                        in a notebook: the rows, and below them what does not hold
    recomputed("table3")                                   each number that can be computed from others, computed again

Columns ending in _std hold the spread that is printed with the value. `trainable` is text as printed, "0.35M". Marks:
* copied from earlier work, † a restricted setting.
Source: Hu et al. 2021, arXiv 2106.09685v2, from independent transcriptions; code and issues of microsoft/LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import yaml

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

Cell = str | float | int | None
SPREAD = "_std"


@dataclass(frozen=True)
class Table:
    """One table or figure as published.

    standing        confirmed: read in the paper; derived: computed from it; memory: neither
    seeds           how many runs a figure stands for, and their spread
    discrepancies   where paper, code and other people's reruns differ; shown wherever the table is shown
    expected        column or quantity -> what other people got, in words with figures
    """

    name: str
    title: str
    source: str
    standing: str
    seeds: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    discrepancies: tuple[str, ...]
    expected: Mapping[str, str]

    def frame(self, spreads: bool = False) -> pd.DataFrame:
        """The rows; with `spreads` also the columns of spreads."""
        kept = [column for column in self.columns if spreads or not column.endswith(SPREAD)]
        return pd.DataFrame(self.rows, columns=list(self.columns))[kept]

    def row(self, **where: Cell) -> dict[str, Any]:
        """The one row with these values, e.g. row(weights="Wq", rank=8).

        Raises: NotFound for an unknown column or if no row fits, BadValue if more than one does.
        """
        for column in where:
            self.column(column)
        found = [row for row in self.records() if all(row[column] == value for column, value in where.items())]
        asked = ", ".join(f"{column}={value!r}" for column, value in where.items())
        if not found:
            there = "; ".join(f"{column}: {_listed(self.column(column))}" for column in where)
            raise NotFound(f"{self.name} has no row with {asked}; there are {there}")
        if len(found) > 1:
            more = [column for column in self.columns if len({row[column] for row in found}) > 1]
            raise BadValue(f"{self.name} has {len(found)} rows with {asked or 'nothing asked'}; add {_listed(more)}")
        return found[0]

    def column(self, name: str) -> tuple[Cell, ...]:
        """One column, from the top. Raises: NotFound, with the nearest names."""
        if name not in self.columns:
            raise NotFound(f"{self.name} has no column '{name}'; nearest: {nearest(name, self.columns)}")
        return tuple(row[self.columns.index(name)] for row in self.rows)

    def records(self) -> list[dict[str, Any]]:
        """Every row by its columns' names."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def markdown(self) -> str:
        """Rows, notes, what others got and what does not hold, as Markdown; spreads stand behind their values."""
        kept = [column for column in self.columns if not column.endswith(SPREAD)]
        others = [f"{what}: {words}" for what, words in self.expected.items()]
        parts = [
            f"**{self.title}** ({self.source}; {self.standing}; {self.seeds})",
            markdown_table(kept, ([self._cell(column, row) for column in kept] for row in self.records())),
            *self.notes,
            *("\n".join([f"{title}:", "", *(f"- {one}" for one in sentences)])
              for title, sentences in (("What others got", others), ("What does not hold", self.discrepancies))
              if sentences),
        ]  # fmt: skip
        return "\n\n".join(parts)

    _repr_markdown_ = markdown  # the name that IPython looks for

    def _cell(self, column: str, row: Mapping[str, Cell]) -> str:
        value, spread = row[column], row.get(column + SPREAD)
        shown = _figure(value, self.column(column))
        return shown if spread is None else f"{shown} ± {_figure(spread, self.column(column + SPREAD))}"


@cache
def names() -> tuple[str, ...]:
    """Every table, figure and section that is there: table1 to table18, then figures, sections, the repository's."""

    def place(name: str) -> tuple[int, int]:
        kind, digits = re.fullmatch(r"([a-z]+)([\d_]*)", name).groups()  # type: ignore[union-attr]  # our own files
        return ("table", "fig", "section").index(kind) if digits else 9, int(digits.replace("_", "") or 0)

    return tuple(sorted((path.stem for path in shipped("data/paper").glob("*.json")), key=place))


@cache
def table(name: str) -> Table:
    """A table or figure by its name. Raises: NotFound, with the nearest names."""
    if name not in names():
        raise NotFound(f"the paper has no '{name}' here; nearest: {nearest(name, names())}")
    read = read_json(shipped(f"data/paper/{name}.json"))
    read |= {key: tuple(read[key]) for key in ("columns", "notes", "discrepancies")}
    return Table(name, **read | {"rows": tuple(map(tuple, read["rows"]))})


@cache
def facts(name: str) -> Any:
    """The plain values of data/NAME.yaml."""
    return yaml.safe_load(shipped(f"data/{name}.yaml").read_text(encoding="utf-8"))


def recomputed(name: str | None = None) -> pd.DataFrame:
    """Published numbers that can be computed from others, in one table or all. Raises: NotFound for an unknown table.

    verdict   exact, rounded or does not follow; the formulas are in data/paper/recomputed.yaml
    """
    found = [one for one in facts("paper/recomputed") if name is None or one["table"] == table(name).name]
    rows = []
    for one in found:
        size, unit = one["exact"], f" {one['unit']}".rstrip()
        exact = f"{size:,.0f}" if size >= 10_000 else f"{size:.4g}"
        rows.append({**one, "published": one["published"] + unit, "exact": exact + unit})
    return pd.DataFrame(rows, columns=["table", "number", "published", "exact", "verdict", "derivation"])


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar within a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: Cell, beside: Sequence[Cell]) -> str:
    """A number with as many decimals as its column has anywhere, so that 2.4 reads 2.40 below 2.47."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    floats = [v for v in beside if isinstance(v, float)]
    if len(floats) < sum(v is not None for v in beside) or 0 < min(map(abs, floats)) < 0.001:
        return f"{value:g}"  # several quantities in one column; learning rates
    return f"{value:.{max(len(repr(v).partition('.')[2].rstrip('0')) for v in floats)}f}"


def _listed(values: Sequence[Cell]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
