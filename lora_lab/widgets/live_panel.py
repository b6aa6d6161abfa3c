"""Panels whose work goes on in a thread: Stop, a cell that runs with nobody watching, and a Start that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import ipywidgets as W

from lora_lab.errors import BadValue
from lora_lab.training.watching import headless
from lora_lab.widgets.background import Background, begin
from lora_lab.widgets.controls import button
from lora_lab.widgets.panel import Panel, wrapped


class LivePanel(Panel):
    """A panel over `live`, which works in a thread; None while there is nothing to start. Subclasses `_paint` it."""

    live: Background | None = None

    def stop(self, _: object = None) -> None:
        """End the work after its present step; what there is by then is kept."""
        if self.live and self.live.alive:
            self.live.stop()

    def work_here(self, live: Background) -> None:
        """All of it before this returns, for a cell that nobody watches. Raises: BadValue where it fails."""
        live.work()
        self._paint()
        if live.error:
            raise BadValue(live.error)

    def _paint(self, _: object = None) -> None:
        raise NotImplementedError


class ResumedPanel(LivePanel):
    """A panel whose Start goes on with what is left, for what has finished is in a store.

    controls    what describes the work: disabled, and put back where they are changed, while it is going on
    """

    controls: Sequence[W.Widget] = ()
    _started: Sequence[tuple[W.Widget, Any]] = ()  # the controls, as they were at Start

    def show_when(self, described: Callable[[], object]) -> Self:
        """The panel, ready for Start. With nobody watching (LORA_LAB_HEADLESS=1) it works here and now.

        described    what the controls say; what it raises is then raised here, and not only said
        """
        if headless():
            described()
            self.start()
            if self.live and self.live.error:
                raise BadValue(self.live.error)
        return self

    def start(self, _: object = None) -> None:
        """Begin, or go on with the rest; does nothing while it is at work."""
        if self.live is None or self.live.alive:
            return
        self._started = [(control, control.value) for control in self.controls]
        begin(self.live, self._paint, self.tell)

    def nothing_yet(self, what: str) -> BadValue:
        """The error that tells what to press, while there is no result."""
        reason = (self.live and self.live.error) or "press Start in the panel above, then run this cell again"
        return BadValue(f"there is no finished {what}: {reason}")

    def _too_late(self) -> bool:
        """Whether it is at work: a change that was on its way when Start was pressed is then put back."""
        if self.live is None or not self.live.alive:
            return False
        for control, value in self._started:
            control.value = value
        return True

    def _paint(self, _: object = None) -> None:
        """Bring words, pictures and buttons to the present state; what has not changed is left alone."""
        with self.lock:
            busy = bool(self.live and self.live.alive)
            if busy:
                self._paint_buttons(busy)
            try:
                self._paint_state()
            finally:  # whatever went wrong with a picture; and who may press Start again has read how it ended
                self._paint_buttons(busy)

    def _paint_buttons(self, busy: bool) -> None:
        self.start_button.disabled, self.stop_button.disabled = busy or self.live is None, not busy
        for control in self.controls:
            control.disabled = busy

    def _paint_state(self) -> None:
        raise NotImplementedError

    def _make_buttons(self, tooltip: str) -> W.Box:
        """Start, Stop, and a bar of how far it is."""
        self.start_button = button("Start", "play", tooltip, self.start)
        self.stop_button = button("Stop", "stop", "end after this step; Start goes on", self.stop)
        self.bar = W.IntProgress(min=0, max=1, layout=W.Layout(width="160px"))
        return wrapped(self.start_button, self.stop_button, self.bar)
