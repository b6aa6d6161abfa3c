"""Tests of the comparison panel on a page without a kernel."""

import re

import pytest
from playwright.sync_api import expect

from lora_lab import ComparePanel
from tests.e2e.pages import Pages, box_of, center, move, panel_of, trait

VERDICTS = {
    "b": "better", "w": "worse", "e": "equivalent", "B": "better but within the margin", "u": "undecided",
    "W": "worse but within the margin",
}  # fmt: skip


def test_the_margin_is_dragged_and_the_verdict_is_pythons(pages: Pages) -> None:
    python = ComparePanel()
    outcomes, margins = python.stored["against"]["full"]["LoRA r8 q,v"]["outcomes"], python.stored["margins"]
    page = pages.open(python)
    panel = panel_of(page)
    headline, grip = panel.locator(".big"), panel.locator(".forest .grip").last
    panel.locator(".forest").scroll_into_view_if_needed()
    x, y = center(grip)
    page.mouse.move(x, y)
    page.mouse.down()
    reached = set()
    for dx in (20, 35, 45, -30, -45):
        page.mouse.move(x + dx, y, steps=2)
        outcome = outcomes[margins.index(trait(page, "margin"))]
        expect(headline).to_contain_text(VERDICTS[outcome])
        assert center(grip)[0] == pytest.approx(x + dx, abs=4)
        reached.add(outcome)
    page.mouse.up()
    assert reached == {"w", "W"}
    for position in range(0, 60, 9):
        move(panel, "margin", position)
        expect(headline).to_contain_text(VERDICTS[outcomes[position]])
    for _ in range(2):  # the only change, so a second click stays there
        panel.get_by_role("button", name="where the verdict changes").click()
        assert margins.index(trait(page, "margin")) == outcomes.index("W")


def test_a_method_and_a_rival_are_chosen_by_click(pages: Pages) -> None:
    python = ComparePanel()
    python.resample(200, count=20)
    page = pages.open(python)
    panel = panel_of(page)
    expect(panel.locator(".misses")).to_contain_text("of 20 intervals miss the truth")
    row, forest = box_of(panel.locator(".forest text", has_text="all-linear")), panel.locator(".forest svg")
    forest.click(position={"x": 30, "y": row["y"] - box_of(forest)["y"] + 8})
    expect(panel.get_by_role("combobox", name="method")).to_have_value("LoRA r8 all-linear")
    expect(panel.locator(".title")).to_contain_text("LoRA r8 all-linear trains 1.46% of the parameters")
    rival = panel.get_by_role("radio", name=re.compile("^LoRA r8 q,v: trains A and B beside q, v"))
    rival.check(force=True)  # only its label is visible
    expect(panel.locator(".big")).to_contain_text("equivalent")
    expect(panel.locator(".misses")).to_contain_text("about another pair of methods")
    expect(panel.get_by_role("status")).to_contain_text("at a margin of 1.5 points it is equivalent")
    panel.get_by_role("radio", name=re.compile("^LoRA r8 all-linear")).check(force=True)  # the two change places
    assert (trait(page, "method"), trait(page, "rival")) == ("LoRA r8 q,v", "LoRA r8 all-linear")
