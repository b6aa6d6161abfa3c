"""All looks through the microscope, one after another in a thread; what the slider stands on goes first. No widgets."""

from __future__ import annotations

from lora_course.experiments.microscope import Microscope, Views
from lora_lab.widgets.background import Background


class LiveLooks(Background):
    """Looks at every specimen at every rank, once.

    state    "ready", "starting", "looking", then "done", "stopped" or "failed"
    wanted   (specimen, rank) that is to be looked at next
    """

    def __init__(self, scope: Microscope | Views) -> None:
        super().__init__()
        self.scope = scope
        self.wanted: tuple[str, int] | None = None

    @property
    def views(self) -> Views:
        """What has been seen."""
        return self.scope.views if isinstance(self.scope, Microscope) else self.scope

    def _work(self) -> None:
        if isinstance(self.scope, Microscope):
            self.state = "looking"
            for _ in self.scope.all():
                if self._stop.is_set():
                    self.state = "stopped"
                    return
                if self.wanted:
                    self.scope.look(*self.wanted)
        self.state = "done"
