"""Lesson 04 as a student meets it: open it, run it, press Start and Stop; and once more without a mouse."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Lab, Watched
from tests.e2e.pages import FOCUSED, panel_of

LESSON = "04_train_an_adapter.ipynb"
STEP = re.compile(r"Step [1-9]\d* of")


@pytest.fixture
def lesson(watched: Watched) -> Watched:
    """The lesson with every cell run: it stops at the cell that wants a result, and says what to press."""
    page = watched.run_all(LESSON)
    assert page.get_by_text("Jupyter news").count() == 0
    panel_of(page).wait_for(timeout=180_000)
    return watched


def test_stop_keeps_what_was_learned_and_the_lesson_goes_on_with_it(lesson: Watched, lab: Lab) -> None:
    page, panel = lesson.page, panel_of(lesson.page)
    expect(page.locator(".jp-OutputArea").filter(has_text="press Start in the panel above").first).to_be_visible(
        timeout=60_000
    )
    panel.get_by_role("button", name="Start").click()
    expect(panel.locator(".doing")).to_contain_text(STEP, timeout=120_000)
    panel.get_by_role("button", name="Stop").click()
    expect(panel.locator(".doing")).to_contain_text("Stopped at step", timeout=120_000)
    expect(panel.locator(".big")).to_contain_text("of 2,000 test rows right")
    expect(panel.locator(".changes")).to_contain_text(re.compile(r"\d+ of 500 validation answers changed"))
    assert len(list((lab.folder / "runs").glob("*/adapter_model.safetensors"))) == 1
    page.locator(".jp-Cell .cm-content").filter(has_text="run = panel.result()").click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea").filter(has_text="accuracy on test sentences").first).to_be_visible()
    assert not lesson.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()


def test_the_panel_is_driven_by_keyboard_alone(lesson: Watched) -> None:
    page, panel = lesson.page, panel_of(lesson.page)
    expect(panel.locator(".count")).to_contain_text("73,728 parameters in the adapter", timeout=60_000)
    panel.get_by_role("button", name="Start").focus()  # the panel's first control; from here on only keys
    _tab_to(page, "rank")
    page.keyboard.press("ArrowRight")  # 8 -> 16
    expect(panel.locator(".count")).to_contain_text("147,456 parameters in the adapter")
    _tab_to(page, "targets")
    page.keyboard.press("Space")  # q off
    expect(panel.locator(".count")).to_contain_text("73,728 parameters in the adapter")
    _tab_to(page, "go", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(panel.locator(".doing")).to_contain_text(STEP, timeout=120_000)
    page.keyboard.press("Space")  # the same button is Stop, and has kept the focus
    expect(panel.locator(".doing")).to_contain_text("Stopped at step", timeout=120_000)


def _tab_to(page: Page, wanted: str, key: str = "Tab") -> None:
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate(FOCUSED)[0] == wanted:
            return
    raise AssertionError(f"20 times {key} did not reach {wanted}")
