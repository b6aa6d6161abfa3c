"""The memory accountant against 18 GPU runs that others measured, beside other estimators on the same runs.

The runs are PEFT's MetaMathQA suite. The length of its longest batch is fitted to one run; the others are predicted.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from statistics import median
from typing import NamedTuple

from benchmarks import accountant, metamath, peers, peft_trace
from benchmarks.measure import goal, table
from benchmarks.metamath import CONDITIONS, FAMILY, FITTED, LONGEST, MISSES, Run, runs
from lora_lab.accounting.setup import Setup

OURS = ("reserved, simulated", "allocated, traced", "allocated, at once")
NAMES = (*OURS, "accelerate", "fitcheck", "fitcheck, own length", "peft-doctor", "torch-preflight", "weights + 16 B")
HEAD = ["run", "reserved, measured GB", f"{OURS[0]} GB", *(f"{name}, %" for name in NAMES)]
SUMMARY = ["estimator", "runs predicted", "median % off", "median % off where all predict", "most % off", "in"]
QUICK = (*MISSES, FITTED, *FAMILY, "IA3", "LN tuning", "LoKr r32")
GOAL = 2.0  # percent


class Line(NamedTuple):
    """A run and what each estimator says of it, in bytes."""

    run: Run
    said: dict[str, float | None]

    def error(self, name: str) -> float | None:
        """Percent, or None where the estimator does not know the method."""
        said = self.said.get(name)
        return None if said is None else self.run.error(said)

    def row(self) -> list[str]:
        """As a row of the table."""
        cells = [_cell(self.said[OURS[0]], 1e9, ".2f"), *(_cell(self.error(name), 1, "+.1f") for name in NAMES)]
        return [self.run.name, f"{self.run.reserved / 1e9:.2f}", *cells]


def _cell(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else format(value / unit, form)


def followed(run: Run) -> peft_trace.Followed:
    """The suite's loop over PEFT's own layers; runs that differ in their learning rate alone are followed once."""
    return _followed(next(other.name for other in runs().values() if other.config == run.config))


@cache
def _followed(name: str) -> peft_trace.Followed:
    setup = Setup(**CONDITIONS)
    model = peft_trace.peft_model(metamath.model(), runs()[name].config, setup)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == runs()[name].trainable, f"{name}: not the model that was measured"
    return peft_trace.follow(model, setup, metamath.HISTORY)


def lines(quick: bool) -> list[Line]:
    """Each run with everything said of it."""
    found = []
    for run in runs().values():
        ours = followed(run) if not quick or run.name in QUICK else None
        sizes = (ours and ours.reserved, ours and ours.allocated, metamath.predicted(run))
        found.append(Line(run, dict(zip(OURS, sizes, strict=True)) | peers.said(run)))
    return found


def summary(found: Iterable[Line]) -> list[list[str]]:
    """Each estimator's errors without sign, on all runs that it knows and on those that all know; without FITTED."""
    rows = []
    predicted = [line for line in found if line.run.name != FITTED]
    names = [name for name in NAMES if any(line.error(name) is not None for line in predicted)]
    shared = [line for line in predicted if all(line.error(name) is not None for name in names)]
    for name in names:
        errors = {line.run.name: abs(e) for line in predicted if (e := line.error(name)) is not None}
        worst = max(errors, key=errors.__getitem__)
        same = median(errors[line.run.name] for line in shared)
        figures = [f"{e:.1f}" for e in (median(errors.values()), same, errors[worst])]
        rows.append([name, str(len(errors)), *figures, worst])
    return rows


def verdicts(found: list[Line]) -> str:
    """What came of the goal, and what is known of each miss."""
    errors = {line.run.name: line.error(OURS[0]) or 0.0 for line in found}
    words = f"LoRA family ({', '.join(FAMILY)}), largest error of {OURS[0]}, in percent"
    missed = [name for name, error in errors.items() if abs(error) > GOAL]
    why = [f"- missed: {name} {errors[name]:+.1f}%: {MISSES.get(name.partition(',')[0], 'why?')}" for name in missed]
    return "\n".join([goal(words, max(abs(errors[name]) for name in FAMILY), GOAL, 2), *why])


def introduction() -> str:
    """What was fitted and how the others were asked."""
    first = runs()[FITTED]
    return (
        f"Llama-3.2-3B, bf16, batch 4. Longest batch fitted to {FITTED}: {LONGEST} tokens (error left "
        f"{first.error(followed(first).reserved):+.2f}%); the others are predicted. PEFT's own layers are traced "
        "through the suite's loop, and the allocator is simulated; what is allocated is less than what is reserved. "
        f"accelerate says {peers.accelerate() / 1e9:.2f} GB whatever the method. The others are asked at our length, "
        "fitcheck-llm also at the one that suits it best on the fitted run. "
        f"{peers.MISSING if peers.estimator is None else f'That is {peers.fitcheck_length()}.'}"
    )


def report(quick: bool) -> str:
    """The tables and the verdicts, in Markdown."""
    found = lines(quick)
    return "\n".join(
        [
            "## Memory: predicted against measured\n",
            introduction() + "\n",
            table(HEAD, [line.row() for line in found]) + "\n",
            table(SUMMARY, summary(found)) + "\n",
            verdicts(found) + "\n",
            accountant.report(quick),
        ]
    )
