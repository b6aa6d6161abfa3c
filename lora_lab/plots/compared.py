"""What pictures of a comparison share: how a row of `lora-lab compare --json` is read, its looks, finished axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator

from lora_lab.plots import BLACK, BLUE, GREEN, GREY, METRICS, ORANGE, PURPLE, RED, SKY, Picture
from lora_lab.training.metrics import factor

Found = Mapping[str, Any]
LOOKS = {  # colour by family, marker by method
    "full": (BLACK, "s"),
    "lora": (BLUE, "o"),
    "head": (GREY, "v"),
    "probe": (GREY, "X"),
    "prompt": (ORANGE, "^"),
    "ptuning": (ORANGE, ">"),
    "prefix": (ORANGE, "<"),
    "bitfit": (GREEN, "D"),
    "bottleneck": (RED, "P"),
    "ia3": (PURPLE, "*"),
}
NAMES = {
    **METRICS,
    "macro_f1": "macro F1 (%)",
    "perplexity": "perplexity (lower is better)",
    "slot_errors": "slot errors (%, lower is better)",
    "bleu": "BLEU (0 to 100)",
}
SHARES = ("accuracy", "macro_f1", "slot_errors")  # whose differences are points
LOWER = ("perplexity", "slot_errors", "loss")


def new_axes(width: float, height: float, *grid: int, **how: Any) -> tuple[Picture, Any]:
    """A picture of so many inches and its axes, one pair or, as `subplots` takes them, a grid of rows and columns."""
    picture = Picture(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    return picture, picture.subplots(*grid, **how)


def finish(axes: Any, title: str, below: str, grid: str = "both") -> None:
    """The finding above, what is drawn below, a grid behind."""
    width = axes.figure.get_figwidth()
    axes.figure.suptitle(fill(capital(title), int(11.8 * width)), fontsize=10)
    axes.set_xlabel(f"{axes.get_xlabel()}\n{fill(below, int(13 * width))}".strip(), fontsize=8)
    axes.yaxis.label.set_size(9)
    axes.tick_params(labelsize=8)
    tidy(axes, grid)


def tidy(axes: Any, grid: str = "both") -> None:
    """A white face, a pale grid behind what is drawn, and no frame above and at the right."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e9e9e9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def whole_powers(axes: Any) -> None:
    """Ticks at powers of ten only, written as numbers that people say."""
    low, high = (math.log10(end) for end in axes.get_xlim())
    powers = range(math.floor(low), math.ceil(high) + 1)
    axes.set_xlim(10.0 ** powers[0], 10.0 ** powers[-1])
    axes.xaxis.set_major_locator(FixedLocator([10.0**p for p in powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{10**p:,}" for p in powers])


def behind_words(reference: Found | None) -> str:
    """What the pale marks are: whose, where and when made."""
    if reference is None:
        return ""
    made = reference.get("environment") or {}
    parts = [f"{len(reference['seeds'])} seeds of {reference['steps']} steps", made.get("hardware"), made.get("date")]
    return f"; pale: the reference ({', '.join(str(part) for part in parts if part)})"


def each_of(row: Found, metric: str) -> list[float]:
    """The test metric of every seed."""
    return list((row.get(metric) or {}).get("each") or ())


def tried_of(row: Found) -> list[tuple[float, float]]:
    """(rate, validation) of each rate that has been tried, lowest first."""
    tried = row.get("tried") or ()
    return sorted((t["lr"], t["validation"]) for t in tried if t.get("lr") and t.get("validation") is not None)


def label_of(row: Found) -> str:
    """The name of a method with its settings: "LoRA r8 q,v"."""
    return str(row.get("label") or row["method"])


def look_of(row: Found) -> tuple[str, str]:
    """Colour and marker."""
    return LOOKS.get(row["method"], (SKY, "h"))


def capital(sentence: str) -> str:
    """The sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def rate_said(rate: float) -> str:
    """0.002, 5e-5: as people write it."""
    return f"{rate:.2g}".replace("e-0", "e-")


def name_of(metric: str) -> str:
    """The metric as it stands on an axis."""
    return NAMES.get(metric, metric)


def trainable(row: Found) -> int:
    """Numbers that train, those of the head included."""
    return int((row.get("trainable") or 0) + (row.get("head") or 0))


def scaled(value: float, metric: str) -> float:
    """A metric as it is drawn: shares in per cent."""
    return factor(metric) * value
