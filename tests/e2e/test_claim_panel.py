"""The claim panel on a page without a kernel: a slider, a menu and the line itself turn the word."""

from __future__ import annotations

from playwright.sync_api import expect

from lora_course.panels.claim_panel import ClaimPanel
from tests.e2e.pages import Pages, panel_of


def test_a_premise_turns_the_word_by_slider_menu_and_line(pages: Pages) -> None:
    panel = panel_of(pages.open(ClaimPanel("4", claims=["3", "4", "11"])))
    word = panel.locator(".big b")
    expect(word).to_have_text("✗ false")
    slider = panel.get_by_role("slider", name="memory of the card")
    for _ in range(3):
        slider.press("ArrowRight")
    expect(word).to_have_text("✓ true")
    expect(panel.locator(".changed")).to_contain_text("24 → 48")
    expect(panel.get_by_role("status")).to_contain_text("true")
    panel.get_by_role("button", name="as claimed").click()
    expect(word).to_have_text("✗ false")
    line, box = panel.locator(".handle").bounding_box(), panel.locator(".picture svg").bounding_box()
    panel.page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 20)
    panel.page.mouse.down()
    panel.page.mouse.move(box["x"] + box["width"] - 5, line["y"] + 20, steps=5)
    panel.page.mouse.up()
    expect(word).to_have_text("✓ true")
    panel.get_by_role("combobox", name="claim").select_option("no_quality_drop")
    expect(panel.locator(".title")).to_contain_text("on par with")
    expect(word).to_have_text("? undecided")
    panel.get_by_role("combobox", name="where").select_option("1")
    panel.get_by_role("slider", name="largest drop").press("End")
    expect(word).to_have_text("✓ true")
    panel.get_by_text("all cases as a table").click()
    expect(panel.locator("table.all tbody tr")).to_have_count(2)
