"""The command line as the pages write it: every command is there, and each example's options are real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from lora_course.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))


def examples(page: str) -> list[list[str]]:
    """The words of each line of a bash block that calls lora-lab."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.replace(".venv/bin/", "") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"lora-lab\b", line)]


@pytest.mark.parametrize("page", PAGES)
def test_an_example_is_understood(page: str):
    for name, *arguments in filter(None, examples(page)):
        where, parameters = f"{page}: lora-lab {name}", commands.commands[name].params
        known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert given <= known, f"{where} has no {sorted(given - known)}"
        takes = any(isinstance(parameter, click.Argument) for parameter in parameters)
        assert takes or not arguments or arguments[0].startswith(("--", "...")), f"{where} takes no {arguments[0]}"


def test_the_page_has_every_command():
    assert {words[0] for words in examples("docs/commands.md") if words} | {"lab"} == set(commands.commands)
