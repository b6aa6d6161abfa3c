import threading
import time
from itertools import count

from lora_lab.widgets import base
from tests.conftest import until


class Counting(base.Background):
    """Counts to 20 in 0.2 s, unless it is stopped."""

    def _work(self) -> None:
        self.state = "counting"
        for _ in range(20):
            if self._stop.is_set():
                self.state = "stopped"
                return
            time.sleep(0.01)
        self.state = "done"


def test_stop_ends_only_the_current_run():
    work, states = Counting(), []
    for after_the_end in (True, False, True):
        work.start()
        if after_the_end:
            until(lambda: not work.alive)
        work.stop()
        until(lambda: not work.alive)
        states.append(work.state)
    assert states == ["done", "stopped", "done"]


def test_paint_error_is_shown_and_painting_continues(monkeypatch, watched):
    monkeypatch.setattr(base, "PAINTS_PER_SECOND", 100)
    work, errors, numbers, painted, panel = Counting(), set[str](), count(1), list[int](), base.LivePanel()
    panel.observe(lambda change: errors.add(change["new"]["error"]), "live")

    def paint(work, busy):
        if (number := next(numbers)) == 2:
            raise ValueError("no <room>")
        painted.append(number)
        return {}

    monkeypatch.setattr(panel, "_paint", paint)
    panel._begin(work)
    for thread in threading.enumerate():
        if thread.name == "lora-lab-paint":
            thread.join(20)
    assert work.state == "done"
    assert painted[:2] == [1, 3]
    assert len(painted) > 3
    assert errors == {"", panel.live["error"]} == {"", "ValueError: no <room>"}
