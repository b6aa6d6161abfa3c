"""Compare memory predictions to 18 GPU runs of PEFT's MetaMathQA suite, ours and those of other estimators.

The length of the longest batch is fitted to one run; the other runs are predicted.
"""

from collections.abc import Iterable, Iterator
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
SUMMARY = ["estimator", "runs", "median error %", "median error % where all predict", "largest error %", "in"]
QUICK = (*MISSES, FITTED, *FAMILY, "IA3", "LN tuning", "LoKr r32")
GOAL = 2.0  # percent


class Line(NamedTuple):
    """A run and its estimates in bytes."""

    run: Run
    estimates: dict[str, float | None]

    def error(self, name: str) -> float | None:
        """Return an estimator's error in percent, or None if it doesn't know the method."""
        estimate = self.estimates.get(name)
        return None if estimate is None else self.run.error(estimate)

    def row(self) -> list[str]:
        """Return a row of the table."""
        ours, errors = self.estimates[OURS[0]], map(self.error, NAMES)
        cells = ["-" if ours is None else f"{ours / 1e9:.2f}", *("-" if e is None else f"{e:+.1f}" for e in errors)]
        return [self.run.name, f"{self.run.reserved / 1e9:.2f}", *cells]


def followed(run: Run) -> peft_trace.Followed:
    """Trace the suite's loop with PEFT's own layers, once for all runs that differ only in their learning rate."""
    return _followed(next(other.name for other in runs().values() if other.config == run.config))


@cache
def _followed(name: str) -> peft_trace.Followed:
    setup = Setup(**CONDITIONS)
    model = peft_trace.peft_model(metamath.model(), runs()[name].config, setup)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == runs()[name].trainable, f"{name}: not the model that was measured"
    return peft_trace.follow(model, setup, metamath.HISTORY)


def summary(lines: Iterable[Line]) -> list[list[str]]:
    """Summarize the absolute errors of each estimator, on the runs that it predicts and on those that all predict."""
    rows = []
    predicted = [line for line in lines if line.run.name != FITTED]
    names = [name for name in NAMES if any(line.error(name) is not None for line in predicted)]
    shared = [line.run.name for line in predicted if all(line.error(name) is not None for name in names)]
    for name in names:
        errors = {line.run.name: abs(e) for line in predicted if (e := line.error(name)) is not None}
        worst = max(errors, key=errors.__getitem__)
        values = (median(errors.values()), median(errors[run] for run in shared), errors[worst])
        rows.append([name, str(len(errors)), *(f"{value:.1f}" for value in values), worst])
    return rows


def report(quick: bool) -> Iterator[str]:
    """Yield the report in Markdown."""
    fitted, lines = runs()[FITTED], []
    for run in runs().values():
        trace = followed(run) if not quick or run.name in QUICK else None
        sizes = (trace and trace.reserved, trace and trace.allocated, metamath.predicted(run))
        lines.append(Line(run, dict(zip(OURS, sizes, strict=True)) | peers.estimates(run)))
    yield "## Memory: predicted against measured"
    yield (
        f"Llama-3.2-3B, bf16, batch 4. Longest batch fitted to {FITTED}: {LONGEST} tokens (remaining error "
        f"{fitted.error(followed(fitted).reserved):+.2f}%); the other runs are predicted. PEFT's own layers are traced "
        "through the suite's loop, and the allocator is simulated; less is allocated than reserved. "
        f"accelerate predicts {peers.accelerate() / 1e9:.2f} GB for every method. The other estimators get our length, "
        "fitcheck-llm also the one that suits it best on the fitted run. "
        f"{peers.MISSING if peers.estimator is None else f'That is {peers.fitcheck_length()}.'}"
    )
    yield table(HEAD, [line.row() for line in lines])
    yield table(SUMMARY, summary(lines))
    errors = {line.run.name: line.error(OURS[0]) or 0.0 for line in lines}
    quantity = f"LoRA family ({', '.join(FAMILY)}), largest error of {OURS[0]}, in percent"
    yield goal(quantity, max(abs(errors[name]) for name in FAMILY), GOAL)
    for name, error in errors.items():
        if abs(error) > GOAL:
            yield f"- missed: {name} {error:+.1f}%: {MISSES.get(name.partition(',')[0], 'unexplained')}"
    yield from accountant.report(quick)
