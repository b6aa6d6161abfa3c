"""The report: one Markdown file of all items, with a table, a picture and a verdict each, whole at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles, stdev
from typing import Any

from lora_course.paper import markdown_table
from lora_course.paper.reproduce.base import in_words
from lora_lab.files import write_atomically

FEW = 8  # values that are all written out
SIGNS = {one: f"the finding **{one}** here" for one in ("holds", "fails")}
SIGNS |= {one: f"**{one}**" for one in ("undecided", "not tested")}
SHARED = ", without the training that it shares with other items"
RULED = {"before": "Rule, written before the run", "after": "Rule, written after this run and applied to its figures"}
HEAD = """# The paper, done again at laptop scale

Surrogates of Hu et al. 2021 (arXiv 2106.09685v2): small models, other data. Their figures cannot equal the published
ones. The question is whether a *finding* of the paper is found here, and a rule answers it: it holds, it fails, it is
undecided, or it was not tested, because the runs were too short or learned too little to tell. Every seed is shown.
"""


def write_report(results: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Write FOLDER/report.md from results; pictures are named ITEM.png beside it."""
    found = list(results)
    parts = [HEAD, summary(found), *(section(one) for one in found)]
    write_atomically(folder / "report.md", "\n".join(parts).encode())
    return folder / "report.md"


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for each item."""
    lines = [
        (f"[{one['item']}](#{one['item']})", one["title"], _standing(one), f"{one['seconds'] / 60:.1f}")
        for one in sorted(results, key=lambda one: list(SIGNS).index(one["standing"]))
    ]
    return f"{markdown_table(('item', 'what', 'verdict', 'minutes'), lines)}\n"


def section(one: Mapping[str, Any]) -> str:
    """One item in full."""
    notes = [f"- *The paper's table:* {words}" for words in one["discrepancies"]]
    expected = [f"- *Reported by others:* {name}: {words}" for name, words in one["expected"].items()]
    return "\n".join(
        [
            f"## {one['item']}\n\n### {one['title']}\n",
            f"- *Stands beside:* {one['source']}",
            f"- *Finding:* {one['finding']}",
            f"- *{RULED[one.get('ruled', 'before')]}:* {one['rule']}",
            f"- *Verdict:* {_standing(one)}. {one['error'] or one['words']}",
            f"- *Limits:* {one['limits']}",
            *expected,
            *notes,
            f"- *Took* {one['seconds'] / 60:.1f} min{SHARED if one.get('shares') else ''} "
            f"(budget {one['budget_minutes']:g}); {_where(one)}",
            "",
            *([_rows(one), "", f"![{alt(one)}]({one['item']}.png)", ""] if one["rows"] else []),
        ]
    )


def alt(one: Mapping[str, Any]) -> str:
    """The picture in words."""
    return f"{one['title']}, every value a dot: {one['standing']}"


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and every value; of many the median and quartiles."""
    if not values:
        return "-"
    if len(values) > FEW:
        low, middle, high = quantiles(values, n=4)
        return f"{_number(middle)} (quartiles {_number(low)} to {_number(high)}, {len(values)} of them)"
    about = f" ± {_number(stdev(values))}" if len(values) > 1 else ""
    each = f" ({', '.join(map(_number, values))})" if len(values) > 1 else ""
    return f"{_number(fmean(values))}{about}{each}"


def _rows(one: Mapping[str, Any]) -> str:
    lines = [
        (row["name"], row["published"] or "-", row["expected"] or "-", spread(row["yours"]), row["unit"])
        for row in one["rows"]
    ]
    return markdown_table(("", "published", "expected", "yours", "unit"), lines)


def _standing(one: Mapping[str, Any]) -> str:
    return "**not run**" if one["error"] else SIGNS[one["standing"]]


def _where(one: Mapping[str, Any]) -> str:
    made = one["environment"]
    sizes = in_words(one["sizes"])
    return f"{sizes}{', ' * bool(sizes)}{made['hardware']}, {made['date']}, lora_lab {made['lora_lab']}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
