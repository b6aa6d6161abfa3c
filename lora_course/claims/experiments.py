"""The experiments behind claims: counts, finished runs, stored comparisons and published numbers.

A card names an experiment and states a premise for each of the experiment's parameters.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import pandas as pd

from lora_course.claims import evidence as stored
from lora_course.claims.cases import Case, Finding, as_text, check_known
from lora_course.claims.evidence import Cells, Interval, Stored, cells_of
from lora_course.experiments.rates import batch_growth
from lora_course.paper import table
from lora_lab import BadValue, FullFineTuning, LoRA, params
from lora_lab.accounting.gpus import of_size, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import config_of, longest
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import binary, decimal
from lora_lab.experiments.statistics import mean_interval, verdict, verdicts
from lora_lab.methods.base import words
from lora_lab.training.assets import shipped

COUNTED = "counted now, from the models' configs"
PREDICTED = "predicted now: one training step in bf16 with AdamW"
FORMATS = {16: "none", 8: "int8", 4: "nf4", 3: "nf3", 2: "nf2"}  # of the frozen base, by bits per weight
SWEEP, PLACES = "rate_rank_alpha", "target_modules"
POINTS = "difference in accuracy, points"


def lora(rank: int, targets: str) -> LoRA:
    return LoRA(rank, targets=tuple(targets.replace("+", ",").split(",")))


@lru_cache(4096)
def _size(what: str, model: str, method: Any, setup: Setup) -> int:
    """Count trainable parameters, their bytes (2 per parameter), or the peak bytes of a training step."""
    if what == "memory of a step":
        return estimate(model, method, setup).peak
    return params(model, method).trainable * (2 if what == "file" else 1)


def times_less(
    models: list[str], counted: list[str], targets: str, rank: int, seq: int, batch: int, checkpointing: bool,
    times: float,
) -> Finding:  # fmt: skip
    """Does full fine-tuning need at least `times` times what LoRA needs, for models that can read `seq` tokens?

    `counted`: any of "parameters" (trainable ones), "file" (2 bytes per parameter) and "memory of a step".
    """
    check_known(counted, ("parameters", "file", "memory of a step"), "the quantities counted")
    setup, cases = Setup(batch, seq, checkpointing=checkpointing), []
    for what in counted:
        for model in _reading(models, seq):
            full, small = (_size(what, model, method, setup) for method in (FullFineTuning(), lora(rank, targets)))
            text = {"parameters": "{:,}".format, "file": decimal}.get(what, binary)
            found = f"{float(f'{full / small:.3g}'):,g} times less: {text(small)} instead of {text(full)}"
            settings = {"model": model} | ({"what is counted": what} if len(counted) > 1 else {})
            cases.append(Case(settings, full >= times * small, found, span=(full / small,)))
    ratios = [case.span[0] for case in cases]
    figures = {"lowest": min(ratios), "highest": max(ratios)}
    return Finding(tuple(cases), (COUNTED, PREDICTED), "times less", (times,), log=True, figures=figures)


def _reading(models: list[str], seq: int) -> list[str]:
    """Return the models that can read rows of `seq` tokens. Raises: BadValue if no model can read so many."""
    if not (fitting := [model for model in models if seq <= (longest(config_of(model)) or seq)]):
        raise BadValue(f"rows of {seq:,} tokens are longer than {as_text(models)} can read")
    return fitting


def fits_on_card(
    models: list[str], targets: str, rank: int, bits: int, gpu_gb: float, cards: int, batch: int, seq: int,
    checkpointing: bool,
) -> Finding:  # fmt: skip
    """Does a LoRA step on a base of `bits` bits fit on one card, or on several cards that shard the model (FSDP)?"""
    check_known([bits], FORMATS, "the bits of a base")
    shard = f"fsdp:{cards}" if cards != 1 else ""
    setup = Setup(batch, seq, quantized=FORMATS[bits], checkpointing=checkpointing, shard=shard)
    free, on_each = usable(of_size(gpu_gb)), " on each" if cards > 1 else ""
    peaks = {model: _size("memory of a step", model, lora(rank, targets), setup) for model in models}
    cases = (
        Case({"model": m}, p <= free, f"{binary(p)}{on_each}; {binary(free)} is free", span=(p / 2**30,))
        for m, p in peaks.items()
    )
    figures = {f"{model}, GiB": round(peak / 2**30, 1) for model, peak in {**peaks, "usable": free}.items()}
    return Finding(tuple(cases), (PREDICTED,), "GiB at the peak of a step", (free / 2**30,), figures=figures)


def targets_barely_save(
    models: list[str], few: str, many: str, rank: int, seq: int, batch: int, checkpointing: list[bool], percent: float
) -> Finding:
    """Does a step with adapters on `few` need at most `percent` less memory than one with adapters on `many`?"""
    cases = []
    for model, kept in product(_reading(models, seq), checkpointing):
        setup = Setup(batch, seq, checkpointing=kept)
        less, more = (_size("memory of a step", model, lora(rank, targets), setup) for targets in (few, many))
        saved = 100 * (1 - less / more)
        found = f"{saved:.1f}% less: {binary(less)} instead of {binary(more)}"
        cases.append(Case({"model": model, "checkpointing": kept}, saved <= percent, found, span=(saved,)))
    return Finding(tuple(cases), (PREDICTED,), "memory saved, percent", (percent,))


def adds_no_work(models: list[str], merged: bool, targets: str, rank: int) -> Finding:
    """Does the model with LoRA multiply by the same matrices as the base, and no others? Merging removes A and B."""
    cases = []
    for model in models:
        counts = params(model, lora(rank, targets))
        extra = 0 if merged else 2 * sum(row.count for row in counts.modules if row.trained)
        work = 0 if merged else counts.trainable / counts.total
        found = f"{extra:,} more matrix products, {100 * work:.2g}% more arithmetic per token"
        cases.append(Case({"model": model}, extra == 0, found, span=(extra,)))
    return Finding(tuple(cases), (COUNTED,), "more matrix products", (0,))


# ---- quality


def rank_is_enough(rank: int, needed: list[int], margin: float, store: Stored = None) -> Finding:
    """Is a rank no worse than a larger rank in runs, in table 6, and on synthetic updates of known rank?

    needed  Ranks of updates whose directions are all equally strong. The best approximation of rank r keeps r
            directions (Eckart and Young 1936). The claim holds if at most a twentieth of the update is lost.
    """
    cells, larger = cells_of(store, SWEEP), 32
    (_, small), (_, large) = (cells.best(rank=r, **_usual_alpha(cells, r)) for r in (rank, larger))
    rivals = {cells.where: (larger, stored.judged(verdict(small, large, margin)))}
    printed = stored.ranks_on_gpt3(rank) if store is None else {}
    rivals |= {task: (64, interval) for task, interval in printed.items()}
    cases = [
        i.case({"task": task}, f"rank {rank} minus rank {other}", i.no_worse(margin))
        for task, (other, i) in rivals.items()
    ]
    for update_rank in (other for other in needed if other > rank):  # an update of lower rank tests nothing
        missing = math.sqrt(max(0, update_rank - rank) / update_rank)
        found = f"rank {rank} misses at least {missing:.0%} of the update"
        cases.append(Case({"task": f"an update of rank {update_rank}"}, missing <= 0.05, found))
    made_up = ["arithmetic: the singular values of an update"] if any(other > rank for other in needed) else []
    sources = (cells.made, *([stored.printed_in("table6")] if printed else []), *made_up)
    return Finding(tuple(cases), sources, POINTS, (-100 * margin,))


def _usual_alpha(cells: Cells, rank: int) -> dict[str, float]:
    """Return the most common alpha of all runs if any run of this rank has it, else this rank's most common alpha."""
    frame = cells.runs.frame
    alphas, usual = frame[frame["rank"] == rank]["alpha"], float(frame["alpha"].mode().iloc[0])
    return {"alpha": usual if alphas.empty or (alphas == usual).any() else float(alphas.mode().iloc[0])}


