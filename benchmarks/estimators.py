"""Compare our memory predictions, and those of other estimators, with 18 GPU runs of PEFT's MetaMathQA suite.

The length of the longest batch is fitted to one run; the other runs are predicted.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from benchmarks import accountant, metamath, peers
from benchmarks.measure import goal, table
from benchmarks.metamath import FAMILY, FITTED, LONGEST, MISSES, Run, runs
from benchmarks.peft_trace import followed

OURS = ("reserved, simulated", "allocated, traced", "allocated, at once")
NAMES = (*OURS, "accelerate", "fitcheck", "fitcheck, own length", "peft-doctor", "torch-preflight", "weights + 16 B")
HEAD = ["run", "reserved, measured GB", f"{OURS[0]} GB", *(f"{name}, %" for name in NAMES)]
SUMMARY = ["estimator", "runs", "median error %", "median error % where all predict", "largest error %", "in"]
QUICK = (*MISSES, FITTED, *FAMILY, "IA3", "LN tuning", "LoKr r32")
GOAL = 2.0  # percent


class Line(NamedTuple):
    """A run and its estimates in bytes; if an estimator is missing, it doesn't know the method."""

    run: Run
    estimates: dict[str, float]

    def errors(self) -> dict[str, float]:
        """Return the error of each estimator in percent."""
        return {name: self.run.error(estimate) for name, estimate in self.estimates.items()}

    def row(self) -> list[str]:
        """Return a row of the table."""
        errors, sizes = self.errors(), (self.run.reserved, self.estimates.get(OURS[0]))
        cells = ["-" if size is None else f"{size / 1e9:.2f}" for size in sizes]
        return [self.run.name, *cells, *(f"{errors[name]:+.1f}" if name in errors else "-" for name in NAMES)]


def summary(lines: Iterable[Line]) -> list[list[str]]:
    """Summarize the absolute errors of each estimator, on the runs that it predicts and on those that all predict."""
    errors = {line.run.name: line.errors() for line in lines if line.run.name != FITTED}
    table = pd.DataFrame.from_dict(errors, orient="index", columns=NAMES).abs().dropna(axis="columns", how="all")
    shared, rows = table.dropna(), []
    for name, each in table.items():
        numbers = (each.median(), shared[name].median(), each.max())
        rows.append([name, str(each.count()), *(f"{number:.1f}" for number in numbers), str(each.idxmax())])
    return rows


def report(quick: bool) -> Iterator[str]:
    fitted, lines = runs()[FITTED], []
    for run in runs().values():
        trace = followed(run) if not quick or run.name in QUICK else None
        sizes = (trace and trace.reserved, trace and trace.allocated, metamath.predicted(run))
        ours = {name: size for name, size in zip(OURS, sizes, strict=True) if size is not None}
        lines.append(Line(run, ours | peers.estimates(run)))
    yield "## Memory: predicted against measured"
    yield (
        f"Llama-3.2-3B, bf16, batch 4. The longest batch, {LONGEST} tokens, is fitted to {FITTED} (remaining error "
        f"{fitted.error(followed(fitted).reserved):+.2f}%); the other runs are predicted. We trace PEFT's own layers "
        "in the suite's loop, and simulate the allocator. The allocated memory is smaller than the reserved memory. "
        f"accelerate predicts {peers.accelerate() / 1e9:.2f} GB for every method. The other estimators get our length; "
        "fitcheck-llm also gets the length with which it fits the fitted run best. "
        f"{peers.MISSING if peers.estimator is None else f'This length is {peers.fitcheck_length()}.'}"
    )
    yield table(HEAD, [line.row() for line in lines])
    yield table(SUMMARY, summary(lines))
    errors = {line.run.name: line.errors().get(OURS[0], 0.0) for line in lines}
    quantity = f"LoRA family ({', '.join(FAMILY)}), largest error of {OURS[0]}, in percent"
    yield goal(quantity, max(abs(errors[name]) for name in FAMILY), GOAL)
    for name, error in errors.items():
        if abs(error) > GOAL:
            yield f"- missed: {name} {error:+.1f}%: {MISSES.get(name.partition(',')[0], 'unexplained')}"
    yield from accountant.report(quick)
