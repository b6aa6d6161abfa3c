"""`lora-lab reproduce`: reproduce the paper's tables on a laptop, or with the paper's protocol."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from lora_lab.cli.shared import JSON, tell, together, with_minutes
from lora_lab.errors import BadValue, Failed

COUNT, MINUTES = click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
LAPTOP = ("minutes", "rejudge")
PLAN = ("model", "task", "row", "variant", "gpu", "model_path", "data")
RUN = ("model", "task", "row", "variant", "model_path", "data", "seeds", "steps_limit", "prompts", "start", "download")
UNPLANNED = ("again", "rejudge", *(name for name in RUN if name not in PLAN))
PAPER = together(
    click.option("--model", default=None, help="At paper scale, use this model from the table, such as gpt2-medium."),
    click.option("--task", default=None, help="At paper scale, use this task from the table, such as rte."),
    click.option("--row", default=None, help="At paper scale, use this row from the table; by default, LoRA's row."),
    click.option("--variant", default=None, help="At paper scale, use the settings of the paper or its code (repo)."),
    click.option("--gpu", default=None, help="At paper scale, predict the time and memory for this GPU."),
    click.option("--model-path", default=None, help="At paper scale, load the model from this folder or hub id."),
    click.option("--data", default=None, help="At paper scale, read the GLUE or E2E files from this folder."),
    click.option("--seeds", type=COUNT, default=None, help="At paper scale, run this many seeds."),
    click.option("--steps-limit", type=COUNT, default=None, help="At paper scale, stop after this many steps."),
    click.option("--prompts", type=COUNT, default=None, help="At paper scale, generate this many texts."),
    click.option("--start", default=None, help="At paper scale, start from this adapter of an MNLI run."),
    click.option("--download", is_flag=True, help="At paper scale, allow downloads from the model hub."),
)


@click.command()
@click.argument("names", nargs=-1, metavar="[ITEM...]")
@click.option("--scale", type=click.Choice(["laptop", "paper"]), default="laptop", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only print the plan and the time that it needs.")
@click.option("--minutes", type=MINUTES, default=None, help="Time limit for each item, in minutes.")
@click.option("--out", default="reproduced", show_default=True, help="Folder for runs, results and report.")
@click.option("--rejudge", is_flag=True, help="Train nothing; judge the results in --out again by the current rules.")
@click.option("--again", is_flag=True, help="Repeat items with a result, and retry failed runs; keep finished runs.")
@PAPER
@JSON
def reproduce(names: tuple[str, ...], scale: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Reproduce tables and figures of Hu et al. 2021, such as table1, fig3 or section4_2, or all of them.

    You can stop or kill the command at any time; run it again to resume.
    """
    other, run = ("laptop", _at_paper_scale) if scale == "paper" else ("paper", _at_laptop_scale)
    for name in _given(options, LAPTOP if scale == "paper" else dict.fromkeys((*PLAN, *RUN))):
        raise BadValue(f"--{name.replace('_', '-')} belongs to --scale {other}: add --scale {other}, or leave it out")
    for name in _given(options, UNPLANNED) if dry_run else ():
        raise BadValue(f"--{name.replace('_', '-')} doesn't change the plan: leave it out, or leave out --dry-run")
    for name in _given(options, ("minutes", "again")) if options["rejudge"] else ():
        raise BadValue(f"--rejudge trains nothing, so --{name} has no effect: leave out one of the two")
    if not (options["minutes"] or 1) < 1e6:
        raise BadValue(f"--minutes must be a time for each item, such as 30, not {options['minutes']}")
    result, words = run(names, dry_run, options)
    tell({"scale": scale, **result} if as_json else words)
    if "report" in result and all(item["error"] for item in result["items"]):
        raise Failed(f"no item succeeded: {result['items'][0]['error']}")


def _at_laptop_scale(names: Sequence[str], dry_run: bool, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    from lora_course.paper import reproduce as surrogates
    from lora_course.paper.reproduce import run
    from lora_course.paper.reproduce.report import write_report
    from lora_course.plots.forest import forest
    from lora_lab.files import as_path, write_atomically

    items, out, started = surrogates.items(names), as_path(options["out"]), time.perf_counter()
    if dry_run:
        plans = list(run.planned(items, options["minutes"]))
        result: dict[str, Any] = {"items": plans, "minutes": sum(plan["minutes"] for plan in plans)}
        lines = [
            f"{plan['item']:11} {plan['minutes']:5.1f} of {plan['budget_minutes']:4.1f} min  "
            f"{plan['error'] or plan['words']}\n{'':12}{plan['title']}"
            for plan in plans
        ]
        last = f"about {result['minutes']:.0f} minutes in all, estimated from the speed of one layer on this machine"
        return result, "\n".join([*lines, last])

    settings = {"minutes": options["minutes"], "again": options["again"], "say": with_minutes()}
    results, lines = [], []
    for found in run.rejudge(items, out) if options["rejudge"] else run.reproduce(items, out, **settings):
        results.append(found)
        standing = "not run" if found["error"] else found["standing"]
        lines.append(f"{found['item']:11} {standing:10}  {found['error'] or found['words']}")
        stored = run.kept(out)  # includes the results of earlier calls
        write_atomically(out / "report.png", forest(stored)._repr_png_())
        write_report(stored, out)
    report = str(out / "report.md")
    result = {"items": results, "report": report, "seconds": time.perf_counter() - started}
    return result, "\n".join([*lines, f"report      {report}"])


def _at_paper_scale(names: Sequence[str], dry_run: bool, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return plans, or the result of one table. Raises: see `protocol.plan` and `protocol.run`."""
    from lora_course.paper import protocol

    tables = list(dict.fromkeys(names or protocol.TABLES))
    if dry_run:
        plans = [plan for table in tables for plan in protocol.plan(table, **_given(options, PLAN))]
        return {"items": plans}, "\n\n".join(map(protocol.plan_in_words, plans))
    if len(tables) > 1:
        raise BadValue(f"--scale paper runs one table at a time: name one of {', '.join(tables)}, or add --dry-run")
    for name, what in (("model_path", "the model's folder or hub id"), ("data", "the folder with the data")):
        if not options[name]:
            raise BadValue(f"--scale paper needs --{name.replace('_', '-')}, {what}; --dry-run says what is missing")
    result = protocol.run(tables[0], out=options["out"], **_given(options, (*RUN, "again")))
    return result, protocol.result_in_words(result)


def _given(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if options[name] not in (None, False, "")}