def alpha_rule_is_no_worse(rank: int, times: float, margin: float, store: Stored = None) -> Finding:
    """Is alpha = times * rank no worse than any other alpha at this rank, each at its own best learning rate?"""
    cells, rule_alpha = cells_of(store, SWEEP), times * rank
    rule_rate, rule_runs = cells.best(rank=rank, alpha=rule_alpha)
    frame, cases = cells.runs.at(rank=rank).frame, []
    for alpha in sorted(set(frame["alpha"]) - {rule_alpha}):
        rate, runs = cells.best(rank=rank, alpha=alpha)
        i = stored.judged(verdict(rule_runs, runs, margin))
        tried = {a: frame[frame["alpha"] == a]["lr"] for a in (rule_alpha, alpha)}
        both = ((rule_alpha, rule_rate), (alpha, rate))
        edges = " and ".join(f"alpha {a:.3g}" for a, lr in both if lr in (tried[a].min(), tried[a].max()))
        more = f"more rates for {edges}, whose best rate was the lowest or highest tried, and " if edges else ""
        words, settings = f"alpha {rule_alpha:g} minus alpha {alpha:.3g}", {"against": f"alpha {alpha:.3g} at {rate:g}"}
        cases.append(replace(i, would_tell=more + i.would_tell).case(settings, words, i.no_worse(margin)))
    return Finding(tuple(cases), (cells.made,), POINTS, (-100 * margin,), always=True)


