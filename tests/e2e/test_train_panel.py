"""Lesson 04 as a student meets it: open it, run it, press Start and Stop; and once more without a mouse."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Lab, Watched

LESSON = "04_train_an_adapter.ipynb"
PANEL = ".jp-OutputArea .widget-vbox"


@pytest.fixture
def lesson(watched: Watched) -> Watched:
    """The lesson with every cell run: it stops at the cell that wants a result, and says what to press."""
    page = watched.run_all(LESSON)
    assert page.get_by_text("Jupyter news").count() == 0
    page.locator(PANEL).first.wait_for(timeout=180_000)
    return watched


def words(page: Page) -> str:
    return page.locator(PANEL).first.inner_text()


def button(page: Page, name: str) -> Locator:
    return page.locator(PANEL).first.get_by_role("button", name=name)


def picture(page: Page) -> str:
    return page.locator(f"{PANEL} .lora-shown img").first.evaluate("img => img.naturalWidth + ' ' + img.src")


def test_start_shows_a_moving_curve_and_stop_keeps_what_was_learned(lesson: Watched, lab: Lab) -> None:
    page = lesson.page
    expect(page.locator(".jp-OutputArea").filter(has_text="press Start in the panel above").first).to_be_visible(
        timeout=60_000
    )
    before = picture(page)
    button(page, "Start").click()
    page.wait_for_function(
        f"() => /step (1\\d|[2-9]\\d) of/.test(document.querySelector('{PANEL}').innerText)", timeout=120_000
    )
    during = picture(page)
    page.wait_for_timeout(1500)
    assert before != during != picture(page)  # the curve moves while the kernel is free
    expect(button(page, "Start")).to_be_disabled()
    button(page, "Stop").click()
    expect(page.locator(PANEL).first).to_contain_text("stopped after", timeout=120_000)
    assert re.search(r"accuracy \d+\.\d% on held-out test rows", words(page))
    assert re.search(r"changed its mind on \d+", words(page))
    expect(button(page, "Start")).to_be_enabled()
    assert len(list((lab.folder / "runs").glob("*/adapter_model.safetensors"))) == 1
    assert not lesson.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()


def test_the_panel_is_driven_by_keyboard_alone(lesson: Watched) -> None:
    page = lesson.page
    expect(page.locator(PANEL).first).to_contain_text("73,728 parameters in the adapter", timeout=60_000)
    page.locator(f"{PANEL} select").first.focus()  # from the panel's first control on, only keys
    _tab_to(page, "noUi-handle")
    page.keyboard.press("ArrowRight")  # rank 8 -> 16
    expect(page.locator(PANEL).first).to_contain_text("147,456 parameters in the adapter")
    _tab_to(page, "checkbox")
    page.keyboard.press("Space")  # q off
    expect(page.locator(PANEL).first).to_contain_text("73,728 parameters in the adapter")
    _tab_to(page, "Start")
    page.keyboard.press("Enter")
    expect(page.locator(PANEL).first).to_contain_text(re.compile(r"training: step [1-9]"), timeout=120_000)
    _tab_to(page, "Stop")
    page.keyboard.press("Space")
    expect(page.locator(PANEL).first).to_contain_text("stopped after", timeout=120_000)


def _tab_to(page: Page, wanted: str, presses: int = 40) -> None:
    """Press Tab until the focus is on a control of that class, type or text."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "() => { const e = document.activeElement; return [e.className, e.type, e.innerText].join(' ') }"
        )
        if wanted in here:
            return
    raise AssertionError(f"{presses} Tabs did not reach {wanted}")
