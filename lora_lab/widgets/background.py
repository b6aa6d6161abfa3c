"""Work in a thread beside the notebook: started, stopped, waited for, and painted while it goes on. No widgets here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lora_lab.errors import LabError
from lora_lab.training.training_lock import waits
from lora_lab.training.watching import headless

PAINTS_PER_SECOND = 4


class Background:
    """What can be started and stopped. Subclasses do `_work`, look at `_stop`, and keep `state` up to date.

    error   one sentence where it failed, else ""
    """

    state: str = "ready"
    error: str = ""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in the background and return at once."""
        self._stop.clear()  # left by a Stop that had nothing to end
        self.state = "starting"
        self._thread = threading.Thread(target=self.work, name=f"lora-lab-{type(self).__name__}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end after its current step."""
        self._stop.set()

    @property
    def doing(self) -> str:
        """`state`, or a note that another training has to end first."""
        return "waiting for the other training" if waits(self._thread) else self.state

    @property
    def alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the thread to end."""
        if self._thread:
            self._thread.join(seconds)

    def work(self) -> None:
        """Do all the work in this thread. An error becomes `state` "failed" and one sentence in `error`."""
        self.error = ""
        try:
            self._work()
        except LabError as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:  # a thread's exception would vanish unseen
            self.error, self.state = f"{type(error).__name__}: {error}", "failed"
        finally:
            self._stop.clear()  # not at the beginning: a Stop right after a Start must count

    def _work(self) -> None:
        raise NotImplementedError


def begin(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Do all the work now if nobody watches (LORA_LAB_HEADLESS=1), else as `start_painted`."""
    if headless():
        live.work()
        paint()
    else:
        start_painted(live, paint, tell)


def start_painted(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Start it, and paint several times a second for as long as it is at work, and once more at the end.

    tell    shows the first error of `paint` beside what is painted; the work and the painting go on
    """
    live.start()
    threading.Thread(target=_pump, args=(live, paint, tell), name="lora-lab-paint", daemon=True).start()


def _pump(live: Background, paint: Callable[[], None], tell: Callable[[str], None]) -> None:
    trouble = ""
    while True:
        last = not live.alive
        try:
            paint()
        except Exception as error:  # the next point may be painted again, and a thread's exception would vanish unseen
            trouble = trouble or f"{type(error).__name__}: {error}"
        if trouble:
            tell(trouble)
        if last:
            return
        time.sleep(1 / PAINTS_PER_SECOND)
