"""`lora-lab compare`: each method at its own tuned rate, several seeds, and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_lab.cli.options import recipe_options
from lora_lab.cli.shared import DOWNLOAD, JSON, tell, together, with_minutes
from lora_lab.errors import BadValue, Failed
from lora_lab.report import Report

OWN = ("method", "lr", "seed", "validations", "patience", "steps")  # set by the comparison itself
EVERY = "probe,head,bitfit,prompt,ptuning,prefix,bottleneck,ia3,lora,full"

compare_options = together(
    click.option("--methods", default=EVERY, show_default=True, help="With settings: lora:rank=4:targets=q+v,full."),
    click.option("--rates", type=int, default=4, show_default=True, help="Learning rates to try for each method."),
    click.option("--growth", type=int, default=2, show_default=True, help="More rates if the best is at an end."),
    click.option("--seeds", type=int, default=5, show_default=True, help="Final runs per method."),
    click.option("--steps", type=int, default=None, help="Steps of every run; 400 by default."),
    click.option("--minutes", type=float, default=None, help="Instead of --steps: time for everything."),
    click.option("--margin", type=float, default=0.015, show_default=True, help="Margin of equivalence."),
    click.option("--forgetting", default=None, help="A text, such as shakespeare, for perplexity before and after."),
    click.option("--prompts", type=int, default=0, help="Answers to generate and score."),
    click.option("--out", default="compared", show_default=True, help="Folder for the runs and the comparison."),
    click.option("--again", is_flag=True, help="Retry failed runs."),
    click.option("--workers", type=click.IntRange(1), default=None, help="Methods at once; automatic by default."),
    DOWNLOAD,
    JSON,
)


@click.command()
@recipe_options(without=OWN)
@compare_options
def compare(as_json: bool, methods: str, minutes: float | None, steps: int | None, **options: Any) -> None:
    """Compare methods fairly: each at its own tuned rate, several seeds, test scored once, a verdict on each.

    You can stop or kill it at any time: the same command resumes.
    """
    from lora_lab.experiments.compare import compare as run

    if steps is not None and minutes is not None:
        raise BadValue("give --steps or --minutes, not both")
    if minutes is not None and not 0 < minutes < 1e6:
        raise BadValue(f"--minutes must be above 0, not {minutes:g}: it is the time for everything")
    out, model, task = options.pop("out"), options.pop("model"), options.pop("task")
    how = {name: options.pop(name) for name in ("again", "download", "workers")}
    say, steps = with_minutes(), 400 if steps is None else steps
    if minutes is not None:
        from lora_lab.experiments.budget import steps_within
        from lora_lab.experiments.compare import terms_of
        from lora_lab.experiments.contenders import contenders

        terms, named = terms_of(model, task, options), contenders(methods)
        steps = steps_within(minutes, terms, named, Path(out), say, download=how["download"])
    found = run(model, task, methods, out, say=say, steps=steps, **how, **options).to_json()
    tell(found if as_json else describe(found))
    if all(one["error"] and not one["runs"] for one in found["methods"]):
        raise Failed(f"every method failed: {found['methods'][0]['error']}")


def describe(found: dict[str, Any]) -> str:
    """Format a comparison: a table with a row per method, verdicts, and what all methods share."""
    import pandas as pd

    from lora_lab.metrics import factor

    metric, methods, lines = found["metric"], found["methods"], list[str]()
    for one in methods:
        lines += [f"{one['label']} against {name}: {verdict['words']}" for name, verdict in one["against"].items()]
    lines += [f"{one['label']}: {one['error']}" for one in methods if one["error"]]
    for one in methods:
        if "forgetting" in one and one["runs"]:
            f = one["forgetting"]
            each = " ".join(f"{value:.1f}" for value in f["after"]["each"])
            lines.append(f"{one['label']}: perplexity on {f['task']} {f['before']:.1f} before, {each} after")
        for name, value in one.items():
            if isinstance(value, dict) and "each" in value and name != metric:
                lines.append(f"{one['label']}: {name} {' '.join(f'{v:.4g}' for v in value['each'])}")
    judged = "; verdicts are about right and wrong answers, in points of accuracy" * (metric == "matthews")
    lines.append(
        f"{found['model']} on {found['task']}: {found['steps']} steps of {found['batch']} rows; rates tuned on "
        f"validation with seed {', '.join(map(str, found['tuning_seeds']))}, at most {found['growth']} more at an end; "
        f"{len(found['seeds'])} other seeds scored once on the test rows; a run's seconds are its share of the pack's; "
        f"{found['seconds']:.0f} s in all{judged}"
    )
    table = pd.DataFrame([_cells(one, metric, factor(metric)) for one in methods])
    return Report("", {"": table}, lines).to_text()


def _cells(one: dict[str, Any], metric: str, times: int) -> dict[str, str]:
    """Return a method's row of the table, by column."""

    def number(value: float | None, factor: float) -> str:
        return "-" if value is None else f"{factor * value:.1f}"

    def whole(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    score, tried = one[metric], one["tried"]
    name = next((key for key in tried[0] if key != "validation"), "") if tried else ""
    tuned = one["lr"] if one["lr"] is not None else one["settings"].get(name)
    return {
        "method": one["label"],
        "tuned to": f"{name} {tuned:g}{' (edge)' if one['edge'] else ''}" if name and tuned is not None else "-",
        f"mean {metric}": number(score["mean"], times),
        "std": number(score["std"], times),
        "each seed": " ".join(number(value, times) for value in score["each"]),
        "trained": whole(one["trainable"]),
        "head": whole(one["head"]),
        "file bytes": whole(one["file_bytes"]),
        "predicted MiB": number(one["predicted_bytes"], 2**-20),
        "measured MiB": number(one["peak_bytes"], 2**-20),
        "s a run": number(one["seconds"], 1),
        "tokens added": whole(one["added_tokens"]),
    }
