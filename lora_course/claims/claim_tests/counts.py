"""Experiments that count: shapes, parameters, files, the peak of a step. By the accountant; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_course.claims.claim_tests.cases import Case, Finding, check_known, experiment, roles, said
from lora_course.claims.claim_tests.evidence import published
from lora_lab.accounting.gpus import STANDING, card, of_size, seconds, usable
from lora_lab.accounting.memory import estimate, longest
from lora_lab.accounting.models import architecture_of, config_of, zoo_names
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import binary, decimal
from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import error_left, spectrum
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning

COUNTED = "counted by the accountant from the models' configs, here and now"
PREDICTED = "the accountant's prediction for one training step, in bf16 with AdamW, here and now"
FORMATS = {16: "none", 8: "int8", 4: "nf4", 3: "nf3", 2: "nf2"}  # of a frozen base, by bits
GB, MB = 1e9, 1e6


def lora(rank: int, targets: str) -> LoRA:
    """LoRA with targets as a card writes them."""
    return LoRA(rank, targets=roles(targets))


def trained(model: str, rank: int, targets: str) -> int:
    """How many numbers LoRA trains, without the head."""
    return params(model, lora(rank, targets)).trainable


def quantised(bits: int) -> str:
    """The format of a frozen base. Raises: BadValue naming those there are."""
    if bits not in FORMATS:
        raise BadValue(f"a base has {said(list(FORMATS))} bits, not {bits}")
    return FORMATS[bits]


@experiment
def product_shape(d: int, rank: int, a: str, b: str, order: str) -> Finding:
    """Does the product, as written, have the shape of W, d x d? Random A and B are really multiplied."""
    shapes = {"d x r": (d, rank), "r x d": (rank, d)}
    if a not in shapes or b not in shapes or order not in ("B A", "A B"):
        raise BadValue(f"a and b are 'd x r' or 'r x d' and order is 'B A' or 'A B', not {a!r}, {b!r} and {order!r}")
    matrices = {name: np.random.default_rng(0).standard_normal(shapes[shape]) for name, shape in (("A", a), ("B", b))}
    first, second = (matrices[name] for name in order.split())
    (m, inner), (outer, n) = first.shape, second.shape
    fits = inner == outer and (first @ second).shape == (d, d)
    result = f"is {m} x {n}, and W is {d} x {d}" if inner == outer else "cannot be multiplied"
    silent = inner == outer and m * n == 1 < d
    note = "At rank 1 a program adds the one number to all of W and says nothing." if silent else ""
    case = Case({"A": a, "B": b, "order": order}, fits, f"{m} x {inner} times {outer} x {n} {result}")
    return Finding((case,), ("random matrices multiplied here and now",), note=note)


@experiment
def two_d_r(models: list[str], targets: str, rank: int) -> Finding:
    """Does each adapted matrix go from d^2 numbers to 2 d r, d being the model's width, and are those fewer?"""
    cases = []
    for a in map(architecture_of, models):
        for row in (row for row in params(a, lora(rank, targets)).modules if row.trained):
            inputs, outputs, own, formula = (
                row.in_features,
                row.out_features,
                row.trained // row.count,
                2 * a.hidden * rank,
            )
            shape = "square" if inputs == outputs == a.hidden else "not d x d"
            holds = shape == "square" and own == formula < a.hidden**2
            found = f"{inputs:,} x {outputs:,} = {inputs * outputs:,} numbers, {own:,} train; 2 d r is {formula:,}"
            cases.append(Case({"shape": shape, "model": a.name, "matrix": row.role}, holds, found))
    note = "In general it is r (d_in + d_out), below d_in d_out where r is below the break-even rank."
    return Finding(tuple(cases), (COUNTED,), note=note)


@experiment
def times_fewer(models: list[str], targets: list[str], ranks: list[int], low: float, high: float) -> Finding:
    """Does LoRA train between `low` and `high` times fewer numbers than the model has? "dense": the whole zoo."""
    dense = [name for name in zoo_names() if not architecture_of(name).experts]
    cases, ratios = [], []
    for model in (one for name in models for one in (dense if name == "dense" else [name])):
        for wide in targets:
            for rank in ranks:
                ratio = architecture_of(model).total / trained(model, rank, wide)
                settings = {"model": model, "targets": wide, "rank": rank}
                cases.append(Case(settings, low <= ratio <= high, f"{ratio:,.0f} times fewer"))
                ratios.append(ratio)
    least, most = min(ratios), max(ratios)
    note = f"From {least:,.0f} to {most:,.0f} times fewer; the task's head is not counted."
    return Finding(tuple(cases), (COUNTED,), note=note, figures={"lowest": least, "highest": most})


