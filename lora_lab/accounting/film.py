"""A training step as a film: what is live at every moment, by category, in a few kilobytes of JSON.

A film is a table of changes and a list of their order, with repeats folded. Changes are polynomials, as in a `Fit`,
and recur in every layer. All changes up to a moment add up to what is live at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lora_lab.accounting.fit import NUMBER, Fit, NoFit, Regime, fit, plain
from lora_lab.accounting.memory import (
    Estimate,
    cache_file,
    checked,
    compact,
    keep,
    key_of,
    regime_of,
    traced,
    with_optimizer,
)  # fmt: skip
from lora_lab.accounting.setup import Moment, Setup
from lora_lab.files import read_json

CATEGORIES = ("weights", "optimizer", "gradients", "activations", "logits", "temporaries")


def filmed(model: Any, method: Any, setup: Setup, *, num_labels: int = 2) -> dict[str, Any]:
    """The film of a step, from this user's cache or made with a progress bar and cached.

    A case that cannot be interpolated is traced, see `of_estimate`. Raises: as `memory`.
    """
    _, config = checked(model, method, setup)
    try:
        regime = regime_of(config, method, replace(setup, batch=max(2, setup.batch)))  # one row has the same peak
        file = cache_file(config, f"film {key_of(method, setup, regime, num_labels)}")
        if file.exists():
            return read_json(file)
        found = film(fit(config, method, setup, regime, num_labels, every_layer=True))
        keep(file, compact(found))
    except NoFit:
        found = of_estimate(traced(config, method, setup, num_labels), setup)
    return found


def film(step: Fit) -> dict[str, Any]:
    """The film of a fit that has every layer, as JSON values.

    parts     [phase, path of a part of the model with * for the layer's number]
    changes   [part, layers further, category, monomial, value, category, monomial, value, ...]
    moments   the index of a change for each moment; [times, ...] for repeats
    trained   as in `Fit`
    ranked, low, high    as in `Regime`
    """
    from lora_lab.accounting.tracker import block  # imports torch

    own = np.eye(len(CATEGORIES))[[CATEGORIES.index(category) for category, _ in step.labels]]
    live = np.einsum("mlk,lc->mck", step.coefficients, own)  # (moments, categories, monomials)
    parts: dict[tuple[str, str], int] = {}
    changes: dict[tuple[float, ...], int] = {}
    moments: list[int] = []
    before, layer, last = np.zeros_like(live[0]), 0, ""
    for now, (phase, path) in zip(live, step.moments, strict=True):
        entries = [(int(c), int(m), plain((now - before)[c, m])) for c, m in np.argwhere(now != before)]
        if not entries and phase == last:
            continue  # bytes only moved from one part of the model to another
        found = NUMBER.search(path)
        here = int(found[1]) if found else layer
        part = parts.setdefault((phase, block(path)), len(parts))
        change = (part, here - layer, *(number for entry in entries for number in entry))
        moments.append(changes.setdefault(change, len(changes)))
        before, layer, last = now, here, phase
    return {
        "parts": [list(part) for part in parts],
        "changes": [list(change) for change in changes],
        "moments": folded(moments),
        "trained": step.trained,
        "ranked": step.regime.ranked,
        "low": step.regime.low,
        "high": step.regime.high,
    }


def of_estimate(step: Estimate, setup: Setup) -> dict[str, Any]:
    """The film of one traced or measured step, optimizer included: it holds for this batch and length only.

    fixed   [batch, tokens]
    """
    fit = Fit(Regime(True, setup.seq, setup.seq), [*step.labels], [*step.moments], step.live[..., None], [], [0.0])
    return film(fit) | {"fixed": [setup.batch, setup.seq]}


def moments(told: dict[str, Any], rank: int, setup: Setup) -> tuple[Moment, ...]:
    """A film's moments for a rank and a setup's batch, length and optimizer; in paths, * is the layer's number."""
    fixed, ranked = "fixed" in told, told["ranked"]
    vector = np.ones(1) if fixed else Regime(False, 0, 0, ranked).vector((setup.batch, setup.seq, rank))
    changes = np.zeros((len(told["changes"]), len(CATEGORIES)))
    for row, (_, _, *entries) in zip(changes, told["changes"], strict=True):
        for category, monomial, value in zip(entries[::3], entries[1::3], entries[2::3], strict=True):
            row[category] += value * vector[monomial]
    order = unfolded(told["moments"])
    parts = [told["parts"][told["changes"][change][0]] for change in order]
    labels = [(category, "") for category in CATEGORIES]
    step = Estimate("predicted", parts, labels, changes[order].cumsum(axis=0))
    return (step if fixed else with_optimizer(step, told["trained"], rank * ranked, setup)).timeline


def folded(numbers: Sequence[int]) -> list[Any]:
    """A list with its longest repeat as [times, ...], and the same again inside, before and after it."""
    whole, best = np.array(numbers), (0, 0, 0)  # numbers spared, -start, -length
    for length in range(1, len(whole) // 2 + 1):
        same = np.concatenate([[False], whole[length:] == whole[:-length], [False]])
        for start, end in np.flatnonzero(np.diff(same)).reshape(-1, 2).tolist():
            best = max(best, ((end - start) // length * length, -start, -length))
    spared, start, length = best[0], -best[1], -best[2]
    if spared < 4:
        return list(numbers)
    inner = [spared // length + 1, *folded(numbers[start : start + length])]
    return [*folded(numbers[:start]), inner, *folded(numbers[start + spared + length :])]


def unfolded(folds: Sequence[Any]) -> list[int]:
    """The inverse of `folded`."""
    flat: list[int] = []
    for one in folds:
        flat += one[0] * unfolded(one[1:]) if isinstance(one, list) else [one]
    return flat
