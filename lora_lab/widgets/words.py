"""What the training panel says: everything that its picture shows, for those who read or listen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_lab.experiments.choice import said
from lora_lab.plots import Curve, smoothed
from lora_lab.training.metrics import factor
from lora_lab.training.mind import Mind
from lora_lab.training.runs import Run
from lora_lab.widgets.live import LiveRun
from lora_lab.widgets.panel import cannot, escape, tabled
from lora_lab.widgets.shown import Table


def standing(live: LiveRun) -> tuple[str, str]:
    """The picture's title and the words beside it: where a run stands, or what came of it."""
    if live.error:
        return "The run failed", cannot(live.error)
    if live.doing in ("ready", "starting", "loading"):
        return "Loading", "<b>loading</b> the model and the texts"
    if live.doing != live.state:
        return "Waiting", f"<b>{live.doing}</b> of this notebook to end; Stop gives up."
    if live.state == "stopped" and live.run is None:
        return "Stopped", "<b>stopped</b> before it began: another training was at work. Start begins it anew."
    return _going_on(live) if live.run is None else _finished(live, live.run)


def curve_words(title: str, metric: str) -> str:
    """The curves' picture in a sentence, for those who cannot see it."""
    return f"Two curves over the steps, training loss and validation {metric}. {title}."


def curve_tables(live: Curve, earlier: Sequence[Curve], metric: str) -> Iterator[Table]:
    """The curves in numbers: this run at each validation and where it stands, and where earlier runs ended."""
    losses, scored = smoothed(live.losses), dict(live.validation)
    head = ("training loss, mean of 25 steps (nats)", f"validation {metric}")
    steps = sorted({*scored, *live.steps[-1:]})
    if steps:
        at = {step: f"{losses[place]:.3f}" for place, step in enumerate(live.steps)}
        lines = [(f"{s:,}", at.get(s, "-"), said(scored[s], metric) if s in scored else "-") for s in steps]
        yield Table("this run", ("step", *head), lines)
    ends = [(run.label, f"{smoothed(run.losses)[-1]:.3f}", _last(run, metric)) for run in earlier if len(run.losses)]
    if ends:
        yield Table("earlier runs, at their end", ("run", *head), ends)


def _last(run: Curve, metric: str) -> str:
    return said(run.validation[-1][1], metric) if run.validation else "-"


def mind_table(mind: Mind) -> str:
    """What the adapter does to the model's answers, in words and as a table."""
    worse = mind.changed - mind.for_the_better
    rows = [[escape(one) for one in (c.text, c.truth, c.without, c.with_adapter)] for c in mind.examples]
    return (
        f"<p>On {mind.rows} validation rows the same head gets {mind.without['accuracy']:.1%} with the adapter off and "
        f"{mind.with_adapter['accuracy']:.1%} with it on: it changed its mind on {mind.changed}, {mind.for_the_better} "
        f"for the better and {worse} not. The surest of them:</p>"
        + tabled("changes of mind", ("text", "label", "adapter off", "adapter on"), rows)
    )


def _going_on(live: LiveRun) -> tuple[str, str]:
    points, metric = live.curve().validation, live.metric
    value = f"{metric} {said(points[-1][1], metric)} on validation" if points else "not validated yet"
    left = live.seconds_left()
    eta = f", about {left:.0f} s to go on this machine" if left is not None else ""
    words = f"<b>{live.state}</b>: step {len(live.progress)} of {live.recipe.steps}, {value}{eta}"
    return f"Training: {value}", f"{words}. Stop keeps what was learned; a kernel interrupt does not stop it."


def _finished(live: LiveRun, run: Run) -> tuple[str, str]:
    metric, value = live.metric, said(run.metrics[live.metric], live.metric)
    words = (
        f"<b>{live.state}</b> after {run.seconds:.0f} s: {metric} <b>{value}</b> on held-out test rows, "
        f"{_miss(run.metrics[metric], live.guess, metric)}. "
        f"{run.adapter_parameters:,} parameters in the adapter, {_kept(run)}."
    )
    return f"{run.adapter_parameters:,} adapter parameters: {metric} {value} on test rows", words


def _kept(run: Run) -> str:
    if run.adapter is None:
        return "not saved, for a finished run with these settings is kept"
    return f"saved in <code>{escape(run.adapter)}</code>"


def _miss(measured: float, guess: float | None, metric: str) -> str:
    if guess is None:
        return "no guess was made (its slider was not moved)"
    off = measured - guess
    by = f"{factor(metric) * abs(off):.1f}{' points' * (factor(metric) > 1)}"
    return f"your guess was {said(guess, metric)}, {by} too {'low' if off > 0 else 'high'}"
