"""The sweep panel: a grid of ranks, alphas and rates that trains side by side, and a map that fills while it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import ipywidgets as W
import pandas as pd

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.choice import CELL, Cell, free, label, ranked, said
from lora_lab.experiments.grid import RULES, Grid, check, numbers
from lora_lab.experiments.sweep import Swept
from lora_lab.plots import encoded, sweeps
from lora_lab.plots.sheet import Sheet
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store
from lora_lab.training.tasks import load_task
from lora_lab.widgets.controls import choice, offer
from lora_lab.widgets.live_panel import ResumedPanel
from lora_lab.widgets.live_sweep import Facts, LiveSweep, facts_in
from lora_lab.widgets.map_panel import HEAT, MapPanel, cells_table, drawing
from lora_lab.widgets.panel import FULL_WIDTH, cannot, escape, side_by_side, wrapped
from lora_lab.widgets.shown import Shown
from lora_lab.widgets.sweep_words import map_words, seeds_tables, seeds_words, standing

FIELDS = {  # what is typed, and an example of it
    "rank": "1,2,4,8",
    "alpha": "8,16 or fixed:16, rank, 2rank, sqrt",
    "lr": "5e-4,1e-3",
    "seed": "0,1,2 or 0-4",
    "targets": "q,v; all-linear",
    "steps": "200",
}
BEST = ("the best so far", ())  # for a drop-down, None would be no choice at all
MOST_BUTTONS, MOST_COLUMNS = 64, 8  # with more cells a map has only the drop-down


class SweepPanel(ResumedPanel, MapPanel):
    """Start, stop and resume a sweep; a map fills, and a chosen cell shows the curves of its seeds.

    The arguments are where the fields start; `fields` are settings that all runs share, such as validations=4.
    alpha     numbers, or a rule such as "2rank" (see `experiments.grid.alpha_of`)
    targets   "q,v", or several choices: ("q,v", "all-linear")
    store     the folder of finished runs, which are not run again; it is read once
    Raises: NotFound for a task that is not there.
    """

    live: LiveSweep | None = None

    def __init__(
        self,
        model: str = "minilm",
        task: str = "rt",
        *,
        rank: Sequence[int] | int = (1, 2, 4, 8, 16, 32),
        alpha: Sequence[float] | float | str = "fixed:16",
        lr: Sequence[float] | float = (5e-4, 1e-3, 2e-3, 4e-3),
        seed: Sequence[int] | int = (0,),
        targets: Sequence[str] | str = "q,v",
        steps: int = 200,
        batch: int = 8,
        store: str = "runs",
        **fields: Any,
    ) -> None:
        super().__init__("Sweep a grid")
        self.model, self.task, self.store, self.shared = model, task, Store(store), {"batch": batch, **fields}
        text, label_ = fields.get("text_column", "text"), fields.get("label_column", "label")
        self.metric = load_task(task, text=text, label=label_).metric
        self.known, self.trouble = self._known()
        self._drawn: list[Any] = [None, None]  # what the map and the curves show
        choices = targets if isinstance(targets, str) else "; ".join(targets)
        values = {"rank": rank, "alpha": alpha, "lr": lr, "seed": seed, "targets": choices, "steps": steps}
        self.fields = {name: _field(name, value) for name, value in values.items()}
        self.controls = tuple(self.fields.values())
        self.map = Sheet(4.6, 4.2, (0.15, 0.19, 0.82, 0.71))
        self.curves = Sheet(4.2, 4.2, (0.19, 0.56, 0.78, 0.35), (0.19, 0.12, 0.78, 0.34))
        self._arrange()
        self._grid_changed()

    # ---- what the fields say

    def recipes(self) -> list[Recipe]:
        """The runs that the fields describe. Raises: BadValue, NotFound for what cannot be, in one sentence."""
        text = {name: field.value.strip() for name, field in self.fields.items()}
        rule = text["alpha"][:1].isalpha() or text["alpha"] in RULES
        grid = Grid(
            rank=numbers("rank", text["rank"], int),
            alpha=text["alpha"] if rule else numbers("alpha", text["alpha"], float),
            lr=numbers("lr", text["lr"], float),
            seed=numbers("seed", text["seed"], int),
            targets=[part.strip() for part in text["targets"].split(";") if part.strip()],
        )
        steps = numbers("steps", text["steps"], int)
        if len(steps) > 1:
            raise BadValue("steps takes one number: runs of unlike length cannot be compared")
        made = grid.recipes(self.model, self.task, steps=steps[0], **{"validations": 8} | self.shared)
        check(made)
        return made

    # ---- what the buttons do

    def show(self) -> SweepPanel:
        """The panel, ready for Start. With nobody watching (LORA_LAB_HEADLESS=1) it sweeps here and now."""
        return self.show_when(self.recipes)

    def result(self) -> Swept:
        """The runs of the last sweep. Raises: BadValue, telling what to press, while there are none."""
        if self.live is None or self.live.swept is None:
            raise self.nothing_yet("sweep")
        return self.live.swept

    # ---- what is shown

    def _grid_changed(self, _: object = None) -> None:
        """Another grid, where none is at work: its axes, with what is known of it; where it cannot be, one sentence."""
        if self._too_late():
            return
        with self.lock:
            try:
                self.live = LiveSweep(self.recipes(), self.store, self.metric, self.known)
            except LabError as error:
                self.live, self.count.value = None, cannot(str(error))
                self._paint()
                return
            if self.live.counts()["left"] == 0:
                self.live.conclude()
            runs = f"<b>{len(self.live.recipes):,}</b> runs of {escape(self.model)} on {escape(self.task)}"
            self.count.value = f"{runs}. {self.trouble}"
            self._frame_changed()

    def frame(self) -> pd.DataFrame:
        """A line for each run of the grid, also of those to come."""
        return self.live.frame() if self.live else pd.DataFrame()

    def _part_changed(self, _: object = None) -> None:
        """Another part of the grid: its cells, to be chosen from."""
        with self.lock:
            varying = free(self.frame()) or list(CELL)
            cells = list(self.part()[list(CELL)].drop_duplicates().itertuples(index=False, name=None))
            names = [label([v for n, v in zip(CELL, c, strict=True) if n in varying], varying) for c in cells]
            offer(self.cell, [BEST, *zip(names, cells, strict=True)])
            self._lay_out_buttons(cells)
            self._drawn = [None, None]
            self._paint()

    # ---- painting

    def _paint_state(self) -> None:
        live = self.live
        if live is None:
            self.words.value = "<b>nothing to start</b>: mend the grid first."
            return
        self.bar.max, self.bar.value = len(live.recipes), len(live.recipes) - live.counts()["left"]
        self.words.value = standing(live)
        self._paint_map(live, self._chosen())
        self._paint_curves(live, self._chosen())

    def _paint_map(self, live: LiveSweep, chosen: Cell | None) -> None:
        """The map, the table and the cells' buttons; left alone while no result has come and nothing was chosen."""
        kind = (id(live), self.view.value, self.where.value, live.best() is None)
        if self._drawn[0] == (drawn := (kind, live.version, chosen)):
            return
        part, self._drawn[0] = self.part(), drawn
        cells = ranked(part, live.metric)
        png = self.map.paint(kind, drawing(self.view.value, part, live.metric, chosen))
        self.picture.show(png, map_words(self.view.value, live.metric, live.best()))
        self.table.value = cells_table(part, cells, live.metric)
        for cell, one in self.buttons.items():
            mean = float(cells["mean"][cell])
            one.description = f"{self.named[cell]}: {'to come' if math.isnan(mean) else said(mean, live.metric)}"
            one.button_style = "primary" if cell == chosen else ""

    def _paint_curves(self, live: LiveSweep, chosen: Cell | None) -> None:
        """The curves of the chosen cell; left alone while they are no longer than they were."""
        curves = live.curves(chosen) if chosen else []
        if self._drawn[1] == (drawn := (chosen, [len(one.steps) + len(one.validation) for one in curves])):
            return
        self._drawn[1] = drawn
        title, what = label(chosen) if chosen else "no run yet", f"validation_{live.metric}"
        metric = partial(sweeps.draw_seeds, curves=curves, what=what, title=title)
        png = self.curves.paint(bool(curves), metric, partial(sweeps.draw_seeds, curves=curves, what="loss"))
        self.cell_picture.show(png, seeds_words(title, live.metric, curves), *seeds_tables(curves, live.metric))

    def _chosen(self) -> Cell | None:
        """The cell whose curves are shown; without a choice the best so far, at first one that trains."""
        live = self.live
        return self.cell.value or (live.best() or live.at_work() if live else None)

    def still(self) -> bytes:
        """Both pictures in one."""
        return encoded(self.map, self.curves) if self.picture.value else b""

    # ---- controls

    def _known(self) -> tuple[dict[str, Facts], str]:
        """What the store has, and what is wrong with it: a record that cannot be read is no reason not to train."""
        try:
            return facts_in(self.store, self.metric), ""
        except LabError as error:
            return {}, cannot(str(error))

    def _arrange(self) -> None:
        self.count, self.table = W.HTML(layout=FULL_WIDTH), W.HTML(layout=FULL_WIDTH)
        self.cell = choice("curves of", [BEST], self._paint)
        self.cell_picture = Shown(layout=W.Layout(max_width="100%"))
        self.button_box, self.buttons = W.GridBox(), dict[Cell, W.Button]()
        for field in self.controls:
            field.observe(self._grid_changed, "value")
        self.arrange(
            wrapped(*self.controls),
            self.count,
            self._make_buttons("train what is not there yet"),
            self.words,
            wrapped(self.view, self.where, self.cell),
            side_by_side(self.picture, self.cell_picture),
            self.button_box,
            self.table,
        )

    def _lay_out_buttons(self, cells: Sequence[Cell]) -> None:
        """A button for each cell, where it stands in the heat map: to press with a mouse or with the keyboard."""
        place, rates = CELL.index(HEAT.get(self.view.value, "rank")), sorted({cell[-1] for cell in cells})
        rows = sorted({cell[place] for cell in cells}, reverse=True)  # the map's first row is its lowest
        fits = len(rates) <= MOST_COLUMNS and len(cells) == len(rows) * len(rates) <= MOST_BUTTONS
        order = sorted(cells, key=lambda cell: (rows.index(cell[place]), cell[-1])) if fits else []
        self.buttons = {cell: self._cell_button(cell) for cell in order}
        self.named = {cell: f"{sweeps.short(cell[place])}, {sweeps.short(cell[-1])}" for cell in order}
        self.button_box.children = list(self.buttons.values())
        self.button_box.layout.grid_template_columns = f"repeat({len(rates)}, minmax(0, 1fr))"

    def _cell_button(self, cell: Cell) -> W.Button:
        button = W.Button(tooltip=f"curves of {label(cell)}", layout=W.Layout(width="auto", min_width="0"))
        button.on_click(lambda _: setattr(self.cell, "value", cell))
        return button


def _field(name: str, value: Any) -> W.Text:
    several = [value] if isinstance(value, str | int | float) else value
    text = ",".join(v if isinstance(v, str) else _exact(v) for v in several)
    style, layout = {"description_width": "60px"}, W.Layout(width="270px")
    hint = FIELDS[name]
    return W.Text(value=text, description=name, placeholder=hint, continuous_update=False, style=style, layout=layout)


def _exact(value: float) -> str:
    """The shortest text that reads back as this number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
