"""`lora-lab sweep` and `lora-lab collect`: train many runs in packs, and merge students' stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lora_lab.cli.options import recipe_options, take_method
from lora_lab.cli.shared import DOWNLOAD, JSON, aligned, say, tell
from lora_lab.errors import BadValue, Failed, printable
from lora_lab.lazy import pd

GRID = ("rank", "alpha", "targets", "lr", "seed", "validations")  # options that `sweep` defines itself
USUAL = ("method", "targets", "rank", "alpha", "lr")  # columns that identify a row of the table
CHOOSE = "Find the best configuration: stop weak configurations early, and score only the best ones on the test split."
KIND = ("model", "task", "steps", "batch")  # only runs that agree in these settings are comparable


@click.command()
@recipe_options(without=GRID)
@click.option("--rank", default=None, help="LoRA ranks, separated by commas, such as 1,2,4; 8 by default.")
@click.option("--alpha", default=None, help="Values of alpha, separated by commas, such as 8,16.")
@click.option("--alpha-rule", default=None, help="Rule for alpha: fixed:16 (default), rank, 2rank, sqrt or sqrt:4.")
@click.option("--targets", multiple=True, help="Layers to adapt; q,v by default. You can repeat this option.")
@click.option("--lr", default="2e-3", show_default=True, help="Learning rates, separated by commas.")
@click.option("--seed", default="0", show_default=True, help="Seeds, separated by commas, or a range such as 0-4.")
@click.option("--out", default="runs", show_default=True, help="Folder for the runs; finished runs are skipped.")
@click.option("--solo", is_flag=True, help="Train runs one at a time instead of in packs.")
@click.option("--choose", "--halving", "choose", is_flag=True, help=CHOOSE)
@click.option("--validations", type=int, default=None, help="Number of validations (default: 1, or 8 with --patience).")
@click.option("--again", is_flag=True, help="Retry failed runs.")
@click.option("--pack", "side_by_side", type=click.IntRange(1), default=None, help="Maximum number of runs per pack.")
@click.option("--dask", default=None, help="Address of a Dask scheduler; its workers train the packs.")
@click.option("--share", default=None, help="Train only one part of the grid: 3/40 is the third of 40 parts.")
@DOWNLOAD
@JSON
def sweep(
    out: str, solo: bool, choose: bool, again: bool, side_by_side: int | None, dask: str | None, share: str | None,
    download: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a model for every combination of learning rates and seeds (for lora, also of ranks, alphas and targets).

    You can stop or kill the command at any time; run it again to resume.
    """
    from lora_lab.experiments import grid
    from lora_lab.experiments.sweep import Sweep, Swept

    if choose and (share or dask):
        raise BadValue(f"--choose needs the whole grid on one machine: omit {'--share' if share else '--dask'}")
    all_recipes = _recipes(options)
    recipes = all_recipes if share is None else grid.share(all_recipes, share)
    if not recipes:  # there are more parts than runs, which is fine
        tell(Swept(()).to_json() if as_json else f"share {share} of {len(all_recipes)} runs is empty: nothing to do")
        return
    runner = Sweep(out, 1 if solo else side_by_side, again=again, client=dask or None, download=download)
    swept = runner.run(recipes, choose)
    tell(swept.to_json() if as_json else describe(swept))
    if swept.runs and swept.failed == len(swept):
        raise Failed(f"every run failed: {swept.runs[0].error}")


@click.command()
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", default="collected", show_default=True, help="Folder for the merged store.")
@JSON
def collect(folders: tuple[str, ...], out: str, as_json: bool) -> None:
    """Merge the runs in all FOLDERS (or zip files) into one store, with a table and plots of the results."""
    from lora_lab.experiments.results import collect as merge
    from lora_lab.experiments.results import load
    from lora_lab.plots import sweeps

    merged = merge(folders, out)
    frame, pictures = load(out), []
    for number, (_, part) in enumerate(_kinds(frame), 1):  # rank.png, or rank_2.png for the second table
        for name, picture in sweeps.pictures(part).items():
            pictures.append(str(Path(out) / (f"{name}.png" if number == 1 else f"{name}_{number}.png")))
            picture.savefig(pictures[-1], dpi=150)
    if as_json:
        rows = json.loads(frame.to_json(orient="records"))
        tell({"runs": len(frame), **merged._asdict(), "pictures": pictures, "frame": rows})
        return
    for file, reason in merged.unreadable.items():
        say(f"skipped {file}: {reason}")
    counts = f"{len(frame)} runs in {out}: {merged.taken} new, {merged.repeated} duplicates"
    tell("\n".join([counts, summary(frame), *(f"picture  {file}" for file in pictures)]))


