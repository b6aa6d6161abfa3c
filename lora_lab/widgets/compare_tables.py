"""The compare panel's pictures in numbers: a table for each kind, of what that picture draws."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from lora_lab.accounting.units import MIB
from lora_lab.plots.compared import Found, each_of, label_of, name_of, rate_said, scaled, trainable, tried_of
from lora_lab.plots.towers import STYLES
from lora_lab.widgets.shown import Table


def tables(kind: str, found: Found) -> Iterator[Table]:
    """What the picture of a kind (`plots.methods.KINDS`) draws of a comparison, in numbers."""
    made = {"quality": _quality, "rates": _rates, "memory": _memory, "time": _time}
    yield made[kind](found, found["metric"])


def _quality(found: Found, metric: str) -> Table:
    rows = [(label_of(row), f"{trainable(row):,}", *_spread(each_of(row, metric), metric)) for row in found["methods"]]
    return Table(f"test {name_of(metric)}", ("method", "numbers that train", "mean", "each seed"), rows)


def _spread(values: list[float], metric: str) -> tuple[str, str]:
    each = [scaled(value, metric) for value in values]
    return (f"{fmean(each):.1f}", " ".join(f"{value:.1f}" for value in each)) if each else ("-", "-")


def _rates(found: Found, metric: str) -> Table:
    """A line for each method: every rate with its validation; the chosen one marked in words."""
    rows = [
        (label_of(row), "; ".join(_tried(rate, value, row, metric) for rate, value in tried_of(row)))
        for row in found["methods"]
        if tried_of(row)
    ]
    return Table(f"validation {name_of(metric)} at each rate that was tried", ("method", "rate: validation"), rows)


def _tried(rate: float, value: float, row: Found, metric: str) -> str:
    return f"{rate_said(rate)}: {scaled(value, metric):.1f}{' (chosen)' if rate == row.get('lr') else ''}"


def _memory(found: Found, _: str) -> Table:
    parts = [name for name in STYLES if any(name in (row.get("predicted_parts") or {}) for row in found["methods"])]
    rows = [
        (label_of(row), *(_mib((row.get("predicted_parts") or {}).get(name)) for name in parts),
         _mib(row.get("predicted_bytes")), _mib(row.get("peak_bytes")))
        for row in found["methods"]
    ]  # fmt: skip
    return Table("peak of a step, MiB (2^20 bytes)", ("method", *parts, "predicted", "measured"), rows)


def _time(found: Found, _: str) -> Table:
    rows = [
        (label_of(row), f"{row['seconds']:.3g}", str(row.get("added_tokens") or 0))
        for row in sorted(found["methods"], key=lambda row: row.get("seconds") or 0)
        if row.get("seconds")
    ]
    return Table("a run, mean over the seeds", ("method", "seconds", "tokens added"), rows)


def _mib(count: Any) -> str:
    return f"{count / MIB:,.1f}" if count else "-"
