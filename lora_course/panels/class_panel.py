"""The class panel: what a class's runs show together, on a projector.

FOLDER/ada/runs/3f2a9c1b77e0.json ...     the store that a laptop left
FOLDER/ada/guess.json                     {"name": "Ada", "guess": 81}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
import pandas as pd

from lora_lab.errors import LabError, NotFound
from lora_lab.experiments.choice import CELL, Cell, conclusion, is_cell, label, ranked, said
from lora_lab.experiments.collect import collect
from lora_lab.experiments.results import load, of_one_dtype
from lora_lab.metrics import factor, main_metric
from lora_lab.plots import BLUE, GREY, RED, metric_name
from lora_lab.plots.sheet import Sheet
from lora_lab.training.runs import FINISHED, Store, stores
from lora_lab.widgets.map_panel import MapPanel, cells_table, drawing
from lora_lab.widgets.panel import FULL_WIDTH, cannot, escape, wrapped
from lora_lab.widgets.shown import Table

COMPARABLE = ["model", "task", "steps", "batch"]  # runs that differ in one of these do not share a map
LARGE = 14  # points: read from the last row
MOST_CELLS = 8  # of the spread over seeds


class ClassPanel(MapPanel):
    """A class's runs on a projector: its map, the spread over seeds, everyone's guesses. Refresh reads them again.

    folder    a folder of laptops' folders, whose stores are collected into `into` (FOLDER-collected when left out), or
              a store that was collected before
    A guess is of the test metric of the cell that validation chooses; of accuracies 81 and 0.81 are the same guess.
    Raises: NotFound for a folder that is not there.
    """

    def __init__(self, folder: str | Path, into: str | Path | None = None) -> None:
        super().__init__("What the class found", least=640)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise NotFound(f"there is no folder {folder}: give the one into which the class drops its stores")
        self.into = Path(into) if into else self.folder.with_name(f"{self.folder.resolve().name}-collected")
        self.runs, self.arrived, self.table = pd.DataFrame(), "", W.HTML(layout=FULL_WIDTH)
        self.sheet = Sheet(13, 7, (0.09, 0.15, 0.45, 0.74), (0.74, 0.47, 0.24, 0.42), (0.60, 0.12, 0.38, 0.16))
        self.refresh_button = W.Button(description="Refresh", icon="refresh", tooltip="read what has arrived")
        self.refresh_button.on_click(self.refresh)
        self.layout.max_width = "100%"  # a projector is wide
        self.arrange(wrapped(self.refresh_button, self.view, self.where), self.words, self.picture, self.table)
        self.refresh()

    def frame(self) -> pd.DataFrame:
        """The class's runs that share a map."""
        return self.runs

    def refresh(self, _: object = None) -> None:
        """Collect what has arrived, and show it; what cannot be read is said in words."""
        with self.lock:
            try:
                found, source = self._collected()
            except LabError as error:
                self.words.value = cannot(str(error))
                return
            lora = found[found["method"] == "lora"] if len(found) else found
            groups = sorted(lora.groupby(COMPARABLE), key=lambda one: len(one[1])) if len(lora) else []
            alike = groups[-1][1] if groups else lora
            self.runs, self.guesses = of_one_dtype(alike), guesses(self.folder)
            self.arrived = f"{len(found):,} runs from {source}."
            if others := len(found) - len(alike):
                self.arrived += f" {others:,} of them of another model, task or length are left out."
            if unlike := len(alike) - len(self.runs):
                self.arrived += f" {unlike:,} are left out that were trained in another dtype than most."
            known = map(str, self.runs.dropna(axis="columns", how="all"))  # columns may be of runs that are left out
            validated = {name.removeprefix("validation_"): 0 for name in known if name.startswith("validation_")}
            if not validated:
                self.runs = self.runs.iloc[:0]
                self.words.value = f"<b>{self.arrived}</b> Nothing to show yet: press Refresh when runs have arrived."
                return
            self.metric = main_metric(validated)
            self.said = conclusion(self.runs, self.store, self.metric)
            self._frame_changed()

    def _collected(self) -> tuple[pd.DataFrame, str]:
        """All runs, in a store that has them, and where they come from."""
        laptops = stores(self.folder)
        source, self.store = "one store", Store(self.folder if laptops == {self.folder} else self.into)
        if laptops != {self.folder}:
            unreadable = len(collect([self.folder], self.into).unreadable)
            why = "could not be read or are of a file that differs: lora-lab collect names them"
            source = f"{len(laptops)} laptop{'s' * (len(laptops) != 1)}"
            source += f" ({unreadable} records {why})" if unreadable else ""
        return load(self.store.folder), source

    def _paint(self, _: object = None) -> None:
        with self.lock:
            cells, metric, part = ranked(self.runs, self.metric), self.metric, self.part()
            best = cells.index[0]
            own = is_cell(self.runs, best) & self.runs["status"].isin(FINISHED)
            measured = float(self.runs.loc[own, metric].mean()) if own.any() else None
            values = [(name, scaled(guess, metric)) for name, guess in self.guesses]
            draw = drawing(self.view.value, part, metric, best, LARGE)
            spread = partial(draw_spread, frame=self.runs, cells=list(cells.index[:MOST_CELLS]), metric=metric)
            found = None if measured is None else scaled(measured, metric)
            dots = partial(draw_guesses, guesses=[value for _, value in values], found=found, metric=metric)
            percent = "%" if metric == "accuracy" else ""
            off = [(name, value, "-" if found is None else f"{value - found:+.1f}") for name, value in values]
            rows = [(name, f"{value:g}{percent}", by) for name, value, by in sorted(off, key=lambda one: -one[1])]
            caption = "guesses" if measured is None else f"guesses; measured on test: {said(measured, metric)}"
            words = (
                f"Validation {metric} of the class's runs, {self.view.value}: best on validation at {label(best)}. "
                "Beside it the spread over seeds of the best cells, and everyone's guess with the measured value."
            )
            table = Table(caption, ("name", "guess", "off by"), rows)
            self.picture.show(self.sheet.paint(draw, spread, dots), words, table)
            many = counted(values)
            if values and measured is not None and found is not None:
                name, value = min(values, key=lambda one: abs(one[1] - found))
                near = f"{escape(name)}'s {value:g}{percent}"
                many += f"; the nearest to {said(measured, metric)} on test is {near}"
            self.words.value = f"<b>{self.arrived}</b> {escape(self.said)} {many}."
            self.table.value = cells_table(part, ranked(part, metric), metric)


