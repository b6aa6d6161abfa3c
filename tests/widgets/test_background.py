"""Work in a thread: what Stop ends, and what it does not."""

import threading
import time
from itertools import count

from lora_lab.widgets import base


class Counting(base.Background):
    """Counts to twenty in a fifth of a second, or until it is stopped."""

    def _work(self) -> None:
        self.state = "counting"
        for _ in range(20):
            if self._stop.is_set():
                self.state = "stopped"
                return
            time.sleep(0.01)
        self.state = "done"


def test_a_stop_ends_the_run_that_it_comes_into_and_no_other():
    live, ended = Counting(), []
    for too_late in (True, False, True):  # after the end of a run, or right after its start
        live.start()
        if too_late:
            live.wait(10)
        live.stop()
        live.wait(10)
        ended.append(live.state)
    assert ended == ["done", "stopped", "done"]


def test_a_point_that_cannot_be_painted_is_told_and_the_next_ones_are_painted(monkeypatch, watched: None):
    monkeypatch.setattr(base, "PAINTS_PER_SECOND", 100)
    live, told, numbers, done, panel = Counting(), set[str](), count(1), list[int](), base.LivePanel()
    panel.observe(lambda change: told.add(change["new"]["error"]), "live")

    def paint() -> None:
        if (number := next(numbers)) == 2:
            raise ValueError("no <room>")
        done.append(number)

    panel._begin(live, paint)
    for thread in [one for one in threading.enumerate() if one.name == "lora-lab-paint"]:
        thread.join(20)
    assert live.state == "done"
    assert done[:2] == [1, 3]
    assert len(done) > 3
    assert told == {"ValueError: no <room>"}
