"""The compare panel: tick methods, press Start, and watch a table and its pictures grow a method at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as W

from lora_lab.errors import LabError
from lora_lab.experiments.compare import Comparison
from lora_lab.experiments.contenders import contenders
from lora_lab.methods import REGISTRY
from lora_lab.plots.methods import picture
from lora_lab.widgets.compare_tables import tables
from lora_lab.widgets.compare_words import standing, table, verdicts
from lora_lab.widgets.controls import choice
from lora_lab.widgets.live_compare import LiveCompare
from lora_lab.widgets.live_panel import ResumedPanel
from lora_lab.widgets.panel import FULL_WIDTH, cannot, wrapped

PICTURES = {
    "quality and parameters": "quality", "rates that were tried": "rates", "memory of a step": "memory",
    "time of a run": "time",
}  # fmt: skip
STEPS = (20, 50, 100, 200, 400, 800)


class ComparePanel(ResumedPanel):
    """Compare methods on one task, each at its own tuned rate, and see the verdicts.

    methods     those that are ticked at first; any that `contenders` takes, "lora:rank=1" too
    seeds       how many of each at the tuned rate
    rates       how many are tried of each method, on validation
    store       the folder that keeps what has finished
    reference   a comparison to draw pale behind this one, as `lesson.reference_comparison` gives
    terms       what else `compare` takes
    """

    live: LiveCompare | None

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
        self._drawn: Any = None  # what the table and the pictures show
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
        return self.show_when(self.methods)

    def result(self) -> Comparison:
        """The whole comparison. Raises: BadValue, telling what to press, while there is none."""
        live = self.live
        if live is None or live.comparison is None or live.done < len(live.methods):
            raise self.nothing_yet("comparison")
        return live.comparison

    # ---- painting

    def _settings_changed(self, _: object = None) -> None:
        """Other methods or terms, while none is at work: another comparison, of which the store may have a part."""
        if self._too_late():
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

    def _paint_state(self) -> None:
        live = self.live
        if live is None:
            return
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
            if found and shown:
                self.picture.show(shown._repr_png_(), shown.alt, *tables(kind, found))
            else:  # nor is what was shown before what is chosen now
                self.picture.show(b"", "")

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
        self.controls = (*self.boxes, self.more, self.seeds, self.rates, self.steps)
        for control in self.controls:
            control.observe(self._settings_changed, "value")

    def _arrange(self) -> None:
        self.view = choice("picture", list(PICTURES), self._paint_picture)
        self.table = W.HTML(layout=FULL_WIDTH)
        self.arrange(
            wrapped(*self.boxes),
            wrapped(self.more),
            wrapped(self.seeds, self.rates, self.steps),
            self._make_buttons("compare; what is in the store is not trained again"),
            self.words,
            self.view,
            self.picture,
            self.table,
        )
