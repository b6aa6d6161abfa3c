"""The tables and figures of Hu et al. 2021 as data, each with its known errors.

    data/paper/table5.json  ->  Table(name "table5", columns, rows, notes, discrepancies, expected)

    table("table5").row(weights="Wq", rank=8)["MNLI"]      91.0
    table("table5").frame()                                a pandas frame
    table("table5")                                        in a notebook: the rows, then the known errors
    recomputed("table3")                                   every number that follows from other numbers, recomputed

A column whose name ends in `_std` holds the spread printed with a value. `trainable` is text as printed, such as
"0.35M". The mark * means copied from earlier work, and † means a restricted setting.
Source: Hu et al. 2021, arXiv 2106.09685v2, from independent transcriptions; and the code and issues of microsoft/LoRA.
"""

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

    standing        "confirmed" in the paper, "derived" from it, or written from "memory" and not checked.
    seeds           How many runs each number summarizes, and their spread.
    discrepancies   Where the paper, its code and reruns by others differ; shown wherever the table is shown.
    expected        Column or quantity -> what others measured, as text with numbers.
    """

    name: str
    title: str
    source: str
    standing: str
    seeds: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str]
    discrepancies: Sequence[str]
    expected: Mapping[str, str]

    def frame(self, spreads: bool = False) -> pd.DataFrame:
        """Return the rows as a data frame, including the spread columns if `spreads`."""
        kept = [column for column in self.columns if spreads or not column.endswith(SPREAD)]
        return pd.DataFrame(self.rows, columns=list(self.columns))[kept]

    def row(self, **where: Cell) -> dict[str, Any]:
        """Return the one row with these values. Raises: NotFound; BadValue if several rows match."""
        columns = {name: self.column(name) for name in where}
        matches = [row for row in self.records() if all(row[column] == value for column, value in where.items())]
        query = ", ".join(f"{column}={value!r}" for column, value in where.items())
        if not matches:
            values = "; ".join(f"{name}: {_listed(column)}" for name, column in columns.items())
            raise NotFound(f"{self.name} has no row with {query}; available: {values}")
        if len(matches) > 1:
            more = [column for column in self.columns if len({row[column] for row in matches}) > 1]
            raise BadValue(f"{self.name} has {len(matches)} rows with {query or 'no filter'}; specify {_listed(more)}")
        return matches[0]

    def column(self, name: str) -> tuple[Cell, ...]:
        """Return one column, top to bottom. Raises: NotFound, with the nearest names."""
        if name not in self.columns:
            raise NotFound(f"{self.name} has no column '{name}'; nearest: {nearest(name, self.columns)}")
        return tuple(row[self.columns.index(name)] for row in self.rows)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dicts keyed by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def markdown(self) -> str:
        """Return rows, notes, other people's results and known errors as Markdown; each spread follows its value."""
        columns = [column for column in self.columns if not column.endswith(SPREAD)]
        others = [f"{quantity}: {result}" for quantity, result in self.expected.items()]
        parts = [
            f"**{self.title}** ({self.source}; {self.standing}; {self.seeds})",
            markdown_table(columns, ([self.cell(column, row) for column in columns] for row in self.records())),
            *self.notes,
        ]
        for title, sentences in (("What others got", others), ("What does not hold", self.discrepancies)):
            parts += ["\n".join([f"{title}:", "", *(f"- {sentence}" for sentence in sentences)])] if sentences else []
        return "\n\n".join(parts)

    _repr_markdown_ = markdown  # the name that IPython looks for

    def cell(self, column: str, row: Mapping[str, Cell]) -> str:
        """Return a value and its spread as printed, such as "90.2 ± 1.0"."""
        value, spread = row[column], row.get(column + SPREAD)
        shown = _figure(value, self.column(column))
        return shown if spread is None else f"{shown} ± {_figure(spread, self.column(column + SPREAD))}"


@cache
def names() -> tuple[str, ...]:
    """List all tables (table1 to table18), then figures, sections, and the tables about the authors' repository."""

    def order(name: str) -> tuple[int, int]:
        kind, digits = re.fullmatch(r"([a-z]+)([\d_]*)", name).groups()  # type: ignore[union-attr]  # our own files
        return ("table", "fig", "section").index(kind) if digits else 9, int(digits.replace("_", "") or 0)

    return tuple(sorted((path.stem for path in shipped("data/paper").glob("*.json")), key=order))


@cache
def table(name: str) -> Table:
    """Return a table or figure by name. Raises: NotFound, with the nearest names."""
    if name not in names():
        raise NotFound(f"the lab has no table or figure '{name}'; nearest: {nearest(name, names())}")
    return Table(name, **read_json(shipped(f"data/paper/{name}.json")))


@cache
def facts(name: str) -> Any:
    """Load data/NAME.yaml."""
    return yaml.safe_load(shipped(f"data/{name}.yaml").read_text(encoding="utf-8"))


def recomputed(name: str | None = None) -> pd.DataFrame:
    """List the numbers that follow from others, in one table or in all: see data/paper/recomputed.yaml."""
    entries = [entry for entry in facts("paper/recomputed") if name is None or entry["table"] == table(name).name]
    rows = []
    for entry in entries:
        value, unit = entry["exact"], f" {entry['unit']}".rstrip()
        exact = f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"
        rows.append({**entry, "published": entry["published"] + unit, "exact": exact + unit})
    return pd.DataFrame(rows, columns=["table", "number", "published", "exact", "verdict", "derivation"])


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table, escaping pipes within cells."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: Cell, column: Sequence[Cell]) -> str:
    """Format a number with the most decimals that its column uses: 2.4 becomes 2.40 in a column with 2.47."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    floats = [v for v in column if isinstance(v, float)]
    if len(floats) < sum(v is not None for v in column) or 0 < min(map(abs, floats)) < 0.001:
        return f"{value:g}"  # a column of mixed quantities, or of learning rates
    return f"{value:.{max(len(repr(v).partition('.')[2].rstrip('0')) for v in floats)}f}"


def _listed(values: Sequence[Cell]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
