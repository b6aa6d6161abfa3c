"""The answer of `reproduce --scale paper`, on a command of the test's own that takes the same options."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from lora_lab.cli.protocol_answer import paper, paper_options
from lora_lab.errors import BadValue


@click.command()
@click.argument("names", nargs=-1)
@click.option("--dry-run", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
@paper_options
def command(names, dry_run, as_json, **options):
    paper(names, dry_run, as_json, "out", options)


def said(*args: str) -> str:
    return CliRunner().invoke(command, args, catch_exceptions=False).output


def test_a_dry_run_tells_every_hyperparameter_and_its_source():
    words = said("table2", "--dry-run", "--model", "roberta-base", "--task", "rte", "--row", "LoRA")
    for part in ("0.0005 (Table 9)", "steps", "memory per GPU", "missing", "--model-path", "86.6±0.7"):
        assert part in words


def test_json_of_both_tables_by_the_scripts():
    told = json.loads(said("--dry-run", "--json", "--variant", "repo"))
    assert len(told["runs"]) == 24 + 2
    assert told["dry_run"]
    assert {"steps", "memory", "seconds", "settings", "missing"} <= told["runs"][0].keys()


def test_another_card_has_another_time():
    times = [
        json.loads(said("table3", "--dry-run", "--json", "--gpu", gpu))["runs"][0]["seconds"]
        for gpu in ("h100", "4090")
    ]
    assert times[0] < times[1]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [(("table2",), "--model-path"), (("table2", "--model-path", "x"), "--data"), ((), "one table at a time")],
)
def test_a_run_says_what_it_lacks(args, sentence):
    with pytest.raises(BadValue, match=sentence):
        said(*args)
