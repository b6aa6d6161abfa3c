"""`lora-lab reproduce TABLE --scale paper`: the paper's true protocol, planned with --dry-run or run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from lora_lab.errors import BadValue

C = TypeVar("C", bound=Callable[..., Any])
OPTIONS = (
    click.option("--variant", type=click.Choice(["paper", "repo"]), default="paper", show_default=True,
                 help="Hyperparameters of the paper's tables, or of its authors' scripts."),
    click.option("--model", "zoo_model", default=None, help="Only this model: roberta-base, gpt2-medium, ..."),
    click.option("--task", default=None, help="Only this task: cola, rte, mnli, ..., e2e."),
    click.option("--row", default=None, help="Only this row of the table: LoRA, FT, 'LoRA dagger', ..."),
    click.option("--model-path", default=None, help="The model's folder or hub id."),
    click.option("--data", default=None, help="The folder of GLUE's or E2E's files."),
    click.option("--seeds", type=click.IntRange(1), default=None, help="How many seeds; as many as the paper's."),
    click.option("--steps-limit", type=click.IntRange(1), default=None, help="A rehearsal of so many steps."),
    click.option("--start", default="", help="The adapter of the MNLI run, for the tasks that begin from it."),
    click.option("--max-length", type=click.IntRange(2), default=None, help="Tokens, in place of the recipe's."),
    click.option("--gpu", default=None, help="The card that a dry run predicts for.  [default: A100 40 GB]"),
    click.option("--download", is_flag=True, help="Allow the model hub to be asked."),
)  # fmt: skip
PLANS = ("variant", "task", "row", "model_path", "data")


def paper_options(command: C) -> C:
    """The options of --scale paper, on a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def paper(tables: Sequence[str], dry_run: bool, as_json: bool, out: str, options: dict[str, Any]) -> None:
    """Print what the runs would be, or make one and print what came of it.

    Raises: BadValue where a run lacks a table, a model or data; and as `plan` and `run`.
    """
    found = _planned(tables, options) if dry_run else _made(tables, out, options)
    told = [one.to_json() for one in found]
    print(json.dumps({"scale": "paper", "dry_run": dry_run, "runs": told}) if as_json else "\n\n".join(map(str, found)))


def _planned(tables: Sequence[str], options: dict[str, Any]) -> list[Any]:
    from lora_lab.experiments.protocol import TABLES, plan

    asked = {name: options[name] for name in PLANS} | {"model": options["zoo_model"]}
    card = {"gpu": options["gpu"]} if options["gpu"] else {}
    return [dry for table in tables or TABLES for dry in plan(table, **asked, **card)]


def _made(tables: Sequence[str], out: str, options: dict[str, Any]) -> list[Any]:
    from lora_lab.experiments.protocol import run

    if len(tables) != 1:
        raise BadValue("--scale paper runs one table at a time: name table2 or table3, or add --dry-run")
    for name in ("model_path", "data"):
        if not options[name]:
            raise BadValue(f"--scale paper trains a model and reads data of yours: give --{name.replace('_', '-')}")
    own = {name: value for name, value in options.items() if name not in ("zoo_model", "gpu", "row")}
    row = {"row": options["row"]} if options["row"] else {}
    return [run(tables[0], out=out, model=options["zoo_model"], **own, **row)]
