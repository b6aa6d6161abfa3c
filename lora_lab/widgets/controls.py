"""The controls that panels share: buttons, menus and sliders of one look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as W


def button(name: str, icon: str, tooltip: str, does: Callable[[object], None], **more: Any) -> W.Button:
    """A button of the panels' usual width."""
    made = W.Button(description=name, icon=icon, tooltip=tooltip, layout=W.Layout(width="90px"), **more)
    made.on_click(does)
    return made


def choice(name: str, options: Sequence[Any], does: Callable[[object], None]) -> W.Dropdown:
    """A menu of the panels' usual width."""
    style, layout = {"description_width": "60px"}, W.Layout(width="270px")
    made = W.Dropdown(options=options, description=name, style=style, layout=layout)
    made.observe(does, "value")
    return made


class Ticks(W.Box):
    """Boxes to tick. changed: called after each tick."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(layout=W.Layout(display="flex", flex_flow="row wrap"))
        self._changed = changed

    def offer(self, names: Sequence[str], ticked: Sequence[str]) -> None:
        """Other boxes, those of `ticked` ticked."""
        widths = {name: "72px" if len(name) < 8 else "110px" for name in names}
        self.children = [
            W.Checkbox(value=name in ticked, description=name, indent=False, layout=W.Layout(width=width))
            for name, width in widths.items()
        ]
        for box in self.children:
            box.observe(lambda _: self._changed(), "value")

    @property
    def ticked(self) -> tuple[str, ...]:
        """The names that are ticked."""
        return tuple(box.description for box in self.children if box.value)


def offer(choice: W.Dropdown, options: Sequence[tuple[str, Any]]) -> None:
    """Other options; what was chosen stays where it is still there."""
    values, before = [value for _, value in options], choice.value
    choice.options = options
    choice.value = before if before in values else values[0]


def slider(
    name: str, stops: Sequence[float], value: float, form: str = "{:,}", label: str = "90px", width: str = "290px"
) -> W.SelectionSlider:
    """A slider over these stops; a value between two of them is added. `label`: the width of its name."""
    options = [(form.format(stop), stop) for stop in sorted({*stops, value})]
    style, layout = {"description_width": label}, W.Layout(width=width)
    return W.SelectionSlider(options=options, value=value, description=name, style=style, layout=layout)
