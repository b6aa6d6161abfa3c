"""`lora-lab compare`: compare methods, each with its own tuned learning rate and several seeds."""

from typing import Any

import click

from lora_lab.cli.options import recipe_options
from lora_lab.cli.shared import DOWNLOAD, JSON, aligned, tell, with_minutes
from lora_lab.errors import Failed, printable

FIXED = ("method", "lr", "seed", "validations", "patience", "steps")  # the comparison sets these itself
ALL_METHODS = "probe,head,bitfit,prompt,ptuning,prefix,bottleneck,ia3,lora,full"


@click.command()
@recipe_options(without=FIXED)
@click.option("--methods", default=ALL_METHODS, show_default=True, help="Methods such as full,lora:rank=4:targets=q+v.")
@click.option("--rates", type=int, default=4, show_default=True, help="Number of learning rates to try per method.")
@click.option("--growth", type=int, default=2, show_default=True, help="Rates to add if the best rate is at an edge.")
@click.option("--tuning-seeds", type=int, default=1, show_default=True, help="Number of seeds for each rate in tuning.")
@click.option("--seeds", type=int, default=5, show_default=True, help="Number of final runs per method.")
@click.option("--steps", type=int, default=None, help="Number of steps per run; 400 by default.")
@click.option("--minutes", type=float, default=None, help="Total time in minutes, instead of --steps.")
@click.option("--margin", type=float, default=0.015, show_default=True, help="Equivalence margin, as a fraction.")
@click.option("--forgetting", default=None, help="Also measure perplexity on this text, such as shakespeare.")
@click.option("--prompts", type=int, default=0, help="Number of answers to generate and score.")
@click.option("--out", default="compared", show_default=True, help="Folder for the runs and the comparison.")
@click.option("--again", is_flag=True, help="Retry failed runs.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Number of methods to run at once.")
@DOWNLOAD
@JSON
def compare(as_json: bool, methods: str, steps: int | None, **options: Any) -> None:
    """Compare methods fairly: tune each learning rate, run several seeds, score the test split once, and give verdicts.

    You can stop or kill the command at any time; run it again to resume.
    """
    from lora_lab.experiments.compare import compare as run

    if steps is not None:
        options["steps"] = steps
    comparison = run(methods=methods, store=options.pop("out"), say=with_minutes(), **options).to_json()
    tell(comparison if as_json else describe(comparison))
    if all(row["error"] and not row["runs"] for row in comparison["methods"]):
        raise Failed(f"every method failed: {comparison['methods'][0]['error']}")


def describe(comparison: dict[str, Any]) -> str:
    """Format a comparison: a table with one row per method, verdicts, and the settings that all methods share."""
    metric, methods, lines = comparison["metric"], comparison["methods"], list[str]()
    for row in methods:
        lines += [f"{row['label']} against {name}: {verdict['words']}" for name, verdict in row["against"].items()]
    lines += [f"{row['label']}: {row['error']}" for row in methods if row["error"]]
    for row in methods:
        if "forgetting" in row and row["runs"]:
            f = row["forgetting"]
            after = " ".join(f"{value:.1f}" for value in f["after"]["each"])
            lines.append(f"{row['label']}: perplexity on {f['task']} {f['before']:.1f} before, {after} after")
        for name, value in row.items():
            if isinstance(value, dict) and "each" in value and name != metric:
                lines.append(f"{row['label']}: {name} {' '.join(f'{v:.4g}' for v in value['each'])}")
    basis = ". Verdicts compare right and wrong answers, in points of accuracy" * (metric == "matthews")
    grows = comparison["growth"] and max(map(len, comparison["rates"].values())) > 1
    more = f", with up to {comparison['growth']} more rates at a grid edge" if grows else ""
    lines.append(
        f"{comparison['model']} on {comparison['task']}: {comparison['steps']} steps of {comparison['batch']} rows. "
        f"Rates were tuned on validation with seed {', '.join(map(str, comparison['tuning_seeds']))}{more}. "
        f"{len(comparison['seeds'])} other seeds were scored once "
        f"on the test split. 's per run' is a run's share of a pack's time. Total: {comparison['seconds']:.0f} s{basis}"
    )
    cells = [_cells(row, metric) for row in methods]
    table = aligned([list(cells[0]), *(list(row.values()) for row in cells)])
    return "\n".join([*table, "", *map(printable, lines)])


def _cells(row: dict[str, Any], metric: str) -> dict[str, str]:
    """Return a method's row in the table, by column."""
    from lora_lab.metrics import factor

    def text(value: float | None, style: str = ",", scale: float = 1) -> str:
        return "-" if value is None else f"{scale * value:{style}}"

    score, scale = row[metric], factor(metric)
    name = next((key for tried in row["tried"] for key in tried if key != "validation"), "")
    tuned = row["lr"] if row["lr"] is not None else row["settings"].get(name)
    return {
        "method": row["label"],
        "tuned to": f"{name} {tuned:g}{' (edge)' if row['edge'] else ''}" if name and tuned is not None else "-",
        f"mean {metric}": text(score["mean"], ".1f", scale),
        "std": text(score["std"], ".1f", scale),
        "each seed": " ".join(text(value, ".1f", scale) for value in score["each"]),
        "trained": text(row["trainable"]),
        "head": text(row["head"]),
        "file bytes": text(row["file_bytes"]),
        "predicted MiB": text(row["predicted_bytes"], ".1f", 2**-20),
        "measured MiB": text(row["peak_bytes"], ".1f", 2**-20),
        "s per run": text(row["seconds"], ".1f"),
        "tokens added": text(row["added_tokens"]),
    }
