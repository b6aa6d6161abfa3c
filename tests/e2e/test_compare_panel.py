"""The comparison on a page without a kernel: the margin is dragged, the rival and the pair are clicked."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from lora_lab import ComparePanel
from tests.e2e.pages import Pages, box_of, move, panel_of

WORD = {
    "b": "better", "w": "worse", "e": "equivalent", "B": "better but within the margin", "u": "undecided",
    "W": "worse but within the margin",
}  # fmt: skip


def value(view: Page, trait: str) -> Any:
    return view.locator("[data-panel]").evaluate("(e, name) => e.model.get(name)", trait)


def edge_of(panel: Locator) -> tuple[float, float]:
    """The middle of the right edge of the band, in pixels of the window."""
    box = box_of(panel.locator(".forest .grip").last)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_edge_of_the_band_is_dragged_and_the_word_is_what_python_found(pages: Pages) -> None:
    python = ComparePanel()
    view = pages.open(python)
    panel = panel_of(view)
    panel.locator(".forest").scroll_into_view_if_needed()
    entry = python.stored["against"]["full"]["LoRA r8 q,v"]
    x, y = edge_of(panel)
    view.mouse.move(x, y)
    view.mouse.down()
    seen = set()
    for far in (20, 35, 45, -30, -45):
        view.mouse.move(x + far, y, steps=2)
        at = python.stored["margins"].index(value(view, "margin"))
        expect(panel.locator(".big")).to_contain_text(WORD[entry["outcomes"][at]])
        assert edge_of(panel)[0] == pytest.approx(x + far, abs=4)  # the edge is under the mouse
        seen.add(entry["outcomes"][at])
    view.mouse.up()
    assert seen == {"w", "W"}
    for at in range(0, 60, 9):
        move(panel, "margin", at)
        expect(panel.locator(".big")).to_contain_text(WORD[entry["outcomes"][at]])
    for _ in range(2):  # there is one change, from w to W, and it stays there
        panel.get_by_role("button", name="where the verdict changes").click()
        assert python.stored["margins"].index(value(view, "margin")) == entry["outcomes"].index("W")


def test_the_pair_is_clicked_and_the_rival_is_one_of_the_cards(pages: Pages) -> None:
    view = pages.open(ComparePanel())
    panel = panel_of(view)
    row = box_of(panel.locator(".forest text", has_text="all-linear"))
    forest = box_of(panel.locator(".forest svg"))
    panel.locator(".forest svg").click(position={"x": 30, "y": row["y"] - forest["y"] + 8})
    expect(panel.get_by_role("combobox", name="method")).to_have_value("LoRA r8 all-linear")
    expect(panel.locator(".title")).to_contain_text("LoRA r8 all-linear trains 1.46% of the numbers")
    card = panel.get_by_role("radio", name=re.compile("^LoRA r8 q,v: trains A and B beside q, v"))
    card.check(force=True)  # its label is what is seen
    expect(panel.locator(".big")).to_contain_text("equivalent")
    expect(panel.get_by_role("status")).to_contain_text("at a margin of 1.5 points it is equivalent")
    panel.get_by_role("radio", name=re.compile("^LoRA r8 all-linear")).check(force=True)
    assert (value(view, "method"), value(view, "rival")) == ("LoRA r8 q,v", "LoRA r8 all-linear")  # change places
