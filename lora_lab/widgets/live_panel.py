"""Panels whose work goes on in a thread: Stop, and a cell that runs with nobody watching."""

from __future__ import annotations

from lora_lab.errors import BadValue
from lora_lab.widgets.background import Background
from lora_lab.widgets.panel import Panel


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
