"""The report: one Markdown file with a plot of all results and a section per result."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles, stdev
from typing import Any

from lora_course.paper import markdown_table
from lora_course.paper.reproduce import described, in_words
from lora_lab.errors import printable
from lora_lab.files import write_atomically
from lora_lab.training.assets import shipped

FEW = 8  # up to this many values are listed individually
SIGNS = {
    "holds": "the finding **holds** here", "fails": "the finding **fails** here", "undecided": "**undecided**",
    "not tested": "**not tested**",
}  # fmt: skip
RULED = {"before": "Rule, written before the run", "after": "Rule, written after this run and applied to its numbers"}


def write_report(results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write FOLDER/report.md, which embeds report.png from the same folder."""
    lines = [
        (f"[{result['item']}](#{result['item']})", result["title"], _sign(result), f"{result['seconds'] / 60:.1f}")
        for result in sorted(results, key=lambda result: list(SIGNS).index(result["standing"]))
    ]
    head = shipped("data/paper/report_head.md").read_text(encoding="utf-8")
    summary = markdown_table(("item", "what", "verdict", "minutes"), lines)
    write_atomically(folder / "report.md", "\n".join([head, f"{summary}\n", *map(section, results)]).encode())
    return folder / "report.md"


def section(result: Mapping[str, Any]) -> str:
    """Format one item in full."""
    env, shared = result["environment"], ", not counting the training that it shares with other items"
    beside = [name for name in described()[result["item"]].get("also", {}) if name in result["verdicts"]]
    where = (in_words(result["sizes"]), _as_text(env["hardware"]), env["date"], f"lora_lab {env['lora_lab']}")
    rows = [(row["name"], row["published"] or "-", row["expected"] or "-", spread(row["yours"]), row["unit"])
            for row in result["rows"]]  # fmt: skip
    lines = [
        f"## {result['item']}\n\n### {result['title']}\n",
        f"- *Compared with:* {result['source']}",
        f"- *Finding:* {result['finding']}",
        f"- *{RULED[result.get('ruled', 'before')]}:* {result['rule']}",
        f"- *Verdict:* {_sign(result)}. {_as_text(result['error'] or '') or result['words']}",
        *(f"- *Not judged:* {name}: {result['verdicts'][name]['words']}" for name in beside),
        f"- *Limits:* {result['limits']}",
        *(f"- *Reported by others:* {name}: {words}" for name, words in result["expected"].items()),
        *(f"- *The paper's table:* {words}" for words in result["discrepancies"]),
        f"- *Took* {result['seconds'] / 60:.1f} min{shared if result.get('shares') else ''} "
        f"(budget {result['budget_minutes']:g}); {', '.join(filter(None, where))}",
        "",
        *([markdown_table(("", "published", "expected", "yours", "unit"), rows), ""] if rows else []),
    ]
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Format mean, standard deviation and every value; for many values, median and quartiles."""
    if len(values) > FEW:
        low, middle, high = map(_number, quantiles(values, n=4))
        return f"{middle} (quartiles {low} to {high}, {len(values)} values)"
    if len(values) < 2:
        return "".join(map(_number, values)) or "-"
    return f"{_number(fmean(values))} ± {_number(stdev(values))} ({', '.join(map(_number, values))})"


def _sign(result: Mapping[str, Any]) -> str:
    return "**not run**" if result["error"] else SIGNS[result["standing"]]


def _as_text(text: str) -> str:
    """Escape what Markdown would read as markup or a formula, since error messages may quote any file."""
    return re.sub(r"[\\`*_\[\]<>|$~#&]", r"\\\g<0>", printable(text))


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
