"""The compare panel: tick methods, press Start, and watch a table and its pictures grow a method at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as W

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.compare import Comparison
from lora_lab.experiments.contenders import contenders
from lora_lab.methods import REGISTRY
from lora_lab.plots.methods import picture
from lora_lab.training.watching import headless
from lora_lab.widgets.background import start_painted
from lora_lab.widgets.compare_tables import tables
from lora_lab.widgets.compare_words import standing, table, verdicts
from lora_lab.widgets.controls import button, choice
from lora_lab.widgets.live_compare import LiveCompare
from lora_lab.widgets.panel import FULL_WIDTH, Panel, put_back, wrapped
from lora_lab.widgets.words import cannot

PICTURES = {
    "quality and parameters": "quality", "rates that were tried": "rates", "memory of a step": "memory",
    "time of a run": "time",
}  # fmt: skip
STEPS = (20, 50, 100, 200, 400, 800)


class ComparePanel(Panel):
    """Compare methods on one task, each at its own tuned rate, and see the verdicts.

    methods     those that are ticked at first; any that `contenders` takes, "lora:rank=1" too
    seeds       how many of each at the tuned rate
    rates       how many are tried of each method, on validation
    store       the folder that keeps what has finished
    reference   a comparison to draw pale behind this one, as `lesson.reference_comparison` gives
    terms       what else `compare` takes
    """

    def __init__(
        self,
        model: str = "minilm",
        task: str = "rt",
        methods: Sequence[str] = ("probe", "prompt", "lora", "full"),
        *,
        seeds: int = 2,
        rates: int = 4,
        steps: int = 200,
        batch: int = 8,
        store: str = "compared",
        reference: dict[str, Any] | None = None,
        **terms: Any,
    ) -> None:
        super().__init__("Compare methods")
        self.layout.max_width = "1000px"  # its table is wide
        self.model, self.task, self.store, self.reference = model, task, store, reference
        self.terms = {"batch": batch, **terms}
        self.live: LiveCompare | None = None
        self._drawn: Any = None  # what the table and the pictures show
        self._started: list[tuple[W.Widget, Any]] = []  # the controls, as they were at Start
        self._make_controls(methods, seeds, rates, steps)
        self._arrange()
        self._settings_changed()

    # ---- what the controls say

    def methods(self) -> list[str]:
        """The methods that are ticked or typed. Raises: BadValue, as `contenders`."""
        ticked = [box.description for box in self.boxes if box.value]
        typed = [words.strip() for words in self.more.value.split(",") if words.strip()]
        contenders([*ticked, *typed])
        return [*ticked, *typed]

    # ---- what the buttons do

    def show(self) -> ComparePanel:
        """The panel, ready for Start. With nobody watching (LORA_LAB_HEADLESS=1) it compares here and now."""
        if headless():
            self.methods()  # what cannot be is raised here, not only said
            self.start()
            if self.live and self.live.error:
                raise BadValue(self.live.error)
        return self

    def result(self) -> Comparison:
        """The whole comparison. Raises: BadValue, telling what to press, while there is none."""
        live = self.live
        if live is None or live.comparison is None or live.done < len(live.methods):
            reason = (live and live.error) or "press Start in the panel above, then run this cell again"
            raise BadValue(f"there is no finished comparison: {reason}")
        return live.comparison

    def start(self, _: object = None) -> None:
        """Begin the comparison, or go on with it; does nothing while one is going on."""
        live = self.live
        if live is None or live.alive:
            return
        self._started = [(control, control.value) for control in self._controls]
        if headless():
            live.work()
            self._paint()
            return
        start_painted(live, self._paint)

    def stop(self, _: object = None) -> None:
        """End it after the present step; what has finished is kept, Start goes on with the rest."""
        if self.live and self.live.alive:
            self.live.stop()

    # ---- painting

    def _settings_changed(self, _: object = None) -> None:
        """Other methods or terms, while none is at work: another comparison, of which the store may have a part."""
        if self.live and self.live.alive:
            put_back(self._started)
            return
        with self.lock:
            terms = {**self.terms, "seeds": self.seeds.value, "rates": self.rates.value, "steps": self.steps.value}
            try:
                self.live = LiveCompare(self.model, self.task, self.methods(), self.store, terms)
            except LabError as error:
                self.live, self.words.value = None, cannot(str(error))
            self._drawn, self.table.value = None, ""
            self.picture.show(b"", "")
            self._paint()

    def _paint(self, _: object = None) -> None:
        """Bring words, table, picture and buttons to the present state; what has not changed is left alone."""
        with self.lock:
            live = self.live
            if live is not None and live.alive:
                self._paint_buttons(live)
            try:
                if live is not None:
                    self._paint_found(live)
            finally:  # whatever went wrong with a picture, the buttons work again
                self._paint_buttons(live)

    def _paint_buttons(self, live: LiveCompare | None) -> None:
        busy = bool(live and live.alive)
        self.start_button.disabled, self.stop_button.disabled = busy or live is None, not busy
        for control in self._controls:
            control.disabled = busy

    def _paint_found(self, live: LiveCompare) -> None:
        self.bar.max, self.bar.value = len(live.methods), live.done
        self.words.value = standing(live)
        if live.found is not None and self._drawn != (id(live), live.version):
            self._drawn = (id(live), live.version)
            self.table.value = table(live.found) + verdicts(live.found)
            self._paint_picture()

    def _paint_picture(self, _: object = None) -> None:
        """The picture that is chosen, and the same in words."""
        with self.lock:
            found, kind = self.live.found if self.live else None, PICTURES[self.view.value]
            shown = picture(kind, found, self.reference) if found else None
            if found and shown is not None:
                self.picture.show(shown._repr_png_(), shown.alt, *tables(kind, found))

    # ---- controls

    def _make_controls(self, methods: Sequence[str], seeds: int, rates: int, steps: int) -> None:
        narrow = W.Layout(width="112px")
        ticked = {name: name in methods for name in dict.fromkeys([*(m for m in methods if m in REGISTRY), *REGISTRY])}
        self.boxes = [W.Checkbox(value=v, description=n, indent=False, layout=narrow) for n, v in ticked.items()]
        typed, wide = ", ".join(one for one in methods if one not in ticked), W.Layout(width="420px")
        hint = "lora:rank=1, prompt:tokens=50"
        self.more = W.Text(typed, description="and", placeholder=hint, continuous_update=False, layout=wide)
        self.seeds = W.BoundedIntText(seeds, min=1, max=20, description="seeds", layout=W.Layout(width="150px"))
        self.rates = W.BoundedIntText(rates, min=1, max=10, description="rates", layout=W.Layout(width="150px"))
        self.steps = W.Dropdown(options=sorted({*STEPS, steps}), value=steps, description="steps")
        self.steps.layout.width = "170px"
        self._controls = (*self.boxes, self.more, self.seeds, self.rates, self.steps)
        for control in self._controls:
            control.observe(self._settings_changed, "value")

    def _arrange(self) -> None:
        self.start_button = button("Start", "play", "compare; what is in the store is not trained again", self.start)
        self.stop_button = button("Stop", "stop", "end after this step; Start goes on", self.stop)
        self.bar = W.IntProgress(min=0, max=1, layout=W.Layout(width="160px"))
        self.view = choice("picture", list(PICTURES), self._paint_picture)
        self.table = W.HTML(layout=FULL_WIDTH)
        self.arrange(
            wrapped(*self.boxes),
            wrapped(self.more),
            wrapped(self.seeds, self.rates, self.steps),
            wrapped(self.start_button, self.stop_button, self.bar),
            self.words,
            self.view,
            self.picture,
            self.table,
        )