def no_place_is_better(place: str, reported: bool, margin: float, store: Stored = None) -> Finding:
    """Is no other choice of matrices better by the margin or more, at equal budgets and with each at its best rate?

    Each study is one case. A case holds if no other choice can be better by the margin. It fails if another choice is
    better by more than the margin, even after Holm's correction. `reported`: count reports without numbers as undecided
    cases.
    """
    chosen = ",".join(words(place.replace("+", ",")))  # in the order of stored targets
    cells, place = cells_of(store, PLACES), chosen.replace(",", "+")
    places = {*cells.runs.at(method="lora").frame["targets"], chosen}
    best_runs = {targets: cells.best(method="lora", targets=targets)[1] for targets in places}
    results = verdicts(best_runs, chosen, margin)
    rivals: dict[str, tuple[bool | None, Interval]] = {}
    for targets in sorted(results):
        result = results[targets]
        better = result.outcome == "better" and result.low > result.margin
        holds = True if result.high < result.margin else False if better else None
        rivals[targets.replace(",", "+")] = holds, stored.judged(result)
    cases, evidence = [_study(cells.where, place, rivals)], [cells.made]
    if printed := stored.places_on_gpt3(place) if store is None else {}:
        table5 = {other: (i.no_worse(margin), -i) for other, i in printed.items()}
        cases.append(_study("GPT-3, attention alone", place, table5))
        evidence.append(stored.printed_in("table5"))
    if reported and {*chosen.split(",")} <= {"q", "k", "v", "o"}:
        reports = stored.published("places")
        would_tell = f"numbers that compare {place} with other choices at equal budgets, over several seeds"
        cases += [Case({"study": r["model"]}, None, f"{r['better']} ({r['who']})", would_tell) for r in reports["rows"]]
        evidence.append(f"data/claims/evidence/places.yaml: {reports['standing']}")
    return Finding(tuple(cases), tuple(evidence), POINTS, (100 * margin,))


def _study(name: str, place: str, rivals: Mapping[str, tuple[bool | None, Interval]]) -> Case:
    """Summarize a study as one case, by the rival that decides it."""
    outcomes = {outcome for outcome, _ in rivals.values()}
    holds = False if False in outcomes else None if None in outcomes else True
    deciding = {rival: interval for rival, (outcome, interval) in rivals.items() if outcome is holds}
    rival = max(deciding, key=lambda rival: deciding[rival].high)
    verb = {True: "comes closest", False: "is better", None: "may be better"}[holds]
    return deciding[rival].case({"study": name}, f"{rival} {verb}; difference from {place}", holds)


