"""`lora-lab reproduce`: the paper's tables as surrogates on a laptop, or by the paper's own protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lora_course.cli.reproduce_paper import paper_options, refuse_at_laptop_scale, reproduce_paper
from lora_lab.cli.shared import JSON, tell, with_minutes
from lora_lab.errors import Failed


@click.command()
@click.argument("names", nargs=-1, metavar="[ITEM...]")
@click.option("--scale", type=click.Choice(["laptop", "paper"]), default="laptop", show_default=True)
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes; train nothing.")
@click.option("--minutes", type=float, default=None, help="What each item may take, in place of its own budget.")
@click.option("--out", default="reproduced", show_default=True, help="The folder of runs, results and report.")
@click.option("--rejudge", is_flag=True, help="Judge the results in --out by today's rules; train nothing.")
@click.option("--again", is_flag=True, help="Measure and judge anew what has a result; finished runs are kept.")
@paper_options
@JSON
def reproduce(names: tuple[str, ...], scale: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Do tables and figures of Hu et al. 2021 again: table1 table2 ... fig3 fig4 section4_2, or all of them.

    It may be stopped or killed at any time: the same command goes on where it was.
    """
    if scale == "paper":
        reproduce_paper(names, dry_run, as_json, options)
        return
    refuse_at_laptop_scale(options)
    from lora_course.paper.reproduce import items
    from lora_course.paper.reproduce.run import planned

    wanted = items(names)
    if dry_run:
        plans = planned(wanted, options["minutes"])
        found = {"scale": scale, "items": plans, "minutes": sum(one["minutes"] for one in plans)}
        tell(found if as_json else described(found))
        return
    started = time.perf_counter()
    results = _run(wanted, options)
    report = str(Path(options["out"]) / "report.md")
    found = {"scale": scale, "items": results, "report": report, "seconds": time.perf_counter() - started}
    tell(found if as_json else told(found))
    if all(one["error"] for one in results):
        raise Failed(f"no item came to anything: {results[0]['error']}")


def _run(wanted: Sequence[Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    from lora_course.paper.reproduce.report import write_report
    from lora_course.paper.reproduce.run import kept, rejudge
    from lora_course.paper.reproduce.run import reproduce as run
    from lora_course.plots.reproduced import picture
    from lora_lab.files import write_atomically

    out = Path(options["out"])

    def after(results: Sequence[Mapping[str, Any]]) -> None:
        if results[-1]["rows"]:
            write_atomically(out / f"{results[-1]['item']}.png", picture(results[-1])._repr_png_())
        write_report(kept(out), out)  # with those of earlier calls

    if options["rejudge"]:
        return rejudge(wanted, out, after)
    return run(wanted, out, minutes=options["minutes"], again=options["again"], say=with_minutes(), after=after)


def described(found: Mapping[str, Any]) -> str:
    """A dry run as a table."""
    lines = [
        f"{one['item']:11} {one['minutes']:5.1f} of {one['budget_minutes']:4.1f} min  {one['error'] or one['words']}\n"
        f"{'':12}{one['title']}"
        for one in found["items"]
    ]
    return "\n".join([*lines, f"together about {found['minutes']:.0f} minutes, by a layer's speed measured here"])


def told(found: Mapping[str, Any]) -> str:
    """What came of it, a line for each item."""
    lines = [
        f"{one['item']:11} {'not run' if one['error'] else one['standing']:10}  {one['error'] or one['words']}"
        for one in found["items"]
    ]
    return "\n".join([*lines, f"report      {found['report']}"])
