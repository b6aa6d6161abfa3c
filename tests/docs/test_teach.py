"""The instructor's plans add up: of boxes, of the machine's time in each, and of the minutes of their exercises."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "teach.md").read_text(encoding="utf-8")
TIMES = json.loads((ROOT / "data" / "results" / "lesson_times.json").read_text(encoding="utf-8"))
STOP = "**Stop here**"


class Box(NamedTuple):
    start: int  # minutes since midnight, or since the beginning
    minutes: int
    lesson: str
    whole: bool
    machine: float


def plan(title: str) -> list[Box]:
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in section.splitlines() if re.match(r"\| \d+:\d\d", line)]
    boxes = []
    for line in rows:
        hours, minutes = line[0].split(":")
        lesson, _, extent = (line[3] if len(line) > 3 else "").partition(" ")
        seconds = float(line[4].removesuffix(" s")) if len(line) > 4 else 0
        boxes.append(Box(60 * int(hours) + int(minutes), int(line[1]), lesson, extent == "whole", seconds))
    return boxes


def times(box: Box) -> tuple[dict, float]:
    (record,) = (value for name, value in TIMES.items() if name.startswith(box.lesson))
    return record, record["seconds" if box.whole else "seconds_to_stop"]


def exercises(box: Box) -> int:
    """Minutes that the lesson gives to its exercises, as far as the box goes."""
    (source,) = (ROOT / "notebooks" / "src").glob(f"{box.lesson}_*.py")
    text = source.read_text(encoding="utf-8")
    text = text if box.whole else text.split(STOP)[0]
    return sum(map(int, re.findall(r"Exercise \d+ · (\d+) minutes", text)))


PLANS = {"Ninety minutes": 90, "One day": 480}
every_plan = pytest.mark.parametrize("title", PLANS)


@every_plan
def test_boxes_follow_each_other_and_fill_the_time(title: str):
    boxes = plan(title)
    assert sum(box.minutes for box in boxes) <= PLANS[title]
    for box, after in pairwise(boxes):
        assert box.start + box.minutes == after.start


@every_plan
def test_each_box_has_room_for_what_the_machine_took_and_for_the_exercises(title: str):
    for box in [box for box in plan(title) if box.lesson]:
        record, seconds = times(box)
        assert (record["status"], record["errors"]) == ("ran", []), box
        assert abs(box.machine - seconds) <= 1, f"{box}: measured were {seconds} s"
        assert box.minutes * 60 >= seconds + 60 * exercises(box), box


def test_the_arithmetic_of_the_page_is_right():
    sums = re.findall(r"`([\d_.*/+() x-]+)` = ([\d.]+)", PAGE)
    assert len(sums) >= 3
    for expression, said in sums:
        digits = len(said.partition(".")[2].rstrip("."))
        assert f"{eval(expression):.{digits}f}" == said.rstrip("."), expression


def test_every_lesson_that_was_measured_was_graded_right_and_did_nothing_that_is_refused():
    for name, record in TIMES.items():
        right, of = record["right"].split(" of ")
        assert right == of != "0", name
        assert record["refused"] == [], name


def test_the_commands_of_the_page_exist():
    from lora_lab.cli import commands

    named = set(re.findall(r"lora-lab ([a-z]+)", PAGE)) - {"wheelhouse"}
    assert named <= set(commands.commands), named - set(commands.commands)
