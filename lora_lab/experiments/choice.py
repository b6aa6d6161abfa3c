"""Which cell of a grid to take: chosen on validation, judged on the test rows.

The frames have a line for each run, as `results.load` gives them; a cell's runs differ in their seeds alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import pandas as pd

from lora_lab.errors import LabError
from lora_lab.experiments.results import Runs, mixed_dtypes
from lora_lab.experiments.statistics import verdict
from lora_lab.metrics import metric as metric_of
from lora_lab.training.runs import FINISHED, Store

CELL = ("targets", "rank", "alpha", "lr")
Cell = tuple[Any, ...]


def free(frame: pd.DataFrame) -> list[str]:
    """The settings of a cell that vary by themselves: alpha does not if a rule makes it follow from the rank."""
    varies = [name for name in CELL if frame[name].nunique() > 1]
    by_rule = "rank" in varies and frame.groupby("rank")["alpha"].nunique().max() == 1
    return [name for name in varies if not (name == "alpha" and by_rule)]


def ranked(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells, best mean validation first: mean, n finished, failed, eligible.

    Not eligible, and last, are cells with a failed run and those with few seeds beside the others: their mean is luck.
    """
    finished = frame["status"].isin(FINISHED)
    marked = frame.assign(
        mean=frame[f"validation_{metric}"].where(finished), n=finished, failed=frame["status"] == "failed"
    )
    cells = marked.groupby(list(CELL)).agg({"mean": "mean", "n": "sum", "failed": "sum"})
    eligible = (2 * cells["n"] > cells["n"].max()) & (cells["failed"] == 0)
    cells["eligible"] = eligible if eligible.any() else cells["n"] > 0
    return cells.sort_values(["eligible", "mean"], ascending=[False, not metric_of(metric).higher_is_better])


def conclusion(frame: pd.DataFrame, store: Store, metric: str) -> str:
    """Which cell validation chooses, and what the test rows say of it beside the runner-up."""
    if f"validation_{metric}" not in frame:
        return "No run was validated, so there is nothing to choose by."
    cells = ranked(frame, metric)
    names = list(cells.index[cells["eligible"]])
    if not names:
        return "No finished run to choose from."
    best, n, rates = names[0], int(cells["n"].iloc[0]), frame["lr"]
    mean = f"{said(cells['mean'].iloc[0], metric)} on validation, {n} seed{'s' * (n != 1)}"
    so_far = "So far validation" if (frame["status"] == "to come").any() else "Validation"
    at_edge = rates.nunique() > 1 and best[CELL.index("lr")] in (rates.min(), rates.max())
    edge = "; its rate is at the edge of the grid, so extend the rates before you trust it" if at_edge else ""
    words = f"{so_far} chooses {label(best)} ({mean}){edge}."
    if mixed := mixed_dtypes(frame.loc[frame["status"].isin(FINISHED), "run_dtype"].dropna()):
        words = f"Careful: {mixed}. {words}"
    try:
        return f"{words} {_on_test(frame, store, names[:2], metric)}"
    except LabError as error:
        return f"{words} What the test rows say is not known: {error}."


def label(values: Iterable[Any], names: Iterable[str] = CELL) -> str:
    """Settings in words: "q+v, rank 8, lr 0.002"."""
    pairs = zip(names, values, strict=True)
    return ", ".join(v.replace(",", "+") if n == "targets" else f"{n} {v:g}" for n, v in pairs)


def said(value: float, metric: str) -> str:
    """A metric as people write it: 82.0% or 17.3; a correlation of 0.571 is 57.1."""
    return metric_of(metric).text(value)


def is_cell(frame: pd.DataFrame, cell: Cell) -> pd.Series:
    """Which lines of the frame are runs of the cell."""
    return (frame[list(CELL)] == list(cell)).all(axis=1)


def _on_test(frame: pd.DataFrame, store: Store, cells: list[Cell], metric: str) -> str:
    """The verdict of the best on the runner-up, from the seeds that both have: seed i of both is a pair."""
    names = [frame.loc[is_cell(frame, cell) & frame["status"].isin(FINISHED), "hash"] for cell in cells]
    runs = [{run.recipe.seed: run for run in map(store.read, hashes)} for hashes in names]
    words = f"On the test rows it reaches {said(fmean(run.metrics[metric] for run in runs[0].values()), metric)}"
    if len(runs) < 2:
        return f"{words}; there is no other cell to compare it with."
    common = sorted(runs[0].keys() & runs[1].keys())
    best, second = (Runs(tuple(one[seed] for seed in common or one)) for one in runs)
    return f"{words}; against the runner-up on validation, {label(cells[1])}: {verdict(best, second)}."
