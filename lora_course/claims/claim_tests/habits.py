"""Experiments on what people choose: learning rates and alphas, ours by validation and those that others published."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from lora_course.claims.claim_tests.base import Case, Finding, experiment, said
from lora_course.claims.claim_tests.evidence import Cells, Stored, comparison, made_by, published, row_of
from lora_course.claims.claim_tests.runs import SWEEP, usual_alpha
from lora_course.paper import table

COMPARISONS = ("minilm_rt", "smollm2_kjv")


@experiment
def rate_in_band(low: float, high: float, at_least_billions: float, store: Stored = None) -> Finding:
    """Does the rate that was chosen lie between two, for models of at least so many billion parameters?"""
    cases = [
        Case(
            {"model": row["model"], "task": row["task"]},
            low <= row["lora"] <= high,
            f"{said(row['lora'])} ({row['who']})",
        )
        for row in _rates()
        if row["billions"] >= at_least_billions
    ]
    evidence = [f"data/claims/evidence/rates.yaml: {published('rates')['standing']}"]
    if at_least_billions <= 0.02 or store is not None:
        cells = Cells(store, SWEEP)
        rate = cells.best(method="lora", rank=8, **usual_alpha(cells, 8))[0]
        first = cells.frame.iloc[0]
        cases.append(
            Case(
                {"model": first["model"], "task": first["task"]},
                low <= rate <= high,
                f"{said(rate)}, the best on validation of those that were tried",
            )
        )
        evidence.append(cells.made)
    return Finding(tuple(cases), tuple(evidence))


@experiment
def rate_above_full(times: float) -> Finding:
    """Is LoRA's rate at least so many times that of full fine-tuning, where both were chosen?

    Here each was chosen on a grid, by one tuning seed: the best may lie anywhere between the next rates on either side,
    on an edge of the grid beyond it. A case holds or fails only where it does so for all of them.
    """
    cases = [case for name in COMPARISONS for case in _ratios_here(name, times)]
    rates = published("rates")
    rows = [(row["model"], row["lora"] / row["full"], row["who"]) for row in _rates() if "full" in row]
    rows += [(row["model"], row["times"], row["who"]) for row in rates["ratios"]]
    cases += [Case({"model": model}, ratio >= times, f"{ratio:.3g} times ({who})") for model, ratio, who in rows]
    made = tuple(made_by(comparison(name), name) for name in COMPARISONS)
    return Finding(tuple(cases), (*made, f"data/claims/evidence/rates.yaml: {rates['standing']}"))


def _ratios_here(name: str, times: float) -> list[Case]:
    """The rates that validation chose in one of our comparisons, for each LoRA in it."""
    found, full, cases = comparison(name), row_of(comparison(name), "full"), []
    for lora in (row for row in found["methods"] if row["method"] == "lora"):
        (least, most), (full_least, full_most) = _next_rates(lora), _next_rates(full)
        low, high = least / full_most, most / full_least
        holds = True if low >= times else False if high < times else None
        words = f"{lora['label']}: {lora['lr']:g} against {full['lr']:g}, {lora['lr'] / full['lr']:.3g} times"
        span = (
            f"{low:.3g} to {high:.3g} by the next rates" if high < math.inf else f"{low:.3g} or more by the next rates"
        )
        settings = {"model": found["model"]}
        cases.append(Case(settings, holds, f"{words} ({span})", "more rates between and more tuning seeds"))
    return cases


def _next_rates(row: dict[str, Any]) -> tuple[float, float]:
    """The rates tried next below and next above the chosen one; 0 and infinity beyond an edge."""
    tried = [one["lr"] for one in row["tried"]]
    below, above = ([lr for lr in tried if lr < row["lr"]], [lr for lr in tried if lr > row["lr"]])
    return max(below, default=0.0), min(above, default=math.inf)


@experiment
def alpha_habit(times: float, often: float, kinds: list[str]) -> Finding:
    """Is alpha = times * rank in at least this share of the published choices of each kind: papers, guides?"""
    listed = published("alpha")
    cases = []
    for kind in kinds:
        rows = [row for row in listed["rows"] if row["kind"] == kind]
        so = [row["who"] for row in rows if row["alpha"] == times * row["rank"]]
        share = len(so) / max(len(rows), 1)
        cases.append(
            Case(
                {"who chooses": kind},
                share >= often if rows else None,
                f"{len(so)} of {len(rows)} choices",
                f"choices of the kind {kind}",
            )
        )
    ratios = sorted({row["alpha"] / row["rank"] for row in listed["rows"]})
    note = f"Alpha over rank runs from {ratios[0]:.2g} to {ratios[-1]:g} in the list."
    return Finding(tuple(cases), (f"data/claims/evidence/alpha.yaml: {listed['standing']}",), note=note)


def _rates() -> list[dict[str, Any]]:
    """Published rates: the paper's tables and a list of others."""
    lora, full = (table("table12").row(method=method)["lr"] for method in ("LoRA", "FT"))
    gpt3 = {"who": "table 12", "model": "GPT-3", "billions": 175, "task": "three tasks", "lora": lora, "full": full}
    rows = [row for name in SIZES for row in _printed(name)]
    return [*rows, gpt3, *published("rates")["rows"]]


SIZES = {  # whose settings a table of the paper holds, and how many billion parameters that is
    "table9": {"RoBERTa-base": 0.125, "RoBERTa-large": 0.355},
    "table10": {"DeBERTa-XXL": 1.5},
    "table11": {"GPT-2 M": 0.355},
}


def _printed(name: str) -> Iterator[dict[str, Any]]:
    """The rates of one table; of table 9 LoRA's alone, without the restricted settings."""
    for row in table(name).records():
        if row.get("method", "LoRA") == "LoRA" and not row.get("mark"):
            model = str(row.get("model") or next(iter(SIZES[name])))
            who = f"table {name.removeprefix('table')}"
            yield {"who": who, "model": model, "billions": SIZES[name][model], "task": row["task"], "lora": row["lr"]}