@experiment
def everything_is_full(models: list[str], targets: str, rank: int, share: float) -> Finding:
    """Do adapters on all these matrices train at least this share of the model, as full fine-tuning trains it all?"""
    counted = [params(model, lora(rank, targets)) for model in models]
    cases = (
        Case({"model": c.model}, c.fraction >= share, f"{c.trainable:,} of {c.total:,} train, {c.fraction:.2%}")
        for c in counted
    )
    return Finding(tuple(cases), (COUNTED,), figures={"largest share": max(c.fraction for c in counted)})


@experiment
def more_rank_holds_more(d: int, rank: int, larger: int) -> Finding:
    """Can an update of the larger rank be what one of the smaller cannot, and never the other way round?

    A random d x d matrix stands for the update that is wanted; the best approximation of each rank is known (Eckart and
    Young 1936).
    """
    s = spectrum(np.random.default_rng(0).standard_normal((d, d)))
    small, large = (error_left(s, min(one, d)) for one in (rank, larger))
    found = f"the best update of rank {rank} misses {small:.1%} of the wanted one, of rank {larger} {large:.1%}"
    note = "" if larger <= d else f"No {d} x {d} matrix has a rank above {d}."
    case = Case({"ranks": said([rank, larger])}, large < small, found)
    return Finding((case,), ("a random matrix and its singular values, here and now",), note=note)


@experiment
def fits_on_card(
    models: list[str], targets: str, rank: int, bits: int, gpu_gb: float, cards: int, batch: int, seq: int,
    checkpointing: bool,
) -> Finding:  # fmt: skip
    """Does a step of LoRA on a base of so many bits fit on the card, or on so many that share the model (FSDP)?"""
    shard = f"fsdp:{cards}" if cards > 1 else ""
    setup = Setup(batch, seq, quantised=quantised(bits), checkpointing=checkpointing, shard=shard)
    room, each = usable(of_size(gpu_gb)), " on each" if cards > 1 else ""
    peaks = {model: estimate(model, lora(rank, targets), setup).peak for model in models}
    cases = (Case({"model": m}, p <= room, f"{binary(p)}{each}, usable {binary(room)}") for m, p in peaks.items())
    figures = {f"{model}, GiB": round(peak / 2**30, 1) for model, peak in peaks.items()}
    return Finding(tuple(cases), (PREDICTED,), figures=figures | {"usable, GiB": round(room / 2**30, 1)})


@experiment
def footprint(
    model: str, targets: str, rank: int, counted: list[str], number_bytes: int, state_bytes: int, above_gb: float,
    below_mb: float,
) -> Finding:  # fmt: skip
    """Is it above so many GB with full fine-tuning and below so many MB with LoRA? For each thing that may be counted.

    counted: "file", "states" (weight, gradient, moments of what trains), "peak" (the whole step, base included).
    Units: bytes of a number in the file and of its states; GB and MB are powers of ten.
    """
    step = Setup(1, 512, checkpointing=True)
    weigh: dict[str, Callable[[Any], int]] = {
        "file": lambda method: number_bytes * params(model, method).trainable,
        "states": lambda method: state_bytes * params(model, method).trainable,
        "peak": lambda method: estimate(model, method, step).peak,
    }
    check_known(counted, weigh, "the things counted")
    cases = []
    for what in counted:
        before, after = (weigh[what](method) for method in (FullFineTuning(), lora(rank, targets)))
        holds = before >= above_gb * GB and after <= below_mb * MB
        cases.append(Case({"what is counted": what}, holds, f"{decimal(before)} falls to {decimal(after)}"))
    return Finding(tuple(cases), (COUNTED, PREDICTED))


