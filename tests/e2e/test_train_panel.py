"""The training panel: what a page shows of a run; lesson 02 as a student meets it, and once more without a mouse."""

import re

from playwright.sync_api import Page, expect

from tests.e2e.conftest import Lab, Watched
from tests.e2e.pages import FOCUSED, Pages, panel_of
from tests.e2e.test_drawn_panels import at_work, train

LESSON = "02_how_sure_are_you.ipynb"
STEP = re.compile(r"Step [1-9]\d* of")


def test_the_title_says_how_much_of_the_result_may_be_luck(pages: Pages) -> None:
    panel = panel_of(pages.open(train()))
    expect(panel.locator(".title")).to_contain_text("80.9% after 400 steps, give or take 1.7 points")
    expect(panel.locator(".title")).to_contain_text("Other seeds of this recipe: 79.0 to 82.0.")
    expect(panel.locator(".words")).to_contain_text("You guessed 75: 5.9 points too low.")
    expect(panel.locator(".words")).to_contain_text("Among 4 seeds of this recipe it is number 2.")
    expect(panel.locator(".changes")).to_contain_text("9 of 50 validation answers changed, 6 for the better and 3 for")
    assert panel.locator(".moved rect").count() == 12


def test_signs_that_no_font_has_are_read_as_windows_wrote_them(pages: Pages) -> None:
    panel = train()
    first = panel.found["sentences"][0] | {"text": "its third \x96 and best"}
    panel.found = panel.found | {"sentences": [first]}
    expect(panel_of(pages.open(panel)).locator(".quoted")).to_have_text("its third – and best")


def test_what_has_the_focus_keeps_it_while_a_run_goes_on(pages: Pages) -> None:
    view = pages.open(at_work(), kernel=True)
    panel_of(view).get_by_role("button", name="Stop").focus()
    for step in (231, 232):
        live = at_work().live | {"step": step}
        view.locator("[data-panel]").evaluate("(e, live) => e.model.set('live', live)", live)
        expect(panel_of(view).locator(".doing")).to_contain_text(f"Step {step}")
    assert view.evaluate(FOCUSED)[0] == "go"
    view.keyboard.press("Space")
    expect(panel_of(view).locator(".doing")).to_contain_text("Stopping after this step")
    assert view.evaluate(FOCUSED)[0] == "go"


def test_a_lesson_is_trained_by_keyboard_alone_and_goes_on_with_what_was_learned(watched: Watched, lab: Lab) -> None:
    page = watched.run_all(LESSON)  # it stops at the cell that wants a result, and says what to press
    panel = panel_of(page)
    panel.wait_for(timeout=180_000)
    assert page.get_by_text("Jupyter news").count() == 0
    expect(page.locator(".jp-OutputArea").filter(has_text="press Start in the panel above").first).to_be_visible(
        timeout=60_000
    )
    panel.get_by_role("button", name="Start").focus()  # the panel's first control; from here on only keys
    _tab_to(page, "targets")
    page.keyboard.press("Space")  # q off
    expect(panel.locator(".count")).to_contain_text("36,864 parameters in the adapter")
    page.keyboard.press("Space")
    expect(panel.locator(".count")).to_contain_text("73,728 parameters in the adapter")
    _tab_to(page, "go", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(panel.locator(".doing")).to_contain_text(STEP, timeout=120_000)
    page.keyboard.press("Space")  # the same button is Stop, and has kept the focus
    expect(panel.locator(".doing")).to_contain_text("Stopped at step", timeout=120_000)
    expect(panel.locator(".big")).to_contain_text("of 2,000 test rows right")
    expect(panel.locator(".changes")).to_contain_text(re.compile(r"\d+ of 500 validation answers changed"))
    assert len(list((lab.folder / "runs" / "02").glob("*/adapter_model.safetensors"))) == 1
    page.locator(".jp-Cell .cm-content").filter(has_text="run = panel.result()").click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea").filter(has_text="stays sealed").first).to_be_visible()
    assert panel.locator(".picture path.pale").count() == 0
    page.locator(".jp-Cell .cm-content").filter(has_text="panel.seeds = FORTY").click()
    page.keyboard.press("Control+Enter")
    expect(panel.locator(".picture path.pale")).to_have_count(1, timeout=60_000)  # the other seeds, in the panel above
    assert not watched.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()


def _tab_to(page: Page, wanted: str, key: str = "Tab") -> None:
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate(FOCUSED)[0] == wanted:
            return
    raise AssertionError(f"20 times {key} did not reach {wanted}")
