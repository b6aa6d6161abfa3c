"""A training step as a film: what is live at every moment, by category, in a few kilobytes of JSON.

A moment differs from the one before by a few bytes of one or two categories, and does so in every layer again. So a
film is a table of changes, polynomials like those of a `Fit`, and a list of which comes when, in which repeats are
written once. Added up, the changes give every moment of every layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from lora_lab.accounting.fit import NUMBER, STEP, Fit, NoFit, Regime, plain
from lora_lab.accounting.memory import (
    Moment,
    cache_file,
    checked,
    compact,
    key_of,
    made,
    packed,
    read_fits,
    regime_of,
    traced,
)  # fmt: skip
from lora_lab.accounting.setup import Setup, optimizer_states, optimizer_temporaries
from lora_lab.errors import BadValue
from lora_lab.files import write_atomically

CATEGORIES = ("weights", "optimizer", "gradients", "activations", "logits", "temporaries")


def filmed(model: Any, method: Any, setup: Setup, *, num_labels: int = 2) -> dict[str, Any]:
    """A step's film, made with a progress bar where it is not in this user's cache.

    A case that cannot be interpolated is traced: `of_timeline`. Raises: as `memory`.
    """
    _, config = checked(model, method, setup)
    try:
        regime = regime_of(config, method, replace(setup, batch=max(2, setup.batch)))  # one row has the same peak
        cached, key = cache_file(config), f"film {key_of(method, setup, regime, num_labels)}"
        if (text := read_fits(cached).get(key)) is not None:
            found: dict[str, Any] = json.loads(text)
            return found
        found = film(made(config, method, setup, regime, num_labels, every_layer=True))
        with suppress(BadValue):  # a cache that cannot be written is no reason to stop
            write_atomically(cached, packed(read_fits(cached) | {key: compact(found)}))
    except NoFit:
        found = of_timeline(traced(config, method, setup, num_labels).timeline, setup)
    return found


def film(fit: Fit) -> dict[str, Any]:
    """A fit with every layer as plain values.

    parts     [phase, path of a part of the model], a star for the layer's number
    changes   [part, layers further, category, monomial, value, category, monomial, value, ...]
    moments   a change's number for each moment; [times, ...] for what repeats
    trained   as in a fit
    ranked, low, high    as in a fit's regime
    """
    from lora_lab.accounting.tracker import block  # imports torch

    own = np.eye(len(CATEGORIES))[[CATEGORIES.index(category) for category, _ in fit.labels]]
    live = np.einsum("mlk,lc->mck", fit.coefficients, own)  # (moments, categories, monomials)
    parts: dict[tuple[str, str], int] = {}
    changes: dict[tuple[float, ...], int] = {}
    moments: list[int] = []
    before, layer, last = np.zeros_like(live[0]), 0, ""
    for now, (phase, path) in zip(live, fit.moments, strict=True):
        entries = [(int(c), int(m), plain((now - before)[c, m])) for c, m in np.argwhere(now != before)]
        if not entries and phase == last:
            continue  # bytes that went from one part of the model to another
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
        "trained": fit.trained,
        "ranked": fit.regime.ranked,
        "low": fit.regime.low,
        "high": fit.regime.high,
    }


def of_timeline(timeline: Sequence[Moment], setup: Setup) -> dict[str, Any]:
    """The film of one very step, traced or measured: it holds for this batch and length alone, its optimizer with it.

    fixed   [batch, tokens]
    """
    live = np.array([[[moment.bytes.get(category, 0)] for category in CATEGORIES] for moment in timeline], dtype=float)
    labels = [(category, "") for category in CATEGORIES]
    moments = [(moment.phase, moment.path) for moment in timeline]
    told = film(Fit(Regime(True, setup.seq, setup.seq), labels, moments, live, [], [0.0]))
    return told | {"fixed": [setup.batch, setup.seq]}


def moments(told: dict[str, Any], rank: int, setup: Setup) -> list[Moment]:
    """A film's moments for a rank and a setup's batch, length and optimizer; a star stands for a layer's number."""
    b, t = float(setup.batch), float(setup.seq)
    basis = np.array([1, b, t, b * t, b * t * t, t * t])
    vector = np.concatenate([basis, rank * basis] if told["ranked"] else [basis])
    changes = np.zeros((len(told["changes"]), len(CATEGORIES)))
    for row, (_, _, *entries) in zip(changes, told["changes"], strict=True):
        for category, monomial, value in zip(entries[::3], entries[1::3], entries[2::3], strict=True):
            row[category] += value * (1 if "fixed" in told else vector[monomial])
    order = unfolded(told["moments"])
    parts = [told["parts"][told["changes"][change][0]] for change in order]
    live = changes[order].cumsum(axis=0)
    if "fixed" not in told:
        own = rank if told["ranked"] else 0
        weights = [(number + slope * own, width, count) for number, slope, width, count in told["trained"]]
        states = sum(count * sum(optimizer_states(number, width, setup)) for number, width, count in weights)
        live[:, CATEGORIES.index("optimizer")] += states
        step = [phase == STEP for phase, _ in parts]
        live[step, CATEGORIES.index("temporaries")] += sum(optimizer_temporaries(weights, setup))
    whole = live.round().astype(int).tolist()
    return [
        Moment(phase, path, dict(zip(CATEGORIES, row, strict=True)))
        for (phase, path), row in zip(parts, whole, strict=True)
    ]


def folded(numbers: Sequence[int]) -> list[Any]:
    """A list with what repeats in it, the longest first, as [times, ...]."""
    whole = np.array(numbers)
    best = (0, 0, 0, 0)  # numbers spared, start, length, times
    for length in range(1, len(whole) // 2 + 1):
        same = np.concatenate([[False], whole[length:] == whole[:-length], [False]])
        edges = np.flatnonzero(np.diff(same.astype(int)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            more = int(end - start) // length
            best = max(best, (more * length, -int(start), -length, more + 1))
    spared, start, length, times = best[0], -best[1], -best[2], best[3]
    if spared < 4:
        return list(numbers)
    end = start + length * times
    inner = [times, *folded(numbers[start : start + length])]
    return [*folded(numbers[:start]), inner, *folded(numbers[end:])]


def unfolded(folds: Sequence[Any]) -> list[int]:
    """The inverse of `folded`."""
    flat: list[int] = []
    for one in folds:
        flat += one[0] * unfolded(one[1:]) if isinstance(one, list) else [one]
    return flat
