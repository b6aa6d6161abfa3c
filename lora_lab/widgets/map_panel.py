"""What a panel shows of many runs: their map, painted anew while they arrive, and the table of their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ipywidgets as W
import pandas as pd

from lora_lab.experiments.choice import CELL, Cell, free, label, said
from lora_lab.plots import sweeps
from lora_lab.training.runs import FINISHED
from lora_lab.widgets.panel import Panel, escape, tabled

HEAT = {"alpha x rate": "alpha", "rank x rate": "rank", "targets x rate": "targets"}  # what stands over the rate
LINES = {"against rank": ("rank", "lr", "targets"), "over the rate": ("rank", "lr")}
MOST_LINES = 60  # of the table
Drawing = Callable[[Any], None]


class MapPanel(Panel):
    """A panel over a frame with a line for each run: which picture is made of it, and of which part of the grid."""

    def __init__(self, title: str, least: int = 0) -> None:
        super().__init__(title, least)
        self.view = menu("picture", [*HEAT, *LINES], self._view_changed)
        self.where = menu("at", [("", ())], self._part_changed)

    def frame(self) -> pd.DataFrame:
        """The runs, a line each, with the columns of CELL, hash, status, seed and the metrics."""
        raise NotImplementedError

    def part(self) -> pd.DataFrame:
        """Those of the runs that the picture shows."""
        frame = self.frame()
        for name, value in self.where.value:
            frame = frame[frame[name] == value]
        return frame

    def _frame_changed(self) -> None:
        """Another grid: begin with the map of what varies."""
        varying = free(self.frame())
        self.view.value = next((view for view, name in HEAT.items() if name in varying), "rank x rate")
        self._view_changed()

    def _view_changed(self, _: object = None) -> None:
        """Another picture: the settings that it does not show are to be chosen."""
        if self.frame().empty:
            return
        frame, shown = self.frame(), LINES.get(self.view.value) or (HEAT[self.view.value], "lr")
        left = [name for name in free(frame) if name not in shown]
        parts = frame[left].drop_duplicates().itertuples(index=False, name=None) if left else [()]
        options = [(label(part, left), tuple(zip(left, part, strict=True))) for part in parts]
        before, values = self.where.value, [value for _, value in options]
        self.where.options = options
        self.where.value = before if before in values else values[0]
        self.where.layout.display = "" if left else "none"
        self._part_changed()

    def _part_changed(self, _: object = None) -> None:
        self._paint()

    def _paint(self, _: object = None) -> None:
        raise NotImplementedError


def drawing(view: str, part: pd.DataFrame, metric: str, chosen: Cell | None = None, size: float = 8) -> Drawing:
    """What paints a view of these runs: a heat map over the rate, or lines with a dot for every seed."""
    done, name = part[part["status"].isin(FINISHED)], f"validation_{metric}"
    if view in HEAT:
        return partial(_heat, part=part, done=done, down=HEAT[view], metric=name, chosen=chosen, size=size)
    if done.empty:
        return lambda axes: axes.set_title("no finished run yet", fontsize=size + 1)
    draw = sweeps.draw_ranks if view == "against rank" else partial(sweeps.draw_rates, by="rank")
    tuned = ", each rank at its best rate" if view == "against rank" and done["lr"].nunique() > 1 else ""
    return partial(draw, frame=done, metric=name, title=f"every seed a dot, means joined{tuned}", size=size)


def _heat(
    axes: Any, part: pd.DataFrame, done: pd.DataFrame, down: str, metric: str, chosen: Cell | None, size: float
) -> None:
    rows, columns = sorted(part[down].unique()), sorted(part["lr"].unique())
    sweeps.draw_heat(axes, done, down, "lr", metric, rows, columns, size=size)
    place = dict(zip(CELL, chosen or (), strict=False))
    for failed, rate in part.loc[part["status"] == "failed", [down, "lr"]].itertuples(index=False):
        if not ((done[down] == failed) & (done["lr"] == rate)).any():
            axes.text(columns.index(rate), rows.index(failed), "failed", ha="center", va="center", fontsize=size)
    if place and place[down] in rows and place["lr"] in columns:
        sweeps.mark_cell(axes, rows.index(place[down]), columns.index(place["lr"]))


def cells_table(part: pd.DataFrame, cells: pd.DataFrame, metric: str) -> str:
    """Every cell in words, best first: its seeds, their mean on validation, each one's value."""
    done = part[part["status"].isin(FINISHED)].sort_values("seed")
    each = done.groupby(list(CELL))[f"validation_{metric}"].agg(list).to_dict()
    shown = cells.head(MOST_LINES)
    lines = [_line(cell, row, each.get(cell, []), metric) for cell, row in shown.iterrows()]
    head = ("cell", "seeds", f"mean {metric} on validation", "each seed")
    more = f"<p>and {len(cells) - len(shown):,} cells more</p>" if len(cells) > len(shown) else ""
    return tabled("cells, best first", head, lines, style="max-height:300px; overflow:auto") + more


def _line(cell: Any, row: pd.Series, values: Sequence[float], metric: str) -> tuple[str, str, str, str]:
    failed = f", {row['failed']:.0f} failed" if row["failed"] else ""
    mean = said(row["mean"], metric) if values else "to come"
    each = " ".join(said(value, metric) for value in values)
    return escape(label(cell)), f"{len(values)}{failed}", mean, each


def menu(name: str, options: Sequence[Any], does: Callable[[object], None]) -> W.Dropdown:
    """A menu of the panels' usual width."""
    style, layout = {"description_width": "60px"}, W.Layout(width="270px")
    made = W.Dropdown(options=options, description=name, style=style, layout=layout)
    made.observe(does, "value")
    return made
