"""`lora-lab reproduce --scale paper`: the true protocol, planned for a GPU and run where model and data are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from lora_lab.cli.shared import tell, together
from lora_lab.errors import BadValue

PLANNED = ("model", "task", "row", "variant", "gpu", "model_path", "data")
RUN = ("model", "task", "row", "variant", "model_path", "data", "seeds", "steps_limit", "prompts", "start", "download")
COUNT = click.IntRange(min=1)


paper_options = together(
    click.option("--model", default=None, help="paper: one model of the table, such as gpt2-medium."),
    click.option("--task", default=None, help="paper: one task of the table, such as rte."),
    click.option("--row", default=None, help="paper: one row of the table; LoRA when left out of a run."),
    click.option("--variant", default=None, help="paper: the paper's settings, or repo for its scripts'."),
    click.option("--gpu", default=None, help="paper: the card that time and memory are predicted for."),
    click.option("--model-path", default=None, help="paper: the model's folder or hub id."),
    click.option("--data", default=None, help="paper: the folder of GLUE's or E2E's files."),
    click.option("--seeds", type=COUNT, default=None, help="paper: how many; the paper's when left out."),
    click.option("--steps-limit", type=COUNT, default=None, help="paper: stop after so many: a rehearsal."),
    click.option("--prompts", type=COUNT, default=None, help="paper: say only so many of the test's meanings."),
    click.option("--start", default=None, help="paper: the MNLI run's adapter, where a task begins from it."),
    click.option("--download", is_flag=True, help="paper: allow the model hub to be asked."),
)
"""What only --scale paper takes."""


def refuse_at_laptop_scale(options: Mapping[str, Any]) -> None:
    """Raises BadValue for an option that only the paper's protocol has."""
    given = list(_given(options, dict.fromkeys((*PLANNED, *RUN))))
    if given:
        raise BadValue(f"--{given[0].replace('_', '-')} is of --scale paper: add that, or leave it out")


def reproduce_paper(names: Sequence[str], dry_run: bool, as_json: bool, options: Mapping[str, Any]) -> None:
    """Print plans, or run one table and print what came of it. Raises: as `protocol.plan` and `protocol.run`."""
    from lora_course.paper import protocol

    for name in ("minutes", "again", "rejudge"):
        if options[name] not in (None, False):
            raise BadValue(f"--{name} is of --scale laptop: the paper's protocol takes what it takes; leave it out")
    tables = list(dict.fromkeys(names or protocol.TABLES))
    if dry_run:
        plans = [one for table in tables for one in protocol.plan(table, **_given(options, PLANNED))]
        found = {"scale": "paper", "items": [one.to_json() for one in plans]}
        tell(found if as_json else "\n\n".join(map(str, plans)))
        return
    if len(tables) > 1:
        raise BadValue(f"--scale paper runs one table at a time: name one of {', '.join(tables)}, or add --dry-run")
    for name, what in (("model_path", "the model's folder or hub id"), ("data", "the folder of the data")):
        if not options[name]:
            raise BadValue(f"--scale paper needs --{name.replace('_', '-')}, {what}; --dry-run says what is missing")
    result = protocol.run(tables[0], out=options["out"], **_given(options, RUN))
    tell({"scale": "paper", **result.to_json()} if as_json else str(result))


def _given(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The options that were given; for the others the protocol has its own defaults."""
    return {name: options[name] for name in names if options[name]}
