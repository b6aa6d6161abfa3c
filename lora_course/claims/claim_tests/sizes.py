"""Experiments that weigh: files, training states and the peak of a step, by the accountant. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lora_course.claims.claim_tests.base import Case, Finding, check_known, experiment, roles, said
from lora_course.claims.claim_tests.evidence import published
from lora_lab.accounting.gpus import STANDING, Card, card, of_size, seconds, usable
from lora_lab.accounting.memory import Estimate, estimate, longest
from lora_lab.accounting.models import Architecture, architecture_of, config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import binary, decimal
from lora_lab.errors import BadValue
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning

PREDICTED = "the accountant's prediction for one training step, in bf16 with AdamW, here and now"
FORMATS = {16: "none", 8: "int8", 4: "nf4", 3: "nf3", 2: "nf2"}


@experiment
def fits_on_card(
    models: list[str], targets: str, rank: int, bits: int, gpu_gb: float, cards: int, batch: int, seq: int,
    checkpointing: bool,
) -> Finding:  # fmt: skip
    """Does a step of LoRA on a base of so many bits fit on the card, or on so many that share the model (FSDP)?"""
    setup = Setup(
        batch, seq, quantised=format_of(bits), checkpointing=checkpointing, shard=f"fsdp:{cards}" if cards > 1 else ""
    )
    room, method = usable(of_size(gpu_gb)), LoRA(rank, targets=roles(targets))
    peaks = {model: peak(model, method, setup) for model in models}
    each = " on each" if cards > 1 else ""
    cases = [
        Case({"model": m}, e.peak <= room, f"{binary(e.peak)}{each}, usable {binary(room)}") for m, e in peaks.items()
    ]
    figures = {f"{model}, GiB": round(e.peak / 2**30, 1) for model, e in peaks.items()}
    return Finding(tuple(cases), (PREDICTED,), figures=figures | {"usable, GiB": round(room / 2**30, 1)})


def format_of(bits: int) -> str:
    """The format of a frozen base of so many bits. Raises: BadValue naming those there are."""
    if bits not in FORMATS:
        raise BadValue(f"a base has {said(list(FORMATS))} bits, not {bits}")
    return FORMATS[bits]


def peak(model: str, method: Any, setup: Setup) -> Estimate:
    """The estimate of a step. Raises: as `memory`."""
    return estimate(model, method, setup)


@experiment
def footprint(
    model: str, targets: str, rank: int, counted: list[str], number_bytes: int, state_bytes: int, above_gb: float,
    below_mb: float,
) -> Finding:  # fmt: skip
    """Is it above so many GB with full fine-tuning and below so many MB with LoRA? For each thing that may be counted.

    counted: "file", "states" (weight, gradient, moments of what trains), "peak" (the whole step, base included).
    Units: bytes of a number in the file and of its states; GB and MB are powers of ten.
    """
    a, lora, full = architecture_of(model), LoRA(rank, targets=roles(targets)), FullFineTuning()
    step = Setup(1, 512, checkpointing=True)
    weigh: dict[str, Callable[[LoRA | FullFineTuning], int]] = {
        "file": lambda method: number_bytes * params(a, method).trainable,
        "states": lambda method: state_bytes * params(a, method).trainable,
        "peak": lambda method: peak(model, method, step).peak,
    }
    check_known(counted, weigh, "the things counted")
    sizes = {what: (weigh[what](full), weigh[what](lora)) for what in counted}
    cases = [
        Case(
            {"what is counted": what},
            before >= above_gb * 1e9 and after <= below_mb * 1e6,
            f"{decimal(before)} falls to {decimal(after)}",
        )
        for what, (before, after) in sizes.items()
    ]
    return Finding(tuple(cases), ("counted by the accountant, here and now", PREDICTED))


@experiment
def times_less_memory(
    models: list[str], targets: str, rank: int, seqs: list[int], batch: int, checkpointing: bool, times: float
) -> Finding:
    """Is the peak of a step of full fine-tuning at least so many times LoRA's? For the models that read such rows."""
    cases, ratios = [], []
    pairs = [(model, seq) for model in models for seq in seqs if seq <= (longest(config_of(model)) or seq)]
    if not pairs:
        raise BadValue(f"rows of {said(seqs)} tokens are longer than {said(models)} can read")
    for model, seq in pairs:
        setup = Setup(batch, seq, checkpointing=checkpointing)
        full, lora = (
            peak(model, method, setup).peak for method in (FullFineTuning(), LoRA(rank, targets=roles(targets)))
        )
        ratios.append(full / lora)
        cases.append(
            Case(
                {"model": model, "length": seq},
                full >= times * lora,
                f"{binary(full)} against {binary(lora)}, {full / lora:.1f} times",
            )
        )
    figures = {"lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}
    return Finding(
        tuple(cases), (PREDICTED,), note=f"From {min(ratios):.1f} to {max(ratios):.1f} times less.", figures=figures
    )


@experiment
def adapter_size(
    models: list[str], targets: list[str], rank: int, number_bytes: int, from_mb: float, to_mb: float
) -> Finding:
    """Do the numbers of A and B take between so many MB and so many, at so many bytes each?"""
    cases = []
    for a, wide in ((architecture_of(model), wide) for model in models for wide in targets):
        size = number_bytes * params(a, LoRA(rank, targets=roles(wide))).trainable
        cases.append(Case({"model": a.name, "targets": wide}, from_mb * 1e6 <= size <= to_mb * 1e6, decimal(size)))
    return Finding(tuple(cases), ("counted by the accountant, here and now",))


@experiment
def only_a_and_b(models: list[str], labels: int, targets: str, rank: int) -> Finding:
    """Does an adapter hold A and B and nothing more? With labels, the model is one for classification."""
    cases = [
        _beside(architecture_of(model, labels if architecture_of(model).task == "encoder" else None), targets, rank)
        for model in models
    ]
    note = "Rank, alpha and targets stand in a file of their own: without them A and B cannot be used."
    return Finding(tuple(cases), ("counted by the accountant, here and now",), note=note)


def _beside(a: Architecture, targets: str, rank: int) -> Case:
    counted = params(a, LoRA(rank, targets=roles(targets)))
    kind = "classifier" if counted.head else "language model"
    found = f"{counted.trainable:,} numbers in A and B, {counted.head:,} in the trained head"
    return Case({"kind of model": kind, "model": a.name}, counted.head == 0, found)


@experiment
def prompt_is_lighter(
    models: list[str], tokens: int, targets: str, rank: int, counted: list[str], batch: int, seq: int
) -> Finding:
    """Does a soft prompt take less than LoRA? Of numbers that train, memory of a step, arithmetic of a step.

    counted: "numbers", "memory" (the peak), "arithmetic" (FLOPs).
    """
    prompt, lora, setup = PromptTuning(tokens=tokens), LoRA(rank, targets=roles(targets)), Setup(batch, seq)
    weigh: dict[str, Callable[[str, Any], int]] = {
        "numbers": lambda model, method: params(model, method).trainable,
        "memory": lambda model, method: peak(model, method, setup).peak,
        "arithmetic": lambda model, method: peak(model, method, setup).flops or 0,
    }
    check_known(counted, weigh, "the things counted")
    cases = []
    for what, model in ((what, model) for what in counted for model in models):
        own, other = (weigh[what](model, method) for method in (prompt, lora))
        cases.append(
            Case({"what is counted": what, "model": model}, own < other, f"{100 * own / other:.3g} % of LoRA's")
        )
    return Finding(tuple(cases), (PREDICTED, "counted by the accountant, here and now"))


@experiment
def hours_and_one_card(
    models: list[str],
    gpu: str,
    bits: int,
    tokens: int,
    hours: float,
    utilisation: float,
    batch: int,
    seq: int,
    published_too: bool,
) -> Finding:
    """Does LoRA fit one card and take at most so many hours, and does full fine-tuning not fit one?

    The time is that of the arithmetic at a share of the card's peak; published times are cases of their own.
    """
    one = card(gpu)
    cases = [_lora_hours(m, one, bits, tokens, hours, utilisation, batch, seq) for m in models]
    for model in models:
        full = peak(model, FullFineTuning(), Setup(batch, seq, checkpointing=True))
        cases.append(
            Case(
                {"method": "full", "model": model},
                full.peak > usable(one),
                f"{binary(full.peak)}, usable {binary(usable(one))} on one {one.name}",
            )
        )
    rows = published("times")["rows"] if published_too else ()
    for row in rows:
        good = row["gpus"] == 1 and row["hours"] <= hours if row["method"] == "lora" else row["gpus"] > 1
        found = f"{row['hours']:g} h on {row['gpus']} x {row['card']} ({row['who']})"
        cases.append(Case({"method": row["method"], "model": row["model"]}, good, found))
    evidence = (
        PREDICTED,
        f"arithmetic at {utilisation:.0%} of the peak on the card's data sheet, from {STANDING}",
    )
    return Finding(
        tuple(cases),
        (*evidence, *([f"data/claims/evidence/times.yaml: {published('times')['standing']}"] if rows else [])),
    )


def _lora_hours(
    model: str, one: Card, bits: int, tokens: int, hours: float, utilisation: float, batch: int, seq: int
) -> Case:
    setup = Setup(batch, seq, quantised=format_of(bits), checkpointing=True)
    step = peak(model, LoRA(), setup)
    took = seconds(-(-tokens // setup.tokens) * (step.flops or 0), one, utilisation) / 3600
    needed, room = step.peak, usable(one)
    found = f"{binary(needed)}, usable {binary(room)} on one {one.name}, {took:.2g} h"
    return Case({"method": "lora", "model": model}, needed <= room and took <= hours, found)