def no_worse(method: str, tasks: list[str], margin: float, store: Stored = None) -> Finding:
    """Is a method no worse than full fine-tuning, or worse by at most the margin?

    tasks: "minilm_rt" (our comparison), "metamath" (PEFT's suite), "gpt3" (table 4). If given, `store` replaces them.
    """
    check_known(tasks, ("minilm_rt", "metamath", "gpt3"), "the tasks")
    intervals, evidence = dict[str, Interval](), []
    if store is not None:
        cells = cells_of(store, SWEEP)
        runs, full_runs = (cells.best(method=name)[1] for name in (method, "full"))
        intervals[str(cells.first["task"])], tasks = stored.judged(verdict(runs, full_runs, margin)), []
        evidence.append(cells.made)
    for task in tasks:
        if task == "metamath":
            intervals["Llama-3.2-3B on GSM8K"] = stored.metamath(method, "full")
            evidence.append(f"{stored.published(task)['source']}; {stored.published(task)['standing']}")
        elif task == "gpt3":
            intervals |= stored.methods_on_gpt3(method, "full")
            evidence.append(stored.printed_in("table4"))
        else:
            intervals |= stored.compared(f"{task}_all_linear", method, "full", margin)
            evidence.append(stored.made_by(f"{task}_all_linear"))
    words = f"{'LoRA' if method == 'lora' else method} minus full"
    cases = [i.case({"task": task}, words, i.no_worse(margin)) for task, i in intervals.items()]
    return Finding(tuple(cases), tuple(evidence), POINTS, (-100 * margin,))


def variant_is_better(variant: str, one_rate: bool, margin: float) -> Finding:
    """Is a variant better than plain LoRA? The claim fails if the interval excludes a gain as large as the margin.

    Our runs use tuned learning rates. `one_rate`: also count PEFT's suite (at one rate) if it has the variant.
    """
    labels = {name.lower(): label for name, label in stored.VARIANTS.items()}
    check_known([variant], labels, "the variants")
    found = stored.of_labels(stored.TUNED, labels[variant], stored.PLAIN, margin)
    holds, words = True if found.low95 > 0 else False if found.high < margin else None, f"{variant} minus LoRA"
    cases = [stored.judged(found).case({"study": "minilm on rt, each method at its own rate"}, words, holds)]
    evidence, suite = [stored.made_by(stored.TUNED)], stored.published("metamath")
    if one_rate and variant in suite["rows"]:
        i = stored.metamath(variant, "lora")
        holds = True if i.low > 0 else False if i.high < margin else None
        cases.append(i.case({"study": "Llama-3.2-3B on GSM8K, one rate for both"}, words, holds))
        evidence.append(f"{suite['source']}; {suite['standing']}")
    return Finding(tuple(cases), tuple(evidence), POINTS, (0, 100 * margin))


def matches_full(learned_from: list[str], rank: int, reported: bool, margin: float) -> Finding:
    """On lesson 17's "rewards" or "labels", is LoRA no worse than full fine-tuning, or worse by at most the margin?"""
    check_known(learned_from, names := {"rewards": "minilm_rt_reward", "labels": "minilm_rt_labels"}, "the signals")
    check_known([rank], (1, 8, 64), "the ranks")
    cases = []
    for signal in learned_from:
        i = stored.judged(stored.of_labels(names[signal], f"LoRA r{rank} q,v", "full", margin))
        cases.append(i.case({"learned from": signal}, f"rank {rank} minus full", i.no_worse(margin)))
    reports = stored.published("rewards")["rows"] if reported and rank == 1 and "rewards" in learned_from else ()
    cases += [Case({"model": r["model"]}, None, r["found"], r["lacks"]) for r in reports]
    return Finding(tuple(cases), tuple(stored.made_by(names[s]) for s in learned_from), POINTS, (-100 * margin,))


# ---- rates


