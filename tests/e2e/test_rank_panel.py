"""The rank panel as a student meets it: drag, and the browser itself draws what Python would have drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lora_lab.experiments.low_rank import decompose, truncated
from lora_lab.widgets.matrices import picture
from tests.e2e.conftest import Lab, Watched, watching

LESSON = "01_why_low_rank.ipynb"
MILLISECONDS = 50  # of the promise, at 256 x 256 up to rank 64


@pytest.fixture(scope="module")
def watched(browser: Browser, lab: Lab) -> Iterator[Watched]:
    """One page for all tests here: the lesson runs once."""
    with watching(browser, lab) as watched:
        yield watched


@pytest.fixture(scope="module")
def panel(watched: Watched) -> Locator:
    """The lesson's first rank panel, live."""
    page = watched.run_all(LESSON)
    found = page.locator(".lora-rank").first
    found.wait_for(timeout=120_000)
    found.scroll_into_view_if_needed()
    return found


def drag(panel: Locator, rank: int) -> None:
    """What a drag to that rank does; the view has redrawn when this returns."""
    panel.get_by_role("slider").evaluate(
        "(e, r) => { e.value = r; e.dispatchEvent(new Event('input', { bubbles: true })) }", rank
    )


def pixels(panel: Locator, number: int = 1) -> np.ndarray:
    """The grey levels of a canvas: 0 the original, 1 the cut, 2 what is missing."""
    read = (
        "(c) => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 == 0))"
    )
    return np.array(panel.locator("canvas").nth(number).evaluate(read)).reshape(256, 256)


def test_dragging_redraws_the_cut_in_the_browser(panel: Locator, watched: Watched, lab: Lab) -> None:
    u, s, vt = decompose(picture())
    for rank in (2, 64, 12):  # up and down
        drag(panel, rank)
        expected = 127.5 * (1 + truncated(u, s, vt, rank).clip(-1, 1))
        assert np.abs(pixels(panel) - expected).max() <= 1  # rounding to a grey level
        assert np.abs(pixels(panel, 2) - 127.5 * (1 + picture() - truncated(u, s, vt, rank)).clip(0, 2)).max() <= 1
        expect(panel.locator("output")).to_have_text(f"r = {rank}")
    expect(panel.locator("[aria-live]")).to_contain_text("Rank 12 of 256 keeps 97.4% of the energy")
    assert not watched.elsewhere  # its JavaScript comes from this machine
    assert not lab.blocked.exists(), lab.blocked.read_text()


def test_a_redraw_takes_less_than_a_blink(panel: Locator) -> None:
    times = []
    for rank in (1, 64, 2, 63, 4, 60, 8, 32, 16, 64, 1):
        drag(panel, rank)
        times.append(float(panel.get_attribute("data-milliseconds") or "nan"))
    print("redraws, ms:", times)
    assert float(np.median(times)) < MILLISECONDS


def test_keys_buttons_and_names_for_those_who_use_no_mouse(panel: Locator) -> None:
    page: Page = panel.page
    slider = panel.get_by_role("slider", name="rank: singular values kept")
    drag(panel, 1)
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(panel.locator("output")).to_have_text("r = 2")
    assert "rank 2" in (slider.get_attribute("aria-valuetext") or "")
    panel.get_by_role("button", name="32", exact=True).press("Enter")
    expect(panel.get_by_role("img", name="the matrix cut at rank 32")).to_be_visible()
    expect(panel.get_by_role("row").filter(has_text="numbers stored")).to_contain_text("16,384 of m n = 65,536 (25.0%)")
    panel.get_by_role("combobox", name="matrix").select_option("update")
    expect(panel.get_by_role("img", name="the original: an update")).to_be_visible()
    expect(panel.locator("[aria-live]")).to_contain_text("Rank 32 of 384 keeps 100.0% of the energy")
