"""What came of a run of the paper: of each seed the best epoch and the last, beside the published figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_course.paper.protocol.given import PaperRecipe
from lora_lab.metrics import factor
from lora_lab.training.runs import Run

LOWER = ("perplexity", "loss")


@dataclass(frozen=True)
class OfSeed:
    """A seed's run, with two of its validations: `step`, after which update, and the metrics.

    best     the epoch with the best dev figure, which is what the paper reports; so chosen it is a little too good
    last     the last epoch: nothing was chosen by the figure itself
    answers  of a language model: bleu, nist, rouge_l, ... of what the last epoch's adapter says, and n, of how many
    """

    seed: int
    run: Run
    best: Mapping[str, float]
    last: Mapping[str, float]
    answers: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """A recipe of the paper, run.

    steps       updates of each seed; `full` are those of the whole protocol
    deviations  all in which this was not the paper's run, in sentences; empty nowhere, for no two set-ups are the same
    failed      seeds that came to nothing, with the reason
    """

    recipe: PaperRecipe
    model_path: str
    data: str
    steps: int
    full: int
    seeds: tuple[OfSeed, ...]
    deviations: tuple[str, ...]
    failed: Mapping[int, str]

    def over_seeds(self) -> list[dict[str, Any]]:
        """A record for each metric: the paper's figure; over seeds GLUE's median or E2E's mean, and the deviation."""
        middle = statistics.fmean if self.recipe.task == "e2e" else statistics.median
        rows = []
        for name in self.recipe.metrics:
            found = {which: self._column(name, which) for which in ("best", "last")}
            rows.append(
                {
                    "metric": name, "published": self.recipe.published.get(name), "seeds": len(self.seeds),
                    **{which: middle(values) if values else None for which, values in found.items()},
                    **{f"{which}_std": statistics.stdev(v) if len(v) > 1 else None for which, v in found.items()},
                }
            )  # fmt: skip
        return rows

    def _column(self, name: str, which: str) -> list[float]:
        """A metric of every seed, as the paper prints it. What a language model says is scored after the last epoch."""
        if self.recipe.task == "e2e":
            return [one.answers[name] for one in self.seeds if name in one.answers] if which == "last" else []
        return [factor(name) * getattr(one, which)[name] for one in self.seeds]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without any text of the data."""
        return {
            "recipe": self.recipe.to_json(), "model_path": self.model_path, "data": self.data, "steps": self.steps,
            "full_steps": self.full, "over_seeds": self.over_seeds(), "deviations": list(self.deviations),
            "failed": {str(seed): reason for seed, reason in self.failed.items()},
            "seeds": [_told(one) for one in self.seeds],
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def of_seed(run: Run, metric: str, answers: Mapping[str, float]) -> OfSeed:
    """A run as the paper reads it: its validations but the one before training, the best and the last of them."""
    epochs = [row for row in run.history["validation"] if row["step"]]
    sign = -1 if metric in LOWER else 1
    best = max(epochs, key=lambda epoch: sign * epoch[metric])  # the first of equals
    return OfSeed(run.recipe.seed, run, best, epochs[-1], answers)


def _told(one: OfSeed) -> dict[str, Any]:
    run = one.run
    kept = {name: getattr(run, name) for name in ("adapter_parameters", "head_parameters", "seconds", "peak_bytes")}
    hashed = {"seed": one.seed, "hash": run.recipe.hash, "settings": run.recipe.settings()}
    found = {"best": dict(one.best), "last": dict(one.last), "answers": dict(one.answers)}
    return {**hashed, **kept, **found, "validation": run.history["validation"],
            "environment": run.environment, "warnings": run.warnings}  # fmt: skip


def _lines(result: Result) -> Iterator[str]:
    yield f"{result.recipe.title}: {result.steps:,} of {result.full:,} steps, {len(result.seeds)} seeds"
    yield f"  {'':12}{'published':>12}{'best epoch':>16}{'last epoch':>16}"
    for row in result.over_seeds():
        cells = [_cell(row[which], row[f"{which}_std"]) for which in ("best", "last")]
        yield f"  {row['metric']:12}{row['published'] or '-':>12}{cells[0]:>16}{cells[1]:>16}"
    yield "  best epoch on the dev set is what the paper reports; the last is what one gets without choosing by it"
    shown = {name: value for name, value in result.recipe.published.items() if name not in result.recipe.metrics}
    if shown:
        yield f"  published only: {', '.join(f'{name} {value}' for name, value in shown.items())}"
    if result.recipe.expected:
        yield f"  expected of a rerun: {result.recipe.expected}"
    yield from (f"  not the paper's: {one}" for one in result.deviations)
    yield from (f"  seed {seed} failed: {reason}" for seed, reason in result.failed.items())


def _cell(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if std is None else f"±{std:.2f}")
