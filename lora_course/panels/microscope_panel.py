"""The truncation microscope: a slider for the rank that every matrix of an update is cut to, and what is left of it."""

from __future__ import annotations

import ipywidgets as W

from lora_course.experiments.microscope import RANKS, Microscope, Views
from lora_course.panels.live_microscope import LiveLooks
from lora_course.panels.microscope_words import curves_tables, curves_words, flipped_table, look_words, standing
from lora_course.plots import truncation as pictures
from lora_lab.errors import BadValue
from lora_lab.training.watching import headless
from lora_lab.widgets.background import start_painted
from lora_lab.widgets.controls import button
from lora_lab.widgets.live_panel import LivePanel
from lora_lab.widgets.panel import FULL_WIDTH, wrapped


class MicroscopePanel(LivePanel):
    """Choose an update, drag the rank: accuracy, energy kept and flipped sentences follow at once.

    scope   a `Microscope`, whose looks are taken in the background while one plays; or `Views` that ship with the lab
    rank    where the slider starts
    Raises: BadValue for a rank that the slider has not.
    """

    live: LiveLooks

    def __init__(self, scope: Microscope | Views, rank: int = 4) -> None:
        super().__init__("The truncation microscope", least=600)
        self.live = LiveLooks(scope)
        names = list(self.live.views.ranks)
        stops = sorted({*RANKS, *(rank for ranks in self.live.views.ranks.values() for rank in ranks)})
        stops = [stop for stop in stops if stop <= max(ranks[-1] for ranks in self.live.views.ranks.values())]
        if rank not in stops:
            raise BadValue(f"the slider has no rank {rank}; it has {', '.join(map(str, stops))}")
        self.sheet = pictures.microscope_sheet()
        wide = W.Layout(width="400px")
        self.rank = W.SelectionSlider(options=stops, value=rank, description="rank", layout=wide)
        self.which = W.Dropdown(options=names, value=names[0], description="update", layout=W.Layout(width="330px"))
        self.stop_button = button("Stop", "stop", "end after this look", self.stop, disabled=True)
        self.table = W.HTML(layout=FULL_WIDTH)
        self.rank.observe(self._moved, "value")
        self.which.observe(self._moved, "value")
        self.arrange(wrapped(self.which, self.rank, self.stop_button), self.words, self.picture, self.table)
        self._moved()

    def show(self) -> MicroscopePanel:
        """The panel, its looks begun. With nobody watching (LORA_LAB_HEADLESS=1) all are taken before it returns."""
        if headless():
            self.work_here(self.live)
        elif self.live.state in ("ready", "stopped") and not self.live.alive:
            start_painted(self.live, self._paint, self.tell)
        return self

    def result(self) -> Views:
        """What has been seen. Raises: BadValue, telling what to do, while looks are still to come."""
        if self.live.views.left:
            raise BadValue(
                f"{self.live.views.left} looks are still to come: wait for the panel above, then run this again"
            )
        return self.live.views

    def _moved(self, _: object = None) -> None:
        self.live.wanted = (self.which.value, self.rank.value)
        self._paint()

    def _paint(self, _: object = None) -> None:
        with self.lock:
            views, name, rank = self.live.views, self.which.value, self.rank.value
            self.stop_button.disabled = not self.live.alive
            self.words.value = standing(self.live) + look_words(views, name, rank)
            self.table.value = flipped_table(views, name, rank)
            png = pictures.paint(self.sheet, views, rank, name)
            self.picture.show(png, curves_words(views, rank), *curves_tables(views))
