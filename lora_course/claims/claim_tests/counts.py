"""Experiments that count: shapes by multiplying, parameters by the accountant. No weights are read."""

from __future__ import annotations

import numpy as np

from lora_course.claims.claim_tests.base import Case, Finding, experiment, roles, said
from lora_lab.accounting.models import Architecture, architecture_of, zoo_names
from lora_lab.accounting.params import Row, params
from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import error_left, spectrum
from lora_lab.methods.lora import LoRA

COUNTED = "counted by the accountant from the models' configs, here and now"
ORDERS = ("B A", "A B")
SHAPES = ("d x r", "r x d")


@experiment
def product_shape(d: int, rank: int, a: str, b: str, order: str) -> Finding:
    """Does the product, as written, have the shape of W, d x d? Random A and B are really multiplied.

    a, b: "d x r" or "r x d"; order: "B A" or "A B". Raises: BadValue for anything else.
    """
    if a not in SHAPES or b not in SHAPES or order not in ORDERS:
        raise BadValue(f"a and b are 'd x r' or 'r x d' and order is 'B A' or 'A B', not {a!r}, {b!r} and {order!r}")
    rng = np.random.default_rng(0)
    matrices = {"A": _drawn(rng, a, d, rank), "B": _drawn(rng, b, d, rank)}
    first, second = (matrices[name] for name in order.split())
    settings, shapes = (
        {"A": a, "B": b, "order": order},
        f"{first.shape[0]} x {first.shape[1]} times {second.shape[0]} x {second.shape[1]}",
    )
    if first.shape[1] != second.shape[0]:
        return Finding((Case(settings, False, f"{shapes} cannot be multiplied"),), (MULTIPLIED,))
    product = first @ second
    found = f"{shapes} is {product.shape[0]} x {product.shape[1]}, and W is {d} x {d}"
    loud = "" if product.size > 1 or d == 1 else "At rank 1 a program adds the one number to all of W and says nothing."
    return Finding((Case(settings, product.shape == (d, d), found),), (MULTIPLIED,), note=loud)


MULTIPLIED = "random matrices multiplied here and now"


def _drawn(rng: np.random.Generator, shape: str, d: int, rank: int) -> np.ndarray:
    return rng.standard_normal((d, rank) if shape == "d x r" else (rank, d))


@experiment
def two_d_r(models: list[str], targets: str, rank: int) -> Finding:
    """Does each adapted matrix go from d^2 numbers to 2 d r, d being the model's width, and are those fewer?"""
    cases = [_matrix(architecture_of(m), row, rank) for m in models for row in _adapted(m, targets, rank)]
    return Finding(
        tuple(cases),
        (COUNTED,),
        note="In general it is r (d_in + d_out), below d_in d_out where r is below the break-even rank.",
    )


def _adapted(model: str, targets: str, rank: int) -> list[Row]:
    return [row for row in params(model, LoRA(rank, targets=roles(targets))).modules if row.trained]


def _matrix(a: Architecture, row: Row, rank: int) -> Case:
    inputs, outputs, trained = row.in_features, row.out_features, row.trained // row.count
    shape = "square" if inputs == outputs == a.hidden else "not d x d"
    settings = {"shape": shape, "model": a.name, "matrix": row.role}
    holds = shape == "square" and trained == 2 * a.hidden * rank < a.hidden**2
    return Case(
        settings,
        holds,
        f"{inputs:,} x {outputs:,} = {inputs * outputs:,} numbers, {trained:,} train; 2 d r is {2 * a.hidden * rank:,}",
    )


@experiment
def times_fewer(models: list[str], targets: list[str], ranks: list[int], low: float, high: float) -> Finding:
    """Does LoRA train between `low` and `high` times fewer numbers than the model has? "dense": the whole zoo."""
    cases = [_fewer(m, t, r, low, high) for m in _models(models) for t in targets for r in ranks]
    ratios = [ratio for _, ratio in cases]
    figures = {"lowest": min(ratios), "highest": max(ratios)}
    note = f"From {min(ratios):,.0f} to {max(ratios):,.0f} times fewer; the task's head is not counted."
    return Finding(tuple(case for case, _ in cases), (COUNTED,), note=note, figures=figures)


def _fewer(model: str, targets: str, rank: int, low: float, high: float) -> tuple[Case, float]:
    a = architecture_of(model)
    ratio = a.total / params(a, LoRA(rank, targets=roles(targets))).trainable
    settings = {"model": model, "targets": targets, "rank": rank}
    return Case(settings, low <= ratio <= high, f"{ratio:,.0f} times fewer"), ratio


def _models(names: list[str]) -> list[str]:
    """Names of the zoo; "dense" stands for all that are no mixtures of experts."""
    dense = [name for name in zoo_names() if not architecture_of(name).experts]
    return [model for name in names for model in (dense if name == "dense" else [name])]


@experiment
def everything_is_full(models: list[str], targets: str, rank: int, share: float) -> Finding:
    """Do adapters on all these matrices train at least this share of the model, as full fine-tuning trains it all?"""
    counted = [params(model, LoRA(rank, targets=roles(targets))) for model in models]
    cases = [
        Case({"model": c.model}, c.fraction >= share, f"{c.trainable:,} of {c.total:,} train, {c.fraction:.2%}")
        for c in counted
    ]
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
    return Finding(
        (Case({"ranks": said([rank, larger])}, large < small, found),),
        ("a random matrix and its singular values, here and now",),
        note=note,
    )
