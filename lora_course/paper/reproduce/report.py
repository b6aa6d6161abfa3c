"""The report: one Markdown file with a picture of all results, and a section for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles, stdev
from typing import Any

from lora_course.paper import markdown_table
from lora_course.paper.reproduce.base import in_words
from lora_lab.files import write_atomically

FEW = 8  # up to this many values, all are written out
SIGNS = {
    "holds": "the finding **holds** here", "fails": "the finding **fails** here", "undecided": "**undecided**",
    "not tested": "**not tested**",
}  # fmt: skip
RULED = {"before": "Rule, written before the run", "after": "Rule, written after this run and applied to its figures"}
HEAD = """# The paper, done again at laptop scale

Surrogates of Hu et al. 2021 (arXiv 2106.09685v2): small models, other data. Their numbers cannot equal the published
ones. The question is whether a *finding* of the paper is found here, and a rule answers it: it holds, it fails, it is
undecided, or it was not tested, because the runs were too short or learned too little to tell. Every seed is shown.

![Each effect with its interval against the limit of its rule](report.png)
"""


def write_report(results: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Write FOLDER/report.md, which shows report.png beside it."""
    found = list(results)
    lines = [
        (f"[{one['item']}](#{one['item']})", one["title"], _sign(one), f"{one['seconds'] / 60:.1f}")
        for one in sorted(found, key=lambda one: list(SIGNS).index(one["standing"]))
    ]
    summary = markdown_table(("item", "what", "verdict", "minutes"), lines)
    write_atomically(folder / "report.md", "\n".join([HEAD, f"{summary}\n", *map(section, found)]).encode())
    return folder / "report.md"


def section(one: Mapping[str, Any]) -> str:
    """One item in full."""
    made, shared = one["environment"], ", without the training that it shares with other items"
    where = (in_words(one["sizes"]), made["hardware"], made["date"], f"lora_lab {made['lora_lab']}")
    rows = [(row["name"], row["published"] or "-", row["expected"] or "-", spread(row["yours"]), row["unit"])
            for row in one["rows"]]  # fmt: skip
    lines = [
        f"## {one['item']}\n\n### {one['title']}\n",
        f"- *Stands beside:* {one['source']}",
        f"- *Finding:* {one['finding']}",
        f"- *{RULED[one.get('ruled', 'before')]}:* {one['rule']}",
        f"- *Verdict:* {_sign(one)}. {one['error'] or one['words']}",
        f"- *Limits:* {one['limits']}",
        *(f"- *Reported by others:* {name}: {words}" for name, words in one["expected"].items()),
        *(f"- *The paper's table:* {words}" for words in one["discrepancies"]),
        f"- *Took* {one['seconds'] / 60:.1f} min{shared if one.get('shares') else ''} "
        f"(budget {one['budget_minutes']:g}); {', '.join(filter(None, where))}",
        "",
        *([markdown_table(("", "published", "expected", "yours", "unit"), rows), ""] if rows else []),
    ]
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and every value; of many the median and quartiles."""
    if not values:
        return "-"
    if len(values) > FEW:
        low, middle, high = map(_number, quantiles(values, n=4))
        return f"{middle} (quartiles {low} to {high}, {len(values)} of them)"
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(fmean(values))} ± {_number(stdev(values))} ({', '.join(map(_number, values))})"


def _sign(one: Mapping[str, Any]) -> str:
    return "**not run**" if one["error"] else SIGNS[one["standing"]]


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
