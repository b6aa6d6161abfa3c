"""What the compare panel says: the table with every seed and verdict, and where a comparison stands."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lora_lab.accounting.units import binary
from lora_lab.plots.compared import LOWER, Found, each_of, label_of, name_of, rate_said, scaled, trainable
from lora_lab.plots.methods import finding
from lora_lab.widgets.live_compare import LiveCompare
from lora_lab.widgets.panel import cannot, escape, tabled

HEADS = (
    "rate", "each seed", "against full fine-tuning", "against probe", "trains", "file", "memory predicted",
    "measured", "seconds", "tokens added",
)  # fmt: skip


def standing(live: LiveCompare) -> str:
    """Where a comparison stands, what it found so far, and how it goes on."""
    number = f"{live.done} of {len(live.methods)} methods"
    found = f" {escape(finding(live.found))}." if live.found else ""
    if live.error:
        return f"{cannot(live.error)} {number}.{found}"
    if live.alive:
        keeps = "Stop keeps what has finished; a kernel interrupt does not stop it."
        return f"<b>{live.doing}</b>: {number}. {escape(live.words)}.{found} {keeps}"
    if live.state == "ready":
        return f"<b>ready</b>: {len(live.methods)} methods. Press Start; what is in the store is not trained again."
    resumes = " Start goes on with the rest." if live.state == "stopped" else ""
    return f"<b>{live.state}</b>: {number}.{resumes}{found}"


def table(found: Found) -> str:
    """A line for each method, best mean first: what it found, with every seed, and what it costs."""
    metric = found["metric"]
    rows = sorted(found["methods"], key=lambda row: _place(row, metric))
    heads = ("method", f"test {name_of(metric)}", *HEADS)
    lines = [_cells(row, metric) for row in rows]
    rates = max((len(row.get("tried") or ()) for row in rows), default=0)
    seeds = f"{len(found['seeds'])} seed{'s' * (len(found['seeds']) != 1)}"
    terms = (
        f"{found['model']} on {found['task']}, {found['steps']} steps of {found['batch']} rows; each rate chosen on "
        f"validation from at most {rates} tried; test scored once a run, {seeds} of each method."
    )
    look = {"cells": "white-space:nowrap", "style": "overflow-x:auto; font-size:12px"}
    return f"<p>{escape(terms)}</p>{tabled('methods, best first', heads, lines, **look)}"


def _cells(row: Mapping[str, Any], metric: str) -> list[str]:
    values = [scaled(value, metric) for value in each_of(row, metric)]
    return [
        escape(label_of(row)),
        f"<b>{fmean(values):.1f}</b>" if values else f"none: {escape(str(row.get('error')))}",
        escape(_tuned(row)) + (" (edge)" if row.get("edge") else ""),
        " ".join(f"{value:.1f}" for value in values),
        *(_verdict(row, other) for other in ("full", "probe")),
        f"{trainable(row):,}",
        *(
            binary(row[key]) if row.get(key) is not None else "-"
            for key in ("adapter_bytes", "predicted_bytes", "peak_bytes")
        ),
        f"{row['seconds']:.3g}" if row.get("seconds") else "-",
        str(row.get("added_tokens") or 0),
    ]


def _tuned(row: Mapping[str, Any]) -> str:
    """The rate, or of a method without one what is tuned in its place: "l2 0.1"."""
    if row.get("lr"):
        return rate_said(row["lr"])
    names = [name for one in row.get("tried") or () for name in one if name != "validation"]
    return f"{names[0]} {row['settings'][names[0]]:g}" if names and names[0] in row["settings"] else "none"


def _verdict(row: Mapping[str, Any], other: str) -> str:
    """The kind, and on hovering or listening the whole sentence."""
    verdict = (row.get("against") or {}).get(other)
    return f"<span title='{escape(verdict['words'])}'>{escape(verdict['kind'])}</span>" if verdict else "-"


def _place(row: Mapping[str, Any], metric: str) -> float:
    values = each_of(row, metric)
    mean = fmean(values) if values else float("inf")
    return mean if metric in LOWER or not values else -mean


def verdicts(found: Found) -> str:
    """Every verdict against full fine-tuning as a sentence, for those who do not hover."""
    lines = [
        f"<li>{escape(label_of(row))} against full fine-tuning: {escape(row['against']['full']['words'])}</li>"
        for row in found["methods"]
        if "full" in (row.get("against") or {})
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""
