"""`lora-lab sweep` and `lora-lab collect`: many runs in packs, and the runs of a class in one store."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import click

from lora_lab.cli.method import take_method
from lora_lab.cli.options import recipe_options
from lora_lab.cli.shared import DOWNLOAD, JSON, tell, together
from lora_lab.errors import BadValue

GRID = ("rank", "alpha", "targets", "lr", "seed")
LISTS: dict[str, type] = {"lr": float, "seed": int}  # what every method can be swept over
USUAL = ("method", "targets", "rank", "alpha", "lr")  # by which a line of the table is known
TOLD = ("model", "task", "steps", "batch", "seed")  # above the table, or by the number of runs


sweep_options = together(
    click.option("--rank", default=None, help="Lora's, with commas: 1,2,4,8; 8 when left out."),
    click.option("--alpha", default=None, help="With commas: 8,16."),
    click.option("--alpha-rule", default=None, help="fixed:16 (when left out), rank, 2rank, sqrt or sqrt:4."),
    click.option("--targets", multiple=True, help="q,v when left out; give it again for another choice."),
    click.option("--lr", default="2e-3", show_default=True, help="With commas: 1e-3,2e-3."),
    click.option("--seed", default="0", show_default=True, help="With commas, or 0-4."),
)
"""The grid's own options; those that all recipes share are `train`'s."""


@click.command()
@recipe_options(without=(*GRID, "validations"))
@sweep_options
@click.option("--out", default="runs", show_default=True, help="The store; what it has is not run again.")
@click.option("--solo", is_flag=True, help="One run after another in place of packs.")
@click.option(
    "--choose", "--halving", "choose", is_flag=True,
    help="Find the best: what lies behind stops at half-time, and only the best is tested, with its rivals.",
)  # fmt: skip
@click.option("--validations", type=int, default=None, help="Evenly spread; 1 when left out, 8 with --patience.")
@click.option("--again", is_flag=True, help="Run failed ones once more.")
@click.option(
    "--pack", "pack_size", type=click.IntRange(1), default=None, help="Runs side by side; found when left out."
)
@click.option("--dask", default=None, help="Address of a Dask scheduler, whose workers take the packs.")
@click.option("--share", "part", default=None, help="i/n: only laptop i's share of the grid.")
@DOWNLOAD
@JSON
def sweep(out: str, as_json: bool, part: str | None, dask: str | None, download: bool, **options: Any) -> None:
    """Train every combination of rates and seeds, of lora also of ranks, alphas and targets, side by side.

    It may be stopped or killed at any time: the same command goes on where it was.
    """
    from lora_lab.experiments import grid
    from lora_lab.experiments.sweep import Swept
    from lora_lab.experiments.sweep import sweep as run

    how = {name: options.pop(name) for name in ("solo", "choose", "again")} | {"size": options.pop("pack_size")}
    recipes = _recipes(options)
    whole, recipes = len(recipes), grid.share(recipes, part) if part else recipes
    if not recipes:  # more laptops than runs: nothing is wrong
        tell(Swept(()).to_json() if as_json else f"share {part} of {whole} runs is empty: nothing to do")
        return
    client = None
    if dask:
        from lora_lab.experiments.cluster import connect

        client = connect(dask)
    swept = run(recipes, out, client=client, download=download, **how)
    tell(swept.to_json() if as_json else describe(swept))


@click.command()
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", default="collected", show_default=True, help="The store that gets all of them.")
@JSON
def collect(folders: tuple[str, ...], out: str, as_json: bool) -> None:
    """Merge the stores below some FOLDERS or zip files into one, with a table and a picture of what the class found."""
    from lora_lab.experiments.collect import collect as merge
    from lora_lab.experiments.results import from_store

    found = merge(folders, out)
    runs = from_store(out)
    table, pictures = runs.frame, _pictures(runs, out)
    answer = {"runs": len(runs), "taken": found.taken, "repeated": found.repeated, "unreadable": found.unreadable}
    if as_json:
        tell(answer | {"pictures": pictures, "frame": json.loads(table.to_json(orient="records"))})
        return
    for file, reason in found.unreadable.items():
        print(f"passed over {file}: {reason}", file=sys.stderr)
    print(f"{len(runs)} runs in {out}: {found.taken} taken, {found.repeated} there already\n{summary(runs)}")
    for path in pictures:
        print(f"picture  {path}")


def describe(swept: Any) -> str:
    """A sweep as a table: a line for each cell of the grid, every seed in it."""
    failures = [f"failed  {r.recipe.describe()}: {r.error}" for r in swept.runs if r.status == "failed"]
    sizes = ", ".join(map(str, swept.packs)) or "none"
    end = f"{len(swept)} runs, {swept.skipped} of them from before; packs of {sizes}; {swept.seconds:.0f} s"
    chosen = [str(swept.choice)] if swept.choice else []
    return "\n".join([summary(swept), *failures, *chosen, end, *swept.notes])


def alike(runs: Any) -> dict[str, Any]:
    """The finished runs of one model, task and length together, which may be compared; most first, each with a name.

    Those that were validated only, for choosing a rate, have no score to be told.
    """
    found: dict[str, list[Any]] = {}
    for run in (run for run in runs.finished.runs if run.metrics):
        of = run.recipe
        found.setdefault(f"{of.model} on {of.task}, {of.steps} steps of {of.batch} rows", []).append(run)
    return {name: type(runs)(tuple(found[name])) for name in sorted(found, key=lambda name: -len(found[name]))}


def summary(runs: Any) -> str:
    """Cells of the grid with their seeds; a table for each model, task and length where there are several."""
    groups = alike(runs)
    if len(groups) < 2:
        return _table(*groups.values()) if groups else "no finished run that was scored on the test rows"
    return "\n".join(f"\n{number}: {name}\n{_table(groups[name])}" for number, name in enumerate(groups, 1))


def _table(done: Any) -> str:
    """Runs that may be compared as lines, one for each cell: recipes that differ in their seed alone.

    A cell is told by the usual settings, and by every other one that differs among the runs of a method.
    """
    from lora_lab.training.metrics import factor, main_metric

    metric = main_metric(done.frame)
    by_hash = {run.recipe.hash: run for run in done.runs}
    runs = [by_hash[name] for name in done.frame["hash"]]  # in the frame's order
    told = [(_settings(run.recipe) | {"trained_in": _word(run.dtype)}, run.metrics[metric]) for run in runs]
    seen = {(name, one["method"], word) for one, _ in told for name, word in one.items()}
    times_seen = Counter((name, method) for name, method, _ in seen)
    differ = [name for (name, _), times in times_seen.items() if times > 1]
    keys = [name for name in dict.fromkeys((*USUAL, *sorted(differ))) if any(name in one for one, _ in told)]
    cells: dict[str, list[float]] = {}
    for one, value in told:
        cells.setdefault(" ".join(one.get(name, "-") for name in keys), []).append(factor(metric) * value)
    lines = ["  ".join([f"{' '.join(keys):<44}", "seeds", f"mean {metric}", "each"])]
    for words, cell in cells.items():
        each = " ".join(f"{value:.1f}" for value in cell)
        lines.append(f"{words:<44}  {len(cell):>5}  {sum(cell) / len(cell):>{len(metric) + 5}.1f}  {each}")
    return "\n".join(lines)


def _settings(recipe: Any) -> dict[str, str]:
    """What a recipe says and its table does not, in words; the base's own dropout under another name than lora's."""
    own = {name: value for name, value in vars(recipe).items() if name not in ("method", *TOLD)}
    method = vars(recipe.method) | recipe.method.settings()  # which leave out what is as it always was, as dora=False
    values = {"base_dropout": own.pop("dropout"), "method": method.pop("name")} | own | method
    return {name: _word(value) for name, value in values.items()}


def _word(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else "-" if value in (None, "") else str(value)


def _recipes(options: dict[str, Any]) -> list[Any]:
    """The grid that the options describe. Raises: BadValue for what is no number."""
    from lora_lab.experiments.grid import Grid, numbers

    alpha, rule = options.pop("alpha"), options.pop("alpha_rule")
    if alpha is not None and rule is not None:
        raise BadValue("give --alpha or --alpha-rule, not both")
    rank, targets = options.pop("rank"), list(options.pop("targets"))
    axes: dict[str, Any] = {name: numbers(f"--{name}", options.pop(name), kind) for name, kind in LISTS.items()}
    if options["method"] in ("lora", "qlora"):
        axes["rank"] = numbers("--rank", "8" if rank is None else rank, int)
        axes["alpha"] = rule or (numbers("--alpha", alpha, float) if alpha is not None else "fixed:16")
        axes["targets"] = targets or ("all-linear" if options["method"] == "qlora" else "q,v")
    elif {rank, alpha, rule} != {None} or len(targets) > 1:
        raise BadValue(
            f"a grid of ranks, alphas and targets is lora's, not {options['method']}'s: give rates and seeds"
        )
    elif targets:
        options["targets"] = targets[0]
    if (validations := options.pop("validations")) is not None:
        options["validations"] = validations
    grid = Grid(method=take_method(options), **axes)
    return grid.recipes(options.pop("model"), options.pop("task"), **options)


def _pictures(runs: Any, out: str) -> list[str]:
    """Pictures of what was collected, as files: rank.png, and rank_2.png where there is a second table.

    Runs that differ in a setting that a picture does not show have a file of their own: rank_alpha_16.png; those with
    more runs than any others keep the plain name.
    """
    from pathlib import Path

    from lora_lab.plots import sweeps

    made = []
    for number, group in enumerate(alike(runs).values(), 1):
        for name, picture in sweeps.pictures(_with_other(group)).items():
            path = Path(out) / (f"{name}.png" if number == 1 else f"{name}_{number}.png")
            picture.savefig(path, dpi=150)
            made.append(str(path))
    return made


def _with_other(runs: Any) -> Any:
    """The frame, and in a column `other` the settings that have none of their own and differ: "dora True, tokens 4"."""
    frame, told = runs.frame, {run.recipe.hash: _settings(run.recipe) for run in runs.runs}
    names = [name for name in dict.fromkeys(name for one in told.values() for name in one) if name not in frame]
    names = [name for name in names if len({one.get(name) for one in told.values()}) > 1]
    words = [", ".join(f"{name} {told[one][name]}" for name in names if name in told[one]) for one in frame["hash"]]
    return frame.assign(other=words)
