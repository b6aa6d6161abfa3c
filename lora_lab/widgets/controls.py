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


def offer(choice: W.Dropdown, options: Sequence[tuple[str, Any]]) -> None:
    """Other options; what was chosen stays where it is still there."""
    values, before = [value for _, value in options], choice.value
    choice.options = options
    choice.value = before if before in values else values[0]