def rate_in_band(low: float, high: float, at_least_billions: float) -> Finding:
    """Does the chosen rate lie between `low` and `high`, for models of at least this many billion parameters?"""
    rows = [row for row in _rates() if row["billions"] >= at_least_billions]
    cases = [
        Case({"model": r["model"], "task": r["task"]}, low <= r["lora"] <= high, f"{as_text(r['lora'])} ({r['who']})",
             span=(r["lora"],))
        for r in rows
    ]  # fmt: skip
    evidence = [f"data/claims/evidence/rates.yaml: {stored.published('rates')['standing']}"]
    if at_least_billions <= 0.02:
        cells = cells_of(None, SWEEP)
        rate = cells.best(method="lora", rank=8, **_usual_alpha(cells, 8))[0]
        words = f"{as_text(rate)}, the best of the tried rates on validation"
        settings = {"model": cells.first["model"], "task": cells.first["task"]}
        cases.append(Case(settings, low <= rate <= high, words, span=(rate,)))
        evidence.append(cells.made)
    return Finding(tuple(cases), tuple(evidence), "learning rate", (low, high), log=True)


def rate_times_full(times: float, within: float, reported: bool) -> Finding:
    """Is LoRA's best rate `times` times full fine-tuning's, up to a factor of `within`, wherever both were tuned?

    Our cases are those of lesson 15; each is undecided if its 95% interval is only partly within that factor.
    `reported`: count published ratios as undecided cases, since they have no interval.
    """
    if within < 1:
        raise BadValue(f"within must be a factor of at least 1, such as 2, not {within:g}")
    low, high, cases = times / within, times * within, []
    for (model, task, targets), (ratio, least, most) in stored.rate_ratios().items():
        holds = True if low <= least and most <= high else False if most < low or least > high else None
        found = f"{ratio:.2g} times (95%: {least:.2g} to {most:.2g})"
        settings = {"model": model, "task": task, "targets": targets}
        cases.append(Case(settings, holds, found, "more seeds", (least, ratio, most)))
    rates = stored.published("rates")
    rows = [(row["model"], row["lora"] / row["full"], row["who"]) for row in _rates() if "full" in row]
    rows += [(row["model"], row["times"], row["who"]) for row in rates["ratios"]]
    cases += [
        Case({"model": model}, None, f"{ratio:.3g} times ({who})", "an interval over seeds", (ratio,))
        for model, ratio, who in rows
        if reported
    ]
    published = f"data/claims/evidence/rates.yaml: {rates['standing']}"
    sources = (*map(stored.made_by, stored.RATES), stored.RATES_OF_RUNS, published)
    return Finding(tuple(cases), sources, "LoRA's rate over full's", (low, high), log=True)


def batch_costs_lora_more(by: float, reported: bool) -> Finding:
    """From batch 8 to 32, does LoRA's best loss rise more than full fine-tuning's, by over `by` nats (95% interval)?"""
    grown = batch_growth(pd.read_csv(shipped(stored.RATES_OF_RUNS)))
    ends = mean_interval([a - b for a, b in zip(grown["lora"], grown["full"], strict=True)])
    more, low, high = (math.nan if end is None else end for end in ends)
    found = f"LoRA's loss grows {more:.2f} nats more (95%: {low:.2f} to {high:.2f})"
    holds = True if low > by else False if high < by else None
    ours = {"study": "minilm on rt, LoRA on q,v"}
    cases = [Case(ours, holds, found, "far more than three seeds", (low, more, high))]
    if reported:
        cases.append(Case({"study": "LoRA Without Regret"}, None, "in some settings, without numbers", "the losses"))
    return Finding(tuple(cases), (f"{stored.RATES_OF_RUNS}, part batch",), "LoRA's extra rise in loss, nats", (by,))


def _rates() -> Iterator[dict[str, Any]]:
    """Yield published rates: first those in the paper's tables (without table 9's restricted settings), then others."""
    for name, sizes in stored.published("rates")["billions"].items():
        for row in table(name).records():
            if row.get("method", "LoRA") == "LoRA" and not row.get("mark"):
                model = row.get("model") or next(iter(sizes))
                who = f"table {name.removeprefix('table')}"
                yield {"who": who, "model": model, "billions": sizes[model], "task": row["task"], "lora": row["lr"]}
    lora_rate, full = (table("table12").row(method=method)["lr"] for method in ("LoRA", "FT"))
    row = {"who": "table 12", "model": "GPT-3", "billions": 175, "task": "three tasks"}
    yield {**row, "lora": lora_rate, "full": full}
    yield from stored.published("rates")["rows"]
