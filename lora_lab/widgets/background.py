"""Run work in a background thread: start it, stop it, wait for it, and repaint while it runs. No widgets here."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from lora_lab.errors import LabError
from lora_lab.training.watching import headless, waits

PAINTS_PER_SECOND = 4


class Background:
    """Work that can be started and stopped. Subclasses implement `_work`, check `_stop`, and keep `state` up to date.

    error   one sentence if the work failed, else ""
    """

    state: str = "ready"
    error: str = ""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.stamps = deque[float](maxlen=1000)  # when the last steps ended; a sleep before them doesn't count

    def start(self) -> None:
        """Start the work in a thread and return at once."""
        self._stop.clear()  # may be set by a Stop while nothing was running
        self.state = "starting"
        self._thread = threading.Thread(target=self.work, name=f"lora-lab-{type(self).__name__}", daemon=True)
        self._thread.start()

    def seconds_for(self, steps: int, least: int = 3) -> int | None:
        """Estimate the seconds that `steps` more steps take, from the pace of the last ones; None before `least`."""
        return None if len(last := list(self.stamps)) < least else round((last[-1] - last[0]) / (len(last) - 1) * steps)

    def stop(self) -> None:
        """Ask the work to stop after its current step."""
        self._stop.set()

    @property
    def doing(self) -> str:
        """`state`, or a note that another training run has to finish first."""
        return "waiting for the other training" if waits(self._thread) else self.state

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the thread to end."""
        if self._thread:
            self._thread.join(seconds)

    def work(self) -> None:
        """Do all the work in this thread. An error sets `state` to "failed" and `error` to one sentence."""
        self.error = ""
        try:
            self._work()
        except LabError as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:  # an exception in a thread would go unnoticed
            self.error, self.state = f"{type(error).__name__}: {error}", "failed"
        finally:
            self._stop.clear()  # not at the beginning: a Stop right after Start must take effect

    def _work(self) -> None:
        raise NotImplementedError


def begin(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Do all the work before returning if nobody is watching (LORA_LAB_HEADLESS=1), else call `start_painted`."""
    if headless():
        live.work()
        paint()
    else:
        start_painted(live, paint, tell)


def start_painted(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Start the work, repaint several times a second while it runs, and once more at the end.

    tell    called with the first error that `paint` raises; the work and the painting continue
    """
    live.start()
    threading.Thread(target=_paint_until_done, args=(live, paint, tell), name="lora-lab-paint", daemon=True).start()


def _paint_until_done(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    message = ""
    while True:
        finished = not live.alive
        try:
            paint()
        except Exception as error:  # a later paint may succeed; an exception in a thread would go unnoticed
            message = message or f"{type(error).__name__}: {error}"
        if message:
            tell(message)
        if finished:
            return
        time.sleep(1 / PAINTS_PER_SECOND)