def guesses(folder: Path) -> list[tuple[str, float]]:
    """Everyone's name and guess, from each guess.json below a folder; one that holds no number is passed over."""
    found = []
    for file in sorted(folder.rglob("guess.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            found.append((str(value.get("name") or file.parent.name), float(value["guess"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return [(name, guess) for name, guess in found if np.isfinite(guess)]


def scaled(value: float, metric: str) -> float:
    """As it is drawn: an accuracy in percent, whether it was given so or as a share."""
    return factor(metric) * value if value <= 1 else value


def counted(guesses: Sequence[Any]) -> str:
    """1 guess, 2 guesses."""
    return f"{len(guesses)} guess{'es' * (len(guesses) != 1)}"


def draw_spread(axes: Any, frame: pd.DataFrame, cells: Sequence[Cell], metric: str) -> None:
    """The best cells, one below the other: each seed a dot, their mean a bar."""
    done = frame[frame["status"].isin(FINISHED)]
    groups = dict(list(done.groupby(list(CELL))[f"validation_{metric}"]))
    for place, cell in enumerate(cells):
        values = factor(metric) * groups.get(cell, pd.Series(dtype=float))
        axes.plot(values, np.full(len(values), place), "o", color=BLUE, alpha=0.6, markersize=7)
        axes.plot([values.mean()], [place], "|", color=RED, markersize=20, markeredgewidth=3)
    names = [label(cell[1:], CELL[1:]) for cell in cells]
    axes.set_yticks(range(len(cells)), names, fontsize=LARGE - 3)
    axes.set(ylim=(len(cells) - 0.5, -0.5), xlabel=metric_name(f"validation_{metric}"))
    _tidy(axes, "spread over seeds, best cells first")


def draw_guesses(axes: Any, guesses: Sequence[float], found: float | None, metric: str) -> None:
    """Everyone's guess as a dot, equal ones on top of each other, and what was measured as a line."""
    values = sorted(guesses)
    heights = [values[:place].count(value) for place, value in enumerate(values)]
    axes.plot(values, heights, "o", color=GREY, markersize=9)
    if found is not None:
        axes.axvline(found, color=RED, linewidth=3)
    axes.set(ylim=(-0.8, max(heights, default=0) + 0.8), yticks=[], xlabel=metric_name(metric))
    _tidy(axes, f"{counted(values)} (dots) and the measured value (line)")


def _tidy(axes: Any, title: str) -> None:
    axes.tick_params(axis="x", labelsize=LARGE - 3)
    axes.xaxis.label.set_size(LARGE - 1)
    axes.set_title(title, fontsize=LARGE, loc="right")
    axes.spines[["top", "right"]].set_visible(False)