@experiment
def times_less_memory(
    models: list[str], targets: str, rank: int, seqs: list[int], batch: int, checkpointing: bool, times: float
) -> Finding:
    """Is the peak of a step of full fine-tuning at least so many times LoRA's? For the models that read such rows."""
    cases, ratios = [], []
    for model, seq in [(m, s) for m in models for s in seqs if s <= (longest(config_of(m)) or s)]:
        setup = Setup(batch, seq, checkpointing=checkpointing)
        full, own = (estimate(model, method, setup).peak for method in (FullFineTuning(), lora(rank, targets)))
        ratios.append(full / own)
        found = f"{binary(full)} against {binary(own)}, {full / own:.1f} times"
        cases.append(Case({"model": model, "length": seq}, full >= times * own, found))
    if not cases:
        raise BadValue(f"rows of {said(seqs)} tokens are longer than {said(models)} can read")
    figures = {"lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}
    note = f"From {min(ratios):.1f} to {max(ratios):.1f} times less."
    return Finding(tuple(cases), (PREDICTED,), note=note, figures=figures)


@experiment
def adapter_size(
    models: list[str], targets: list[str], rank: int, number_bytes: int, from_mb: float, to_mb: float
) -> Finding:
    """Do the numbers of A and B take between so many MB and so many, at so many bytes each?"""
    sizes = {(m, wide): number_bytes * trained(m, rank, wide) for m in models for wide in targets}
    cases = (
        Case({"model": model, "targets": wide}, from_mb * MB <= size <= to_mb * MB, decimal(size))
        for (model, wide), size in sizes.items()
    )
    return Finding(tuple(cases), (COUNTED,))


@experiment
def only_a_and_b(models: list[str], labels: int, targets: str, rank: int) -> Finding:
    """Does an adapter hold A and B and nothing more? With labels, the model is one for classification."""
    cases = []
    for model in models:
        counted = params(model, lora(rank, targets), labels if architecture_of(model).task == "encoder" else None)
        kind = "classifier" if counted.head else "language model"
        found = f"{counted.trainable:,} numbers in A and B, {counted.head:,} in the trained head"
        cases.append(Case({"kind of model": kind, "model": model}, counted.head == 0, found))
    note = "Rank, alpha and targets stand in a file of their own: without them A and B cannot be used."
    return Finding(tuple(cases), (COUNTED,), note=note)


@experiment
def prompt_is_lighter(
    models: list[str], tokens: int, targets: str, rank: int, counted: list[str], batch: int, seq: int
) -> Finding:
    """Does a soft prompt take less than LoRA? Of numbers that train, memory of a step, arithmetic of a step.

    counted: "numbers", "memory" (the peak), "arithmetic" (FLOPs).
    """
    setup = Setup(batch, seq)
    weigh: dict[str, Callable[[str, Any], int]] = {
        "numbers": lambda model, method: params(model, method).trainable,
        "memory": lambda model, method: estimate(model, method, setup).peak,
        "arithmetic": lambda model, method: estimate(model, method, setup).flops or 0,
    }
    check_known(counted, weigh, "the things counted")
    cases = []
    for what in counted:
        for model in models:
            own, other = (weigh[what](model, method) for method in (PromptTuning(tokens=tokens), lora(rank, targets)))
            settings = {"what is counted": what, "model": model}
            cases.append(Case(settings, own < other, f"{100 * own / other:.3g} % of LoRA's"))
    return Finding(tuple(cases), (PREDICTED, COUNTED))


@experiment
def hours_and_one_card(
    models: list[str], gpu: str, bits: int, tokens: int, hours: float, utilisation: float, batch: int, seq: int,
    published_too: bool,
) -> Finding:  # fmt: skip
    """Does LoRA fit one card and take at most so many hours, and does full fine-tuning not fit one?

    The time is that of the arithmetic at a share of the card's peak; published times are cases of their own.
    """
    one, cases = card(gpu), []
    room, evidence = usable(one), [PREDICTED]
    evidence.append(f"arithmetic at {utilisation:.0%} of the peak on the card's data sheet, from {STANDING}")
    setup = Setup(batch, seq, quantised=quantised(bits), checkpointing=True)
    for model in models:
        step = estimate(model, LoRA(), setup)
        took = seconds(-(-tokens // setup.tokens) * (step.flops or 0), one, utilisation) / 3600
        found = f"{binary(step.peak)}, usable {binary(room)} on one {one.name}, {took:.2g} h"
        cases.append(Case({"method": "lora", "model": model}, step.peak <= room and took <= hours, found))
    for model in models:
        full = estimate(model, FullFineTuning(), Setup(batch, seq, checkpointing=True)).peak
        found = f"{binary(full)}, usable {binary(room)} on one {one.name}"
        cases.append(Case({"method": "full", "model": model}, full > room, found))
    if published_too:
        for row in published("times")["rows"]:
            good = row["gpus"] == 1 and row["hours"] <= hours if row["method"] == "lora" else row["gpus"] > 1
            found = f"{row['hours']:g} h on {row['gpus']} x {row['card']} ({row['who']})"
            cases.append(Case({"method": row["method"], "model": row["model"]}, good, found))
        evidence.append(f"data/claims/evidence/times.yaml: {published('times')['standing']}")
    return Finding(tuple(cases), tuple(evidence))
