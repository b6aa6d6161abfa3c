"""Experiments on quality and habits: finished runs, stored comparisons, and what others published.

Runs are ours or the user's own; each setting is taken at its own best rate on validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_course.claims.claim_tests import evidence as stored
from lora_course.claims.claim_tests.cases import Case, Finding, experiment, roles, said
from lora_course.claims.claim_tests.evidence import Cells, Interval, Stored
from lora_course.paper import table
from lora_lab.experiments.low_rank import error_left

if TYPE_CHECKING:
    from lora_lab.experiments.statistics import Verdict

SWEEP, PLACES = "rate_rank_alpha", "target_modules"
COMPARISONS = ("minilm_rt", "smollm2_kjv")
USUAL_MARGIN = 0.015
SIZES = {  # whose rates a table of the paper holds, and how many billion parameters that is
    "table9": {"RoBERTa-base": 0.125, "RoBERTa-large": 0.355},
    "table10": {"DeBERTa-XXL": 1.5},
    "table11": {"GPT-2 M": 0.355},
}

# ---- quality


@experiment
def rank_is_enough(
    rank: int, larger: int, needed: list[int], error: float, margin: float, store: Stored = None
) -> Finding:
    """Does the rank do as well as a larger one: in runs, in the paper's table 6, on updates of a known rank?

    needed  ranks of a wanted update whose directions are all equally strong; the best error of any update of the rank
            is known (Eckart and Young 1936) and is to be at most `error`
    """
    cells = Cells(store, SWEEP)
    (_, small), (_, large) = (cells.best(rank=one, **_usual_alpha(cells, one)) for one in (rank, larger))
    found = {str(cells.first["task"]): (larger, cells.interval(small, large, margin))}
    printed = stored.ranks_on_gpt3(rank) if store is None else {}
    found |= {f"{task} (GPT-3)": (64, i) for task, i in printed.items()}
    cases = [
        i.case({"task": task}, f"rank {rank} minus {other}", i.no_worse(margin)) for task, (other, i) in found.items()
    ]
    for need in needed:
        left = error_left(np.concatenate([np.ones(need), np.zeros(max(0, rank - need))]), rank)
        settings = {"task": f"an update of rank {need}"}
        cases.append(Case(settings, left <= error, f"rank {rank} misses {left:.0%} of it at best"))
    known = "the singular values of an update, here and now"
    return Finding(tuple(cases), (cells.made, *([stored.printed_in("table6")] if printed else []), known))


def _usual_alpha(cells: Cells, rank: int) -> dict[str, float]:
    """Alpha as at most other ranks, if there are runs of it; else that with most runs."""
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
        both = ((own_alpha, own_rate), (alpha, rate))
        tell = (
            stored.more_rates([f"alpha {a:.3g}" for a, lr in both if cells.on_edge(lr, rank=rank, alpha=a)])
            + i.would_tell
        )
        settings = {"against": f"alpha {alpha:.3g} at {rate:g}"}
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
    at_best = {targets: cells.best(targets=targets)[1] for targets in {*cells.frame["targets"], own}}
    found = verdicts(at_best, own, margin)
    ours = {targets.replace(",", "+"): _not_better(found[targets]) for targets in sorted(found)}
    cases, evidence = [_study(f"{cells.first['model']} on {cells.first['task']}", place, ours)], [cells.made]
    if printed := stored.places_on_gpt3(place) if store is None else {}:
        table5 = {other: (i.no_worse(margin), -i) for other, i in printed.items()}
        cases.append(_study("GPT-3, attention alone", place, table5))
        evidence.append(stored.printed_in("table5"))
    if reported and {*roles(place)} <= {"q", "k", "v", "o"}:
        others, tell = (
            stored.published("places"),
            f"{place} against the rest at one budget, in figures of several seeds",
        )
        cases += [Case({"study": o["model"]}, None, f"{o['better']} ({o['who']})", tell) for o in others["rows"]]
        evidence.append(f"data/claims/evidence/places.yaml: {others['standing']}")
    return Finding(tuple(cases), tuple(evidence))


def _not_better(found: Verdict) -> tuple[bool | None, Interval]:
    """Whether another choice of matrices, which `found` judges against the claimed one, is not better by the margin."""
    better = found.outcome == "better" and found.low > found.margin
    return True if found.high < found.margin else False if better else None, stored.judged(found)


def _study(name: str, place: str, others: Mapping[str, tuple[bool | None, Interval]]) -> Case:
    """A study as one case, by the other choice in it that decides: the one that may be best."""
    outcomes = {holds for holds, _ in others.values()}
    holds = False if False in outcomes else None if None in outcomes else True
    instead, i = max(((o, i) for o, (each, i) in others.items() if each is holds), key=lambda one: one[1].high)
    verb = {True: "is not better by the margin, nor is any other", False: "is better", None: "may be better"}[holds]
    return i.case({"study": name}, f"{instead} {verb}: it minus {place}", holds)


@experiment
def no_drop(tasks: list[str], margin: float, store: Stored = None) -> Finding:
    """Is LoRA worse than full fine-tuning by less than the margin? Points of accuracy, or a share of perplexity.

    tasks: "minilm_rt" and "smollm2_kjv" (our comparisons), "metamath" (PEFT's suite), "gpt3" (the paper's table 4);
    with a store, its runs alone.
    """
    found, evidence = _differences("lora", "full", tasks, store)
    cases = [i.case({"task": task}, "LoRA minus full", i.no_worse(margin)) for task, i in found.items()]
    return Finding(tuple(cases), evidence)


@experiment
def is_weaker(method: str, than: str, tasks: list[str], store: Stored = None) -> Finding:
    """Is a method worse than another, beyond what seeds and rows explain? Tasks as in `no_drop`."""
    found, evidence = _differences(method, than, tasks, store)
    cases = [i.case({"task": task}, f"{method} minus {than}", i.worse()) for task, i in found.items()]
    return Finding(tuple(cases), evidence)


def _differences(a: str, b: str, tasks: list[str], store: Stored) -> tuple[dict[str, Interval], tuple[str, ...]]:
    """The difference a - b on each task, and where it is from. Raises: NotFound if there are no figures."""
    if store is not None:
        cells = Cells(store, SWEEP)
        interval = cells.interval(cells.best(method=a)[1], cells.best(method=b)[1], USUAL_MARGIN)
        return {str(cells.first["task"]): interval}, (cells.made,)
    found, evidence = dict[str, Interval](), []
    for task in tasks:
        if task == "metamath":
            found[task] = stored.metamath(a, b)
            evidence.append(f"{stored.published(task)['source']}; {stored.published(task)['standing']}")
        elif task == "gpt3":
            found |= stored.methods_on_gpt3(a, b)
            evidence.append(stored.printed_in("table4"))
        else:
            found[task] = stored.compared(stored.comparison(task), a, b)
            evidence.append(stored.made_by(stored.comparison(task), task))
    return found, tuple(evidence)


# ---- habits


@experiment
def rate_in_band(low: float, high: float, at_least_billions: float, store: Stored = None) -> Finding:
    """Does the rate that was chosen lie between two, for models of at least so many billion parameters?"""
    found = [
        (row["model"], row["task"], row["lora"], row["who"]) for row in _rates() if row["billions"] >= at_least_billions
    ]
    evidence = [f"data/claims/evidence/rates.yaml: {stored.published('rates')['standing']}"]
    ours = []
    if at_least_billions <= 0.02 or store is not None:
        cells = Cells(store, SWEEP)
        rate = cells.best(method="lora", rank=8, **_usual_alpha(cells, 8))[0]
        settings = {"model": cells.first["model"], "task": cells.first["task"]}
        words = f"{said(rate)}, the best on validation of those that were tried"
        ours.append(Case(settings, low <= rate <= high, words))
        evidence.append(cells.made)
    cases = [Case({"model": m, "task": t}, low <= lr <= high, f"{said(lr)} ({who})") for m, t, lr, who in found]
    return Finding((*cases, *ours), tuple(evidence))


@experiment
def rate_above_full(times: float) -> Finding:
    """Is LoRA's rate at least so many times that of full fine-tuning, where both were chosen?

    Here each was chosen on a grid, by one tuning seed: the best may lie anywhere between the next rates on either side,
    on an edge of the grid beyond it. A case holds or fails only where it does so for all of them.
    """
    cases = []
    for found in map(stored.comparison, COMPARISONS):
        full = stored.row_of(found, "full")
        full_least, full_most = _next_rates(full)
        for lora in [row for row in found["methods"] if row["method"] == "lora"]:
            least, most = _next_rates(lora)
            low, high = least / full_most, most / full_least
            holds = True if low >= times else False if high < times else None
            span = f"{low:.3g} to {high:.3g}" if high < math.inf else f"{low:.3g} or more"
            both = f"{lora['lr']:g} against {full['lr']:g}, {lora['lr'] / full['lr']:.3g} times"
            words = f"{lora['label']}: {both} ({span} by the next rates)"
            cases.append(Case({"model": found["model"]}, holds, words, "more rates between and more tuning seeds"))
    rates = stored.published("rates")
    rows = [(row["model"], row["lora"] / row["full"], row["who"]) for row in _rates() if "full" in row]
    rows += [(row["model"], row["times"], row["who"]) for row in rates["ratios"]]
    cases += [Case({"model": model}, ratio >= times, f"{ratio:.3g} times ({who})") for model, ratio, who in rows]
    made = tuple(stored.made_by(stored.comparison(name), name) for name in COMPARISONS)
    return Finding(tuple(cases), (*made, f"data/claims/evidence/rates.yaml: {rates['standing']}"))


def _next_rates(row: Mapping[str, Any]) -> tuple[float, float]:
    """The rates tried next below and next above the chosen one; 0 and infinity beyond an edge."""
    tried = [one["lr"] for one in row["tried"]]
    below, above = [lr for lr in tried if lr < row["lr"]], [lr for lr in tried if lr > row["lr"]]
    return max(below, default=0.0), min(above, default=math.inf)


@experiment
def alpha_habit(times: float, often: float, kinds: list[str]) -> Finding:
    """Is alpha = times * rank in at least this share of the published choices of each kind: papers, guides?"""
    listed, cases = stored.published("alpha"), []
    for kind in kinds:
        rows = [row["alpha"] == times * row["rank"] for row in listed["rows"] if row["kind"] == kind]
        holds = sum(rows) / len(rows) >= often if rows else None
        found = f"{sum(rows)} of {len(rows)} choices"
        cases.append(Case({"who chooses": kind}, holds, found, f"choices of the kind {kind}"))
    ratios = sorted({row["alpha"] / row["rank"] for row in listed["rows"]})
    note = f"Alpha over rank runs from {ratios[0]:.2g} to {ratios[-1]:g} in the list."
    return Finding(tuple(cases), (f"data/claims/evidence/alpha.yaml: {listed['standing']}",), note=note)


def _rates() -> Iterator[dict[str, Any]]:
    """Published rates: the paper's tables, of table 9 LoRA's without the restricted settings, and a list of others."""
    for name, sizes in SIZES.items():
        for row in table(name).records():
            if row.get("method", "LoRA") == "LoRA" and not row.get("mark"):
                model = row.get("model") or next(iter(sizes))
                who = f"table {name.removeprefix('table')}"
                yield {"who": who, "model": model, "billions": sizes[model], "task": row["task"], "lora": row["lr"]}
    lora, full = (table("table12").row(method=method)["lr"] for method in ("LoRA", "FT"))
    yield {"who": "table 12", "model": "GPT-3", "billions": 175, "task": "three tasks", "lora": lora, "full": full}
    yield from stored.published("rates")["rows"]
