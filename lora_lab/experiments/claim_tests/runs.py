"""Experiments on quality: read from finished runs, ours or the user's own, each setting at its own best rate."""

from __future__ import annotations

import numpy as np

from lora_lab.accounting.low_rank import error_left
from lora_lab.experiments.claim_tests.base import Case, Finding, experiment
from lora_lab.experiments.claim_tests.evidence import (
    Cells,
    Interval,
    Stored,
    compared,
    comparison,
    made_by,
    more_of,
    proportions,
    published,
)

SWEEP, PLACES = "rate_rank_alpha", "target_modules"
COMPARISONS = ("minilm_rt", "smollm2_kjv")


@experiment
def rank_is_enough(
    rank: int, larger: int, needed: list[int], error: float, margin: float, store: Stored = None
) -> Finding:
    """Does the rank do as well as a larger one, on a task that runs were made of and on updates of a known rank?

    needed  ranks of a wanted update whose directions are all equally strong; the best error of any update of the rank
            is known (Eckart and Young 1936) and is to be at most `error`
    """
    cells = Cells(store, SWEEP)
    (_, small), (_, large) = (cells.best(rank=one, **usual_alpha(cells, one)) for one in (rank, larger))
    interval, words = cells.interval(small, large, margin)
    task = str(cells.frame.iloc[0]["task"])
    runs = Case(
        {"task": task}, interval.no_worse(margin), f"rank {rank} against {larger}: {words}", interval.would_tell
    )
    missed = {need: error_left(np.ones(max(need, rank)) * (np.arange(max(need, rank)) < need), rank) for need in needed}
    made = [
        Case({"task": f"an update of rank {need}"}, left <= error, f"rank {rank} misses {left:.0%} of it at best")
        for need, left in missed.items()
    ]
    return Finding((runs, *made), (cells.made, "the singular values of an update, here and now"))


def usual_alpha(cells: Cells, rank: int) -> dict[str, float]:
    """Alpha as at most other ranks, where there are runs of it; else that with most runs."""
    alphas = cells.at(rank=rank)["alpha"]
    usual = float(cells.frame["alpha"].mode().iloc[0])
    return {"alpha": usual if (alphas == usual).any() else float(alphas.mode().iloc[0])}


@experiment
def alpha_rule_is_no_worse(rank: int, times: float, margin: float, store: Stored = None) -> Finding:
    """Is alpha = times * rank no worse than each other alpha at this rank, each at its own best rate?"""
    cells = Cells(store, SWEEP)
    own_rate, own = cells.best(rank=rank, alpha=times * rank)
    others = [alpha for alpha in sorted(cells.at(rank=rank)["alpha"].unique()) if alpha != times * rank]
    cases = []
    for alpha in others:
        rate, runs = cells.best(rank=rank, alpha=alpha)
        interval, words = cells.interval(own, runs, margin)
        settings = {"against": f"alpha {alpha:.3g} at {rate:g}"}
        cases.append(Case(settings, interval.no_worse(margin), words, interval.would_tell))
    note = f"Alpha {times * rank:g} was best at {own_rate:g} on validation."
    return Finding(tuple(cases), (cells.made,), always=True, note=note)


@experiment
def no_place_is_better(place: str, margin: float, store: Stored = None) -> Finding:
    """At one budget and each at its own rate: is no other choice of matrices better than this one? Holm over all."""
    from lora_lab.experiments.statistics import verdicts

    cells, own = Cells(store, PLACES), place.replace("+", ",")
    at_best = {targets: cells.best(targets=targets)[1] for targets in {*cells.values("targets"), own}}
    cases = [
        Case(
            {"instead": t.replace(",", "+")},
            {"better": False, "undecided": None}.get(v.outcome, True),
            str(v),
            more_of(v.more_seeds, v.more_rows),
        )
        for t, v in sorted(verdicts(at_best, own, margin).items())
    ]
    return Finding(tuple(cases), (cells.made,), always=True)


@experiment
def no_drop(tasks: list[str], margin: float, store: Stored = None) -> Finding:
    """Is LoRA worse than full fine-tuning by less than the margin? Points of accuracy, or a share of perplexity.

    tasks: "minilm_rt" and "smollm2_kjv" (our comparisons), "metamath" (PEFT's suite); with a store, its runs alone.
    """
    cases, evidence = _against("lora", "full", tasks, store, margin)
    return Finding(
        tuple(Case({"task": t}, i.no_worse(margin), f"LoRA minus full {i}", i.would_tell) for t, i in cases.items()),
        evidence,
    )


@experiment
def is_weaker(method: str, than: str, tasks: list[str], store: Stored = None) -> Finding:
    """Is a method worse than another, beyond what seeds and rows explain? Tasks as in `no_drop`."""
    cases, evidence = _against(method, than, tasks, store, 0.015)
    return Finding(
        tuple(Case({"task": t}, i.worse(), f"{method} minus {than} {i}", i.would_tell) for t, i in cases.items()),
        evidence,
    )


def _against(
    a: str, b: str, tasks: list[str], store: Stored, margin: float
) -> tuple[dict[str, Interval], tuple[str, ...]]:
    """The difference a - b on each task, and where it is from."""
    if store is not None:
        cells = Cells(store, SWEEP)
        interval, _ = cells.interval(cells.best(method=a)[1], cells.best(method=b)[1], margin)
        return {str(cells.frame.iloc[0]["task"]): interval}, (cells.made,)
    found, evidence = {}, []
    for task in tasks:
        if task == "metamath":
            suite = published(task)
            found[task] = proportions(suite["rows"][a]["solved"], suite["rows"][b]["solved"], suite["questions"])
            evidence.append(f"{suite['source']}; {suite['standing']}")
        else:
            found[task] = compared(comparison(task), a, b)
            evidence.append(made_by(comparison(task), task))
    return found, tuple(evidence)
