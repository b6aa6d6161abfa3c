"""What the sweep panel says: where the sweep stands, and the best that has been found so far."""

from __future__ import annotations

from lora_lab.experiments.choice import label
from lora_lab.widgets.live_sweep import LiveSweep
from lora_lab.widgets.panel import escape
from lora_lab.widgets.words import cannot


def standing(live: LiveSweep) -> str:
    """Where a sweep stands, the pack at work, and what may be said of what has finished."""
    counts, failure = live.counts(), live.failure()
    words = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    words += f" (the first: {escape(failure)})." if failure else "."
    if live.error:
        return f"{cannot(live.error)} {words}"
    if live.alive:
        keeps = "Stop keeps what has finished; a kernel interrupt does not stop it."
        return f"<b>{live.state}</b>{_at_work(live)}. {words} {_so_far(live)}{keeps}"
    state = live.state if counts["left"] else "done"
    resumes = " Start trains what is left." if counts["left"] else ""
    return f"<b>{state}</b>: {words}{resumes} {escape(live.finding) or _so_far(live)}".strip()


def _so_far(live: LiveSweep) -> str:
    best = live.best()
    return f"So far validation is best at {escape(label(best))}. " if best else ""


def _at_work(live: LiveSweep) -> str:
    lanes, left = live.lanes(), live.seconds_left()
    if not lanes:
        return ""
    steps = f"step {live.step()} of {lanes[0].steps}"
    eta = f", about {left:.0f} s to go on this machine" if left is not None else ""
    return f": pack {live.packs_begun} of {live.packs}, {len(lanes)} runs side by side, {steps}{eta}"
