"""Compare our memory predictions, and those of other estimators, with 18 GPU runs of PEFT's MetaMathQA suite.

The length of the longest batch is fitted to one run; the other runs are predicted.
"""

from collections.abc import Iterator

import pandas as pd

from benchmarks import accountant, metamath, peers
from benchmarks.measure import goal
from benchmarks.measure import table as markdown
from benchmarks.metamath import FAMILY, FITTED, LONGEST, MISSES, runs
from benchmarks.peft_trace import followed

OURS = ("reserved, simulated", "allocated, traced", "allocated, at once")
NAMES = (*OURS, "accelerate", "fitcheck", "fitcheck, own length", "peft-doctor", "torch-preflight", "weights + 16 B")
HEAD = ["run", "reserved, measured GB", f"{OURS[0]} GB", *(f"{name}, %" for name in NAMES)]
SUMMARY = ["estimator", "runs", "median error %", "median error % where all predict", "largest error %", "in"]
QUICK = (*MISSES, FITTED, *FAMILY, "IA3", "LN tuning", "LoKr r32")
GOAL = 2.0  # percent


def report(quick: bool) -> Iterator[str]:
    fitted, estimates = runs()[FITTED], dict[str, dict[str, float]]()
    for name, run in runs().items():
        trace = followed(run) if not quick or name in QUICK else None
        sizes = (trace and trace.reserved, trace and trace.allocated, metamath.predicted(run))
        ours = {estimator: size for estimator, size in zip(OURS, sizes, strict=True) if size is not None}
        estimates[name] = ours | peers.estimates(run)
    table = pd.DataFrame.from_dict(estimates, orient="index", columns=NAMES)  # bytes; nan: no estimate
    measured = pd.Series({name: run.reserved for name, run in runs().items()})
    errors = 100 * (table.div(measured, axis="index") - 1)  # percent
    gigabytes = pd.concat([measured, table[OURS[0]]], axis="columns") / 1e9
    yield "## Memory: predicted against measured"
    yield (
        f"Llama-3.2-3B, bf16, batch 4. The longest batch, {LONGEST} tokens, is fitted to {FITTED} (remaining error "
        f"{fitted.error(followed(fitted).reserved):+.2f}%); the other runs are predicted. We trace PEFT's own layers "
        "in the suite's loop, and simulate the allocator. The allocated memory is smaller than the reserved memory. "
        f"accelerate predicts {peers.accelerate() / 1e9:.2f} GB for every method. The other estimators get our length; "
        "fitcheck-llm also gets the length at which its prediction for the fitted run is best. "
        f"{peers.MISSING if peers.estimator is None else f'This length is {peers.fitcheck_length()}.'}"
    )
    cells = pd.concat([gigabytes.map("{:.2f}".format), errors.map("{:+.1f}".format)], axis="columns")
    yield markdown(HEAD, cells.replace({"nan": "-", "+nan": "-"}).itertuples(name=None))
    others = errors.drop(index=FITTED).abs().dropna(axis="columns", how="all")
    shared = others.dropna()  # the runs that all estimators predict
    rows = []
    for name, each in others.items():
        numbers = (each.median(), shared[name].median(), each.max())
        rows.append([str(name), str(each.count()), *(f"{number:.1f}" for number in numbers), str(each.idxmax())])
    yield markdown(SUMMARY, rows)
    ours = errors[OURS[0]].fillna(0)
    quantity = f"LoRA family ({', '.join(FAMILY)}), largest error of {OURS[0]}, in percent"
    yield goal(quantity, ours[list(FAMILY)].abs().max(), GOAL)
    for name, error in ours[ours.abs() > GOAL].items():
        yield f"- missed: {name} {error:+.1f}%: {MISSES.get(str(name).partition(',')[0], 'unexplained')}"
    yield from accountant.report(quick)
