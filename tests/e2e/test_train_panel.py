"""Tests of the training panel on a page without a kernel."""

from playwright.sync_api import expect

from tests.e2e.pages import FOCUSED, Pages, panel_of
from tests.e2e.panels import train, training


def test_a_finished_run_is_described_with_its_uncertainty(pages: Pages) -> None:
    python = train()
    first = python.found["sentences"][0] | {"text": "its third \x96 and best"}  # a Windows dash, which no font has
    python.found = python.found | {"sentences": [first]}
    panel = panel_of(pages.open(python))
    expect(panel.locator(".title")).to_contain_text("80.9% ± 1.7 points after 400 steps")
    expect(panel.locator(".title")).to_contain_text("Other seeds of this recipe: 79.0 to 82.0.")
    expect(panel.locator(".words")).to_contain_text("You guessed 75: 5.9 points too low.")
    expect(panel.locator(".words")).to_contain_text("Among 4 seeds of this recipe, this run ranks number 2.")
    expect(panel.locator(".changes")).to_contain_text("changed 9 of 50 validation answers, 6 for the better and 3 for")
    expect(panel.locator(".moved rect")).to_have_count(12)
    expect(panel.locator(".quoted")).to_have_text("its third – and best")


def test_a_focused_button_keeps_the_focus_while_a_run_goes_on(pages: Pages) -> None:
    python = training()
    page = pages.open(python, kernel=True)
    panel = panel_of(page)
    panel.get_by_role("button", name="Stop").focus()
    for step in (231, 232):
        page.locator("[data-panel]").evaluate("(e, live) => e.model.set('live', live)", python.live | {"step": step})
        expect(panel.locator(".doing")).to_contain_text(f"Step {step}")
    assert page.evaluate(FOCUSED)[0] == "go"
    page.keyboard.press("Space")
    expect(panel.locator(".doing")).to_contain_text("Stopping after this step")
    assert page.evaluate(FOCUSED)[0] == "go"
