"""What is trained, chosen by hand: any method of the registry, and for LoRA its rank, alpha and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as W

from lora_lab.errors import BadValue
from lora_lab.methods import REGISTRY
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.widgets.controls import Ticks, slider
from lora_lab.widgets.panel import boxes_to_tick

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)


class MethodControls:
    """A list of methods, LoRA's sliders, and the targets that a model has.

    chosen    what the controls start with; another method than LoRA keeps the settings it came with
    roles     the targets to tick, such as ("q", "k", "v")
    changed   called after every change
    """

    def __init__(self, chosen: Method, roles: Sequence[str], changed: Callable[[], None]) -> None:
        self._given, self._changed = chosen, changed
        lora = chosen if isinstance(chosen, LoRA) else LoRA()
        self._ticked = tuple(lora.targets) if not isinstance(lora.targets, str) else (lora.targets,)
        self.name = W.Dropdown(
            options=list(REGISTRY), value=chosen.name, description="method", layout=W.Layout(width="200px")
        )
        self.rank = slider("rank", RANKS, lora.rank, "{:d}")
        self.alpha = slider("alpha", ALPHAS, lora.alpha, "{:g}")
        self.target_box = Ticks(self._heard)
        self.targets = boxes_to_tick("targets", self.target_box)
        for control in (self.name, self.rank, self.alpha):
            control.observe(self._heard, "value")
        self.show_roles(roles, self._ticked)
        self._show()

    def method(self) -> Method:
        """The method that the controls describe. Raises: BadValue for one that cannot be."""
        if self.name.value != LoRA.name:
            return self._given if self._given.name == self.name.value else REGISTRY[self.name.value]()
        if not self.target_box.ticked:
            raise BadValue("tick at least one target: without one, LoRA has no layer to sit beside")
        return LoRA(rank=self.rank.value, alpha=self.alpha.value, targets=self.target_box.ticked)

    def show_roles(self, roles: Sequence[str], ticked: Sequence[str] = ("q", "v")) -> None:
        """The targets of another model."""
        self.target_box.offer([*roles, *ticked], ticked)

    def _heard(self, _: object = None) -> None:
        self._show()
        self._changed()

    def _show(self) -> None:
        """LoRA's own controls, where it is chosen."""
        for control in (self.rank, self.alpha, self.targets):
            control.layout.display = None if self.name.value == LoRA.name else "none"