def describe(swept: Any) -> str:
    """Format a sweep as a table with one row per cell of the grid, showing every seed."""
    from lora_lab.experiments.racing import in_words

    lines = [summary(swept.frame)]
    lines += [f"failed  {r.recipe.describe()}: {r.error}" for r in swept.runs if r.status == "failed"]
    lines += [in_words(swept.choice)] if swept.choice else []
    sizes = ", ".join(map(str, swept.packs)) or "none"
    totals = f"{len(swept)} runs, {swept.skipped} of them already stored; packs of {sizes}; {swept.seconds:.0f} s"
    return "\n".join([*lines, totals])


def summary(frame: pd.DataFrame) -> str:
    """Format the cells of a grid with their seeds, in one table per model, task and training length."""
    tables = [(name, _table(part)) for name, part in _kinds(frame)]
    if len(tables) < 2:
        return tables[0][1] if tables else "no finished run has test scores"
    return "\n\n".join(f"{n}: {printable(name)}\n{table}" for n, (name, table) in enumerate(tables, 1))


def _kinds(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield finished, scored runs, grouped by model, task and training length, the largest group first."""
    from lora_lab.experiments.results import settings_in
    from lora_lab.metrics import MAIN
    from lora_lab.training.runs import FINISHED

    if not (scores := [name for name in MAIN if name in frame]):
        return
    done, settings = frame[frame["status"].isin(FINISHED)].dropna(subset=scores, how="all"), settings_in(frame)
    for (model, task, steps, batch), part in sorted(done.groupby(list(KIND)), key=lambda kind: -len(kind[1])):
        columns = [name for name in part if name in settings or part[name].notna().any()]  # drop other tasks' metrics
        once = part.drop_duplicates([name for name in columns if name in settings])  # the device may differ
        yield f"{model} on {task}, {steps} steps of {batch} rows", once[columns]


def _table(done: pd.DataFrame) -> str:
    """Format one row per cell. The runs in a cell differ only in the seed, and in which examples are drawn (`subset`).

    A cell is identified by the settings in `USUAL` and any others that vary among the runs of a method.
    """
    from lora_lab.experiments.results import settings_in
    from lora_lab.metrics import factor, main_metric

    metric = main_metric(dict(done))
    others = [name for name in settings_in(done) if name not in (*USUAL, "seed", "subset")]
    varying = [name for name in others if done.groupby("method")[name].nunique(dropna=False).max() > 1]
    keys = [name for name in (*USUAL, *sorted(varying)) if done[name].notna().any()]
    lines = [[*keys, "seeds", f"mean {metric}", "each"]]
    for cell, values in done.groupby(keys, dropna=False, sort=False)[metric]:
        scores = factor(metric) * values
        settings = ["-" if v in (None, "") or v != v else f"{v:g}" if isinstance(v, float) else str(v) for v in cell]
        each = " ".join(f"{score:.1f}" for score in scores)
        lines.append([*settings, str(len(scores)), f"{scores.mean():.1f}", each])
    return "\n".join(aligned(lines, "<" * len(keys) + "><<"))


def _recipes(options: dict[str, Any]) -> list[Any]:
    """Make the recipes that the options describe. Raises: BadValue for a value that is not a number."""
    from lora_lab.experiments.grid import Grid, numbers

    rank, alpha, rule, targets, lr, seed = map(options.pop, ("rank", "alpha", "alpha_rule", "targets", "lr", "seed"))
    if alpha is not None and rule is not None:
        raise BadValue("pass --alpha or --alpha-rule, not both")
    if len(targets) == 1:  # a single choice is an option of the method; several choices need a grid
        options["targets"], targets = targets[0], ()
    if options["validations"] is None:
        del options["validations"]
    grid = Grid(
        None if rank is None else numbers("--rank", rank, int),
        rule if alpha is None else numbers("--alpha", alpha, float),
        numbers("--lr", lr, float),
        numbers("--seed", seed, int),
        list(targets) or None,
        take_method(options),
    )
    return grid.recipes(options.pop("model"), options.pop("task"), **options)
