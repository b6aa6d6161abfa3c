"""The README is short, and its tables, commands and picture are what the lab has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import lora_lab
from lora_course.cli import commands
from lora_course.panels import voices_panel
from lora_lab.methods import REGISTRY

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS = re.findall(r"^\| (`[a-z].*?) \| .*? \| ([\d,]+) \| .*?\|$", PAGE, re.MULTILINE)
COUNTED = [(words, int(number.replace(",", ""))) for cell, number in METHODS for words in re.findall("`(.*?)`", cell)]


def test_it_is_short_and_one_picture_moves():
    assert len(PAGE.splitlines()) <= 120
    ((words, file),) = re.findall(r"!\[(.*?)\]\((.*?)\)", PAGE)
    assert len(words.split()) >= 15
    assert (ROOT / file).stat().st_size <= 2_000_000
    with Image.open(ROOT / file) as picture:
        assert picture.n_frames > 20


def test_every_method_is_in_the_table():
    assert {words.split()[0] for words, _ in COUNTED} == {*REGISTRY, "qlora"}


@pytest.mark.parametrize(("words", "number"), COUNTED, ids=[words for words, _ in COUNTED])
def test_a_method_trains_as_many_numbers_as_it_says(words: str, number: int):
    done = CliRunner().invoke(commands, ["params", "minilm", "--num-labels", "2", "--method", *words.split(), "--json"])
    assert f'"trainable": {number},' in done.stdout


def test_commands_and_panels_of_the_questions_exist():
    section = PAGE.partition("## Ten questions")[2].partition("\n## ")[0]
    assert section
    for line in re.findall(r"`lora-lab (.*?)`", section):
        name, *options = shlex.split(line)
        known = {option for parameter in commands.commands[name].params for option in parameter.opts}
        assert {word for word in options if word.startswith("--")} <= known, line
    panels = set(re.findall(r"`(\w+Panel)`", section))
    assert [name for name in panels if not hasattr(lora_lab, name) and not hasattr(voices_panel, name)] == []
