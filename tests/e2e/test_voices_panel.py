"""The voices panel on a page: stored answers at a strength; and what was said is shown, never interpreted."""

from __future__ import annotations

from playwright.sync_api import expect

from lora_course.panels.voices_panel import VoicesPanel, read_stored
from tests.e2e.pages import Pages, panel_of


def test_each_question_and_strength_has_its_stored_answers(pages: Pages) -> None:
    stored = read_stored()
    panel = panel_of(pages.open(VoicesPanel()))
    captain = panel.locator("[data-voice=captain]")
    panel.get_by_role("combobox", name="question").select_option(stored["questions"][3])
    expect(captain).to_contain_text(stored["answers"]["captain"]["1"][3])
    expect(panel.locator("[data-voice=told]")).to_contain_text(stored["answers"]["told"]["0"][3].split("\n")[0])
    strength = panel.get_by_role("slider", name="strength")
    strength.press("Home")
    expect(captain).to_contain_text(stored["answers"]["base"]["0"][3].split("\n")[0])
    expect(panel.locator(".picture svg")).to_have_attribute(
        "aria-label", "Bars to scale: the base 538 MB, captain 2.5 MB, json 2.5 MB, preacher 2.5 MB."
    )
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    expect(panel.get_by_role("button")).to_have_count(0)  # nobody can answer
