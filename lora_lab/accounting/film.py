"""Store a training step as a film: the live bytes at every moment, by category, in a few kilobytes of JSON.

A film holds a table of changes and their order. A repeated sequence is stored once, with a count. Changes are
polynomials, as in a `Fit`, and recur in every layer. The live bytes at a moment are the sum of all changes so far.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lora_lab.accounting import memory
from lora_lab.accounting.fit import Fit, NoFit, Regime, fit
from lora_lab.accounting.models import layer_of
from lora_lab.accounting.setup import Moment, Setup

CATEGORIES = ("weights", "optimizer", "gradients", "activations", "logits", "temporaries")


def filmed(model: Any, method: Any, setup: Setup) -> dict[str, Any]:
    """Return the film of a step from the user's cache. If the film isn't there, make and cache it, with a progress bar.

    A case that cannot be interpolated is traced instead; see `of_estimate`. Raises: see `memory`.
    """
    config = memory.checked(model, method, setup)
    several = replace(setup, batch=max(2, setup.batch))  # a film for several rows also has the right peak for one row
    try:
        regime = memory.regime_of(config, method, several)
        key = f"film {memory.key_of(method, setup, regime)}"
        text = memory.cached(config, key, method, lambda: film(fit(config, method, setup, regime, every_layer=True)))
        return json.loads(text)
    except NoFit:
        return of_estimate(memory.traced(config, method, setup), setup)


def film(step: Fit) -> dict[str, Any]:
    """Return the film of a fit that covers every layer, as JSON values.

    parts     [phase, path of a part of the model, with * for the layer index] lists.
    changes   [part, offset from the previous layer, category, monomial, value, category, monomial, value, ...] lists.
    moments   The index of the change at each moment. A repeated sequence becomes [times, ...].
    trained   See `Fit`.
    ranked, low, high    See `Regime`.
    """
    from lora_lab.accounting.tracker import block  # imports torch

    one_hot = np.eye(len(CATEGORIES))[[CATEGORIES.index(category) for category, _ in step.labels]]
    live = np.einsum("mlk,lc->mck", step.coefficients, one_hot)  # (moments, categories, monomials)
    parts: dict[tuple[str, str], int] = {}
    changes: dict[tuple[float, ...], int] = {}
    moments: list[int] = []
    last_bytes, last_layer, last_phase = np.zeros_like(live[0]), 0, ""
    for current, (phase, path) in zip(live, step.moments, strict=True):
        delta = (current - last_bytes).round(3)
        entries = [(c, m, delta[c, m].item()) for c, m in np.argwhere(delta).tolist()]
        if not entries and phase == last_phase:
            continue  # bytes have only moved from one part of the model to another
        layer = last_layer if (index := layer_of(path)) is None else index
        part = parts.setdefault((phase, block(path)), len(parts))
        change = (part, layer - last_layer, *(number for entry in entries for number in entry))
        moments.append(changes.setdefault(change, len(changes)))
        last_bytes, last_layer, last_phase = current, layer, phase
    return {
        "parts": [list(part) for part in parts],
        "changes": [list(change) for change in changes],
        "moments": folded(moments),
        "trained": step.trained,
        **{name: getattr(step.regime, name) for name in ("ranked", "low", "high")},
    }


def of_estimate(step: memory.Estimate, setup: Setup) -> dict[str, Any]:
    """Return the film of a traced or measured step, including the optimizer. It holds only for this batch and length.

    fixed   The only batch and length for which the film is valid, [batch, tokens].
    """
    constant = Fit(Regime(True, setup.seq, setup.seq), [*step.labels], [*step.moments], step.live[..., None], [], [0.0])
    return film(constant) | {"fixed": [setup.batch, setup.seq]}


def moments(data: dict[str, Any], rank: int, setup: Setup) -> tuple[Moment, ...]:
    """Return a film's moments for a rank and a setup's batch, length and optimizer. In paths, `*` is a layer index."""
    fixed, ranked = "fixed" in data, data["ranked"]
    vector = np.ones(1) if fixed else Regime(False, 0, 0, ranked).vector((setup.batch, setup.seq, rank))
    changes = np.zeros((len(data["changes"]), len(CATEGORIES)))
    for row, (_, _, *entries) in zip(changes, data["changes"], strict=True):
        for category, monomial, value in zip(entries[::3], entries[1::3], entries[2::3], strict=True):
            row[category] += value * vector[monomial]
    order = unfolded(data["moments"])
    parts = [data["parts"][data["changes"][change][0]] for change in order]
    labels = [(category, "") for category in CATEGORIES]
    step = memory.Estimate("predicted", parts, labels, changes[order].cumsum(axis=0))
    return (step if fixed else memory.with_optimizer(step, data["trained"], rank * ranked, setup)).timeline


def folded(numbers: Sequence[int]) -> list[Any]:
    """Replace the longest repeat in a list with [times, ...], and do the same inside, before and after the repeat."""
    items, best = np.array(numbers), (0, 0, 0)  # numbers saved, -start, -length
    for length in range(1, len(items) // 2 + 1):
        same = np.concatenate([[False], items[length:] == items[:-length], [False]])
        for start, end in np.flatnonzero(np.diff(same)).reshape(-1, 2).tolist():
            best = max(best, ((end - start) // length * length, -start, -length))
    saved, start, length = best[0], -best[1], -best[2]
    if saved < 4:
        return list(numbers)
    inner = [saved // length + 1, *folded(numbers[start : start + length])]
    return [*folded(numbers[:start]), inner, *folded(numbers[start + saved + length :])]


def unfolded(folds: Sequence[Any]) -> list[int]:
    """Reverse `folded`."""
    flat: list[int] = []
    for item in folds:
        flat += item[0] * unfolded(item[1:]) if isinstance(item, list) else [item]
    return flat
