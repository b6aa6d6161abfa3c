"""Work in a thread: what Stop ends, and what it does not."""

from __future__ import annotations

import time

from lora_lab.widgets.background import Background


class Counting(Background):
    """Counts to twenty in a fifth of a second, or until it is stopped."""

    def _work(self) -> None:
        self.state = "counting"
        for _ in range(20):
            if self._stop.is_set():
                self.state = "stopped"
                return
            time.sleep(0.01)
        self.state = "done"


def test_a_stop_after_the_end_does_not_break_the_next_run():
    live = Counting()
    live.start()
    live.wait(10)
    live.stop()  # a moment too late
    live.start()
    live.wait(10)
    assert live.state == "done"


def test_a_stop_right_after_a_start_ends_it_and_the_next_run_is_whole():
    live = Counting()
    live.start()
    live.stop()
    live.wait(10)
    assert live.state == "stopped"
    live.start()
    live.wait(10)
    assert live.state == "done"
