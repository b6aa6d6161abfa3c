"""Experiments on quality: read from finished runs, ours or the user's own, each setting at its own best rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_course.claims.claim_tests.base import Case, Finding, experiment, roles
from lora_course.claims.claim_tests.evidence import (
    Cells,
    Interval,
    Stored,
    compared,
    comparison,
    judged,
    made_by,
    more_rates,
    published,
)
from lora_course.claims.claim_tests.printed import (
    metamath,
    methods_on_gpt3,
    places_on_gpt3,
    printed_in,
    ranks_on_gpt3,
)
from lora_lab.experiments.low_rank import error_left

if TYPE_CHECKING:
    from lora_lab.experiments.statistics import Verdict

SWEEP, PLACES = "rate_rank_alpha", "target_modules"
ATTENTION = {"q", "k", "v", "o"}
USUAL_MARGIN = 0.015


@experiment
def rank_is_enough(
    rank: int, larger: int, needed: list[int], error: float, margin: float, store: Stored = None
) -> Finding:
    """Does the rank do as well as a larger one: in runs, in the paper's table 6, on updates of a known rank?

    needed  ranks of a wanted update whose directions are all equally strong; the best error of any update of the rank
            is known (Eckart and Young 1936) and is to be at most `error`
    """
    cells = Cells(store, SWEEP)
    (_, small), (_, large) = (cells.best(rank=one, **usual_alpha(cells, one)) for one in (rank, larger))
    found = {str(cells.frame.iloc[0]["task"]): (larger, cells.interval(small, large, margin))}
    printed = ranks_on_gpt3(rank) if store is None else {}
    found |= {f"{task} (GPT-3)": (64, i) for task, i in printed.items()}
    cases = [
        Case({"task": task}, i.no_worse(margin), f"rank {rank} minus {other} {i}", i.would_tell)
        for task, (other, i) in found.items()
    ]
    cases += [_known_update(need, rank, error) for need in needed]
    known = "the singular values of an update, here and now"
    return Finding(tuple(cases), (cells.made, *([printed_in("table6")] if printed else []), known))


def _known_update(need: int, rank: int, error: float) -> Case:
    """What an update of rank `rank` must miss of one whose `need` directions are equally strong."""
    strengths = np.zeros(max(need, rank))
    strengths[:need] = 1
    left = error_left(strengths, rank)
    return Case({"task": f"an update of rank {need}"}, left <= error, f"rank {rank} misses {left:.0%} of it at best")


def usual_alpha(cells: Cells, rank: int) -> dict[str, float]:
    """Alpha as at most other ranks, where there are runs of it; else that with most runs."""
    alphas = cells.at(rank=rank)["alpha"]
    usual = float(cells.frame["alpha"].mode().iloc[0])
    return {"alpha": usual if (alphas == usual).any() else float(alphas.mode().iloc[0])}


@experiment
def alpha_rule_is_no_worse(rank: int, times: float, margin: float, store: Stored = None) -> Finding:
    """Is alpha = times * rank no worse than each other alpha at this rank, each at its own best rate?"""
    cells, own_alpha = Cells(store, SWEEP), times * rank
    own_rate, own = cells.best(rank=rank, alpha=own_alpha)
    cases = []
    for alpha in sorted(set(cells.at(rank=rank)["alpha"]) - {own_alpha}):
        rate, runs = cells.best(rank=rank, alpha=alpha)
        i = cells.interval(own, runs, margin)
        settings = {"against": f"alpha {alpha:.3g} at {rate:g}"}
        both = ((own_alpha, own_rate), (alpha, rate))
        edges = [f"alpha {a:.3g}" for a, lr in both if cells.on_edge(lr, rank=rank, alpha=a)]
        tell = more_rates(edges) + i.would_tell
        cases.append(Case(settings, i.no_worse(margin), f"alpha {own_alpha:g} minus it {i}", tell))
    note = f"Alpha {own_alpha:g} was best at {own_rate:g} on validation."
    return Finding(tuple(cases), (cells.made,), always=True, note=note)


@experiment
def no_place_is_better(place: str, reported: bool, margin: float, store: Stored = None) -> Finding:
    """At one budget and each at its own rate: is no other choice of matrices better by the margin or more?

    A study is one case, however many choices and tasks it compares: the claim holds in it against all of them or not.
    That each of several intervals lies inside the margin needs no correction (all must, together); that one of them is
    better needs Holm's. reported: count what others say they found on larger models as cases: they point against
    attention alone, but neither has q and v at one budget with figures, so neither decides.
    """
    from lora_lab.experiments.statistics import verdicts

    cells, own = Cells(store, PLACES), place.replace("+", ",")
    at_best = {targets: cells.best(targets=targets)[1] for targets in {*cells.values("targets"), own}}
    first, said = cells.frame.iloc[0], verdicts(at_best, own, margin)
    ours = {targets.replace(",", "+"): _not_better(said[targets]) for targets in sorted(said)}
    cases, evidence = [_study(f"{first['model']} on {first['task']}", place, ours)], [cells.made]
    if printed := places_on_gpt3(place) if store is None else {}:
        table5 = {other: (i.no_worse(margin), -i) for other, i in printed.items()}
        cases.append(_study("GPT-3, attention alone", place, table5))
        evidence.append(printed_in("table5"))
    if reported and {*roles(place)} <= ATTENTION:
        others = published("places")
        tell = f"{place} against the rest at one budget, in figures of several seeds"
        cases += [
            Case({"study": one["model"]}, None, f"{one['better']} ({one['who']})", tell) for one in others["rows"]
        ]
        evidence.append(f"data/claims/evidence/places.yaml: {others['standing']}")
    return Finding(tuple(cases), tuple(evidence))


def _not_better(found: Verdict) -> tuple[bool | None, Interval]:
    """Whether another choice of matrices, which `found` judges against the claimed one, is not better by the margin."""
    better = found.outcome == "better" and found.low > found.margin
    return True if found.high < found.margin else False if better else None, judged(found)


def _study(name: str, place: str, others: Mapping[str, tuple[bool | None, Interval]]) -> Case:
    """A study as one case, and of the other choices in it the one that decides: the one that may be best."""
    outcomes = {holds for holds, _ in others.values()}
    holds = False if False in outcomes else None if None in outcomes else True
    instead, i = max(((o, i) for o, (each, i) in others.items() if each is holds), key=lambda one: one[1].high)
    verb = {True: "is not better by the margin, nor is any other", False: "is better", None: "may be better"}[holds]
    return Case({"study": name}, holds, f"{instead} {verb}: it minus {place} {i}", i.would_tell)


@experiment
def no_drop(tasks: list[str], margin: float, store: Stored = None) -> Finding:
    """Is LoRA worse than full fine-tuning by less than the margin? Points of accuracy, or a share of perplexity.

    tasks: "minilm_rt" and "smollm2_kjv" (our comparisons), "metamath" (PEFT's suite), "gpt3" (the paper's table 4);
    with a store, its runs alone.
    """
    found, evidence = differences("lora", "full", tasks, store)
    cases = [Case({"task": t}, i.no_worse(margin), f"LoRA minus full {i}", i.would_tell) for t, i in found.items()]
    return Finding(tuple(cases), evidence)


@experiment
def is_weaker(method: str, than: str, tasks: list[str], store: Stored = None) -> Finding:
    """Is a method worse than another, beyond what seeds and rows explain? Tasks as in `no_drop`."""
    found, evidence = differences(method, than, tasks, store)
    cases = [Case({"task": t}, i.worse(), f"{method} minus {than} {i}", i.would_tell) for t, i in found.items()]
    return Finding(tuple(cases), evidence)


def differences(a: str, b: str, tasks: list[str], store: Stored) -> tuple[dict[str, Interval], tuple[str, ...]]:
    """The difference a - b on each task, and where it is from. Raises: NotFound where there are no figures."""
    if store is not None:
        cells = Cells(store, SWEEP)
        interval = cells.interval(cells.best(method=a)[1], cells.best(method=b)[1], USUAL_MARGIN)
        return {str(cells.frame.iloc[0]["task"]): interval}, (cells.made,)
    found, evidence = {}, []
    for task in tasks:
        if task == "metamath":
            found[task] = metamath(a, b)
            evidence.append(f"{published(task)['source']}; {published(task)['standing']}")
        elif task == "gpt3":
            found |= methods_on_gpt3(a, b)
            evidence.append(printed_in("table4"))
        else:
            found[task] = compared(comparison(task), a, b)
            evidence.append(made_by(comparison(task), task))
    return found, tuple(evidence)
