"""The memory accountant against 18 GPU runs that others measured, beside other estimators on the same runs.

The runs are PEFT's MetaMathQA suite. How long its longest batch was is not recorded: it is fitted to one run, and all
others are predicted with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import cache
from statistics import median
from typing import NamedTuple

from lora_lab.accounting.setup import Setup
from tests.benchmarks import accountant, metamath, peers, peft_trace
from tests.benchmarks.measure import goal, table
from tests.benchmarks.metamath import CONDITIONS, FAMILY, FITTED, Run, runs

NAMES = ("prediction", "trace", "accelerate", "fitcheck", "fitcheck, own length", "weights + 16 B")
HEAD = ["run", "measured GB", "predicted GB", "%", "traced GB", "%", *(f"{name} %" for name in NAMES[2:])]
SUMMARY = ["estimator", "runs predicted", "median % off", "median % off where all predict", "most % off", "in"]
QUICK = ("full fine-tuning", FITTED, *FAMILY, "DoRA r32", "IA3", "LN tuning", "prefix tuning", "LoKr r32")
GOAL = 3.0  # percent
RESERVED = "Reserved bytes include what the allocator keeps for later; a sum of live tensors does not."


class Line(NamedTuple):
    """A run and what each estimator says of it, in bytes."""

    run: Run
    said: dict[str, float | None]

    def error(self, name: str) -> float | None:
        """Percent, or None where the estimator does not know the method."""
        said = self.said[name]
        return None if said is None else self.run.error(said)

    def row(self) -> list[str]:
        """As a row of the table."""
        measured, ours = f"{self.run.reserved / 1e9:.2f}", []
        for name in NAMES[:2]:
            ours += [_or_dash(self.said[name], lambda b: f"{b / 1e9:.2f}"), _percent(self.error(name))]
        return [self.run.name, measured, *ours, *(_percent(self.error(name)) for name in NAMES[2:])]


def _percent(error: float | None) -> str:
    return _or_dash(error, lambda e: f"{e:+.1f}")


def _or_dash(value: float | None, words: Callable[[float], str]) -> str:
    return "-" if value is None else words(value)


def traced(run: Run) -> int:
    """Peak of PEFT's own layers in bytes; runs that differ in their learning rate alone are followed once."""
    return _traced(next(other.name for other in runs().values() if other.config == run.config))


@cache
def _traced(name: str) -> int:
    setup = Setup(seq=metamath.length(), **CONDITIONS)
    model = peft_trace.peft_model(metamath.model(), runs()[name].config, setup)
    assert peft_trace.trainable(model) == runs()[name].trainable, f"{name}: not the model that was measured"
    return peft_trace.follow(model, setup).peak


def lines(quick: bool) -> list[Line]:
    """Each run with everything said of it."""
    seq, found = metamath.length(), []
    own = peers.fitcheck_length() if peers.estimator else seq
    for run in runs().values():
        said = (
            metamath.predicted(run, seq),
            traced(run) if not quick or run.name in QUICK else None,
            peers.accelerate(),
            peers.fitcheck(run, seq),
            peers.fitcheck(run, own),
            peers.sixteen_bytes(run),
        )
        found.append(Line(run, dict(zip(NAMES, said, strict=True))))
    return found


def summary(found: Iterable[Line]) -> list[list[str]]:
    """Each estimator's errors without their sign: on all runs that it knows, and on those that every one knows.

    The fitted run does not count.
    """
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
    """What came of the goal, and what is not explained."""
    by_name = {line.run.name: line for line in found}
    family = max(abs(by_name[name].error("prediction")) for name in FAMILY)
    words = f"LoRA family ({', '.join(FAMILY)}), largest error of the prediction in percent"
    return "\n".join([goal(words, family, GOAL, 1), f"- unexplained: {_unexplained(found)}. {RESERVED}"])


def _unexplained(found: list[Line]) -> str:
    errors = {line.run.name: line.error("prediction") or line.error("trace") or 0.0 for line in found}
    return ", ".join(f"{name} {error:+.1f} %" for name, error in errors.items() if abs(error) > GOAL) or "nothing"


def introduction() -> str:
    """What was fitted and how the others were asked."""
    first, seq = runs()[FITTED], metamath.length()
    return " ".join(
        [
            f"Llama-3.2-3B, bf16, batch 4. Longest batch fitted to {FITTED}: {seq} tokens (error left "
            f"{first.error(metamath.predicted(first, seq)):+.2f} %); all other rows are predictions. "
            "Traces are of PEFT's own layers, all of them.",
            f"accelerate says {peers.accelerate() / 1e9:.2f} GB whatever the method, and so does the rule of thumb "
            f"weights x 4 ({peers.weights_times_four() / 1e9:.2f} GB).",
            peers.MISSING if peers.estimator is None else _fitcheck(),
        ]
    )


def _fitcheck() -> str:
    return (
        "fitcheck-llm knows LoRA and full fine-tuning; its total allows for the process as well. It is asked at "
        f"our length, and at that which suits it best on the run that ours is fitted to ({peers.fitcheck_length()})."
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer traces")
    print(report(parser.parse_args().quick))
