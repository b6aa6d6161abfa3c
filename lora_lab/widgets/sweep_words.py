"""What the sweep panel says: where the sweep stands, and the best that has been found so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_lab.experiments.choice import Cell, label, said
from lora_lab.plots import Curve, smoothed
from lora_lab.widgets.live_sweep import LiveSweep
from lora_lab.widgets.panel import cannot, escape
from lora_lab.widgets.shown import Table

LOSSES = 8  # of each seed, in the table


def standing(live: LiveSweep) -> str:
    """Where a sweep stands, the pack at work, and what may be said of what has finished."""
    counts, failure = live.counts(), live.failure()
    words = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    words += f" (the first: {escape(failure)})." if failure else "."
    if live.error:
        return f"{cannot(live.error)} {words}"
    if live.alive:
        keeps = "Stop keeps what has finished; a kernel interrupt does not stop it."
        return f"<b>{live.doing}</b>{_at_work(live)}. {words} {_so_far(live)}{keeps}"
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


def map_words(view: str, metric: str, best: Cell | None) -> str:
    """The map in a sentence, for those who cannot see it; the table below it has every cell."""
    found = f"best at {label(best)}" if best else "no result yet"
    return f"Validation {metric}, {view}: {found}. The cells' buttons and the table below have the numbers."


def seeds_words(title: str, metric: str, curves: Sequence[Curve]) -> str:
    """The curves of a cell's seeds in a sentence."""
    ends = [f"{run.label} {said(run.validation[-1][1], metric)}" for run in curves if run.validation]
    found = f"{metric} at the last validation: {', '.join(ends)}" if ends else "not validated yet"
    return f"Validation {metric} and training loss over the steps, {title}; {found}."


def seeds_tables(curves: Sequence[Curve], metric: str) -> Iterator[Table]:
    """The same curves in numbers, a column for each seed: every validation, and the loss at some steps."""
    if not curves:
        return
    head, scored = ("step", *(run.label for run in curves)), [dict(run.validation) for run in curves]
    steps = sorted({step for one in scored for step in one})
    cells = [[said(one[s], metric) if s in one else "-" for one in scored] for s in steps]
    yield Table(f"validation {metric}", head, [(f"{s:,}", *row) for s, row in zip(steps, cells, strict=True)])
    losses = [dict(zip(run.steps, smoothed(run.losses), strict=False)) for run in curves]
    longest = max((run.steps for run in curves), key=len)
    every = max(1, len(longest) // LOSSES)
    some = [*longest[every - 1 :: every]]
    rows = [(f"{s:,}", *(f"{one[s]:.3f}" if s in one else "-" for one in losses)) for s in some]
    yield Table("training loss, mean of 25 steps (nats)", head, rows)
