"""Every panel for everyone: named for screen readers (axe), by keyboard alone, light and dark, narrow and wide.

With LORA_LAB_SCREENSHOTS=FOLDER a picture of each panel in each of the four looks is written there, to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e import everyone
from tests.e2e.conftest import Lab, Watched, watching

SERIOUS = ("serious", "critical")
PICTURED = [*everyone.PANELS]  # a PNG and, below it, its numbers
NARROW, USUAL, WIDE = 800, 1400, 1600  # pixels of the window; JupyterLab leaves a panel about 450 of the first
CONTROLS = """panel => {
    const kinds = 'a[href], button, input, select, textarea, summary, [tabindex], [contenteditable=true]';
    const reached = e => (e.tabIndex >= 0 || e.isContentEditable) && !e.disabled && e.checkVisibility();
    const there = [...panel.querySelectorAll(kinds)].filter(reached);
    there.forEach((e, i) => e.dataset.key = i);
    return there.map(e => e.getBoundingClientRect().bottom);
}"""
FOCUSED = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const outline = style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
    return { key: Number(e.dataset.key ?? -1), outline };
}"""


@pytest.fixture(scope="module")
def opened(browser: Browser, lab: Lab) -> Iterator[Watched]:
    """One page for all tests here: the notebook with all panels, run once."""
    with watching(browser, lab) as watched:
        page = watched.run_all(everyone.write(lab.folder))
        for name in everyone.PANELS:
            panel(page, name).wait_for(timeout=180_000)
        named = len(everyone.PANELS)
        page.wait_for_function(f"() => document.querySelectorAll('.lora-panel[aria-label]').length >= {named}")
        page.evaluate(AXE_SCRIPT)
        yield watched


@pytest.fixture
def page(opened: Watched) -> Iterator[Page]:
    yield opened.page
    opened.page.set_viewport_size({"width": USUAL, "height": 1000})


def panel(page: Page, name: str) -> Locator:
    cell = page.locator(".jp-CodeCell").nth(list(everyone.PANELS).index(name))
    return cell.locator(".lora-panel").first


def violations(shown: Locator) -> list[str]:
    """What axe calls serious or critical in a panel; what JupyterLab has around it is not ours."""
    shown.evaluate("e => e.querySelectorAll('details').forEach(one => one.open = true)")
    found: dict[str, Any] = shown.evaluate("e => axe.run(e, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {one['help']}: {node['html'][:300]} {[why['message'] for why in node['any']]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("name", everyone.PANELS)
def test_axe_finds_nothing_serious(page: Page, name: str) -> None:
    assert not violations(panel(page, name))


def test_axe_would_find_what_has_no_words(page: Page) -> None:
    shown = panel(page, "class").locator(".lora-shown img").first
    said = shown.get_attribute("alt")
    shown.evaluate("e => e.removeAttribute('alt')")
    assert any(one.startswith("image-alt:") for one in violations(panel(page, "class")))
    shown.evaluate("(e, said) => e.setAttribute('alt', said)", said)


@pytest.mark.parametrize("name", everyone.PANELS)
def test_tab_goes_through_every_control_in_order_seen_and_out_again(page: Page, name: str) -> None:
    shown = panel(page, name)
    bottoms = shown.evaluate(CONTROLS)
    assert bottoms
    shown.locator("[data-key='0']").first.evaluate("e => e.focus({ focusVisible: true })")
    for number, bottom in enumerate(bottoms):
        here = page.evaluate(FOCUSED)
        assert here["key"] == number
        assert here["outline"] >= 2, f"control {number} does not show that it has the focus"
        assert bottom >= max(bottoms[:number], default=bottom) - 30  # never back up by a line
        page.keyboard.press("Tab")
    assert not shown.evaluate("e => e.contains(document.activeElement)")  # no trap
    shown.locator(f"[data-key='{len(bottoms) - 1}']").evaluate("e => e.focus()")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED)["key"] == len(bottoms) - 2
    shown.evaluate("e => e.querySelectorAll('[data-key]').forEach(one => delete one.dataset.key)")


@pytest.mark.parametrize("name", PICTURED)
def test_each_picture_is_told_in_words_and_in_numbers(page: Page, name: str) -> None:
    shown = panel(page, name)
    for picture in shown.locator(".lora-shown img").all():
        assert len(picture.get_attribute("alt") or "") > 40
    folded = shown.locator(".lora-shown details:visible")
    for one in folded.all():
        one.evaluate("e => e.open = false")
        one.locator("summary").press("Enter")
        expect(one.locator("tbody tr").first).to_be_visible()
    assert shown.locator("table:visible").first.locator("tbody tr").count() > 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_nothing_is_cut_off_and_all_is_read_in_each_theme_and_width(page: Page, theme: str) -> None:
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    for step in ("Theme", f"JupyterLab {theme}"):
        page.locator(".lm-Menu-itemLabel").get_by_text(step, exact=True).first.click()
    page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
    for width in (NARROW, WIDE):
        page.set_viewport_size({"width": width, "height": 2800})  # a whole panel at a time
        page.wait_for_timeout(500)
        for name in everyone.PANELS:
            shown = panel(page, name)
            over = shown.evaluate("e => e.scrollWidth - e.clientWidth")
            assert over <= 1, f"{name} is {over} pixels wider than its {width}-pixel window"
            _look(shown, f"{name}-{theme.lower()}-{'narrow' if width == NARROW else 'wide'}.png")
    if theme == "Dark":
        found = {name: bad for name in everyone.PANELS if (bad := violations(panel(page, name)))}
        assert not found


def test_all_of_it_comes_from_this_machine(opened: Watched, lab: Lab) -> None:
    assert not opened.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()


def _look(shown: Locator, file: str) -> None:
    """A picture for a person to look at, where one was asked for."""
    if folder := os.environ.get("LORA_LAB_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shown.screenshot(path=Path(folder, file))
