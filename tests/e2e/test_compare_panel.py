"""The comparison on a page without a kernel: the margin is dragged, the rival and the pair are clicked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from lora_course.lesson import reference_comparison
from lora_lab import ComparePanel
from tests.comparisons import comparison
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
        low, high = next(ends for start, *ends in reversed(entry["within"]) if start <= at)
        expect(panel.locator(".words")).to_contain_text(f"{100 * low:.1f} to {100 * high:.1f}".replace("-", "−"))


def test_the_pair_is_clicked_and_the_rival_is_one_of_the_cards(pages: Pages) -> None:
    python = ComparePanel()
    view = pages.open(python)
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
    dots = panel.locator(".picture circle")
    assert dots.count() == 5 * 5
    panel.get_by_role("combobox", name="method").select_option("probe")
    assert panel.locator(".picture circle.train").count() == 5


def test_the_axis_is_chosen_and_one_without_numbers_is_not_offered(pages: Pages) -> None:
    panel = panel_of(pages.open(ComparePanel()))
    assert panel.locator("input[name=axis]").nth(2).is_hidden()  # nobody measured the time of these runs undisturbed
    before = panel.locator(".picture svg").inner_html()
    panel.get_by_text("memory", exact=True).first.click()
    expect(panel.locator(".picture svg")).to_contain_text("MiB")
    assert panel.locator(".picture svg").inner_html() != before
    timed = panel_of(pages.open(ComparePanel(reference=reference_comparison("minilm_rt"))))
    timed.get_by_text("time", exact=True).first.click()
    expect(timed.locator(".picture svg")).to_contain_text("seconds of a run")


def test_a_button_goes_to_where_the_word_changes(pages: Pages) -> None:
    panel = panel_of(pages.open(ComparePanel()))
    words = [panel.locator(".big").inner_text()]
    for _ in range(2):
        panel.get_by_role("button", name="where the word changes").press("Enter")
        words.append(panel.locator(".big").inner_text())
    assert "but within the margin" in words[1]
    assert words[0].split()[0] == words[2].split()[0] == "worse"
    assert "but within" not in words[2]
    ten = panel_of(pages.open(ComparePanel(reference=reference_comparison("minilm_rt"))))
    expect(ten.get_by_role("button", name="where the word changes")).to_be_disabled()
    move(ten, "margin", 30)
    expect(ten.locator(".words")).to_contain_text("only its own margin of 1.5 points was tested")


def test_undecided_says_what_would_decide_and_together_says_what_holm_does(pages: Pages) -> None:
    python = ComparePanel()
    python.method, python.rival, python.margin = "LoRA r8 all-linear", "LoRA r8 q,v", 0.006
    entry = python.stored["against"]["LoRA r8 q,v"]["LoRA r8 all-linear"]
    panel = panel_of(pages.open(python))
    assert (entry["outcomes"][5], entry["together"][5]) == ("e", "u")
    expect(panel.locator(".holm")).to_contain_text("one of 4 questions at once (Holm’s correction), it is undecided")
    move(panel, "margin", 4)
    expect(panel.locator(".big")).to_contain_text("undecided")
    seeds, rows = entry["more"][-1]
    assert seeds is None or rows  # the sentence has one of them
    expect(panel.locator(".words")).to_contain_text(f"{rows:,} more test sentences")


def test_studies_that_miss_are_marked_and_go_by_with_their_slider(pages: Pages) -> None:
    python = ComparePanel()
    python.resample(200)
    studies, truth = python.dance["studies"], python.dance["truth"]
    missed = [not low <= truth <= high for _, low, high in studies]
    panel = panel_of(pages.open(python))
    assert panel.locator(".studies .miss").count() == sum(missed) > 0
    expect(panel.locator(".misses")).to_contain_text(f"{sum(missed)} of 100 intervals miss the truth")
    move(panel, "studies", 50)
    assert panel.locator(".studies .study").count() == 50
    assert panel.locator(".studies .miss").count() == sum(missed[:50])
    undecided = [one[14] for one in python.dance["outcomes"]].count("u")
    move(panel, "studies", 100)
    expect(panel.locator(".misses")).to_contain_text(f"{undecided} undecided")
    panel.get_by_role("combobox", name="method").select_option("probe")
    expect(panel.locator(".dance")).to_be_hidden()  # they were studies of another pair


def test_your_own_comparison_stands_before_the_reference(pages: Pages) -> None:
    python = ComparePanel(reference=comparison())
    python.mine, python.view = ComparePanel(reference=comparison("lora", "full", seeds=2)).stored, "mine"
    panel = panel_of(pages.open(python))
    assert panel.locator(".picture circle.dot").count() == 2 * 2
    panel.get_by_text("the reference", exact=True).click()
    assert panel.locator(".picture circle.dot").count() == 10 * 5
    python.mine = ComparePanel(reference=comparison("lora", seeds=2)).stored  # while the second one trains
    one = panel_of(pages.open(python))
    expect(one.locator(".title")).to_have_text("LoRA r8 q,v, and nothing to compare it with yet")
    assert one.locator(".picture circle.dot").count() == 2
    nothing = panel_of(pages.open(ComparePanel(task="kjv")))
    expect(nothing.locator(".title")).to_have_text("Nothing is compared yet")


def test_names_are_shown_and_never_interpreted(pages: Pages) -> None:
    found = comparison("lora", "full")
    found["methods"][0]["label"] = "<b>LoRA</b> & co"
    panel = panel_of(pages.open(ComparePanel(reference=found)))
    expect(panel.locator(".title")).to_contain_text("<b>LoRA</b> & co trains")
    for shown in (".picture svg", ".forest svg", ".cards", ".facts"):
        expect(panel.locator(shown)).to_contain_text("<b>LoRA</b> & co")
    assert panel.get_by_role("combobox").locator("option").all_inner_texts() == ["<b>LoRA</b> & co"]
