"""Panels by Voila: the page for a projector, behind a token, and nothing asked of any other machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import serving
from tests.e2e.pages import elsewhere, panel_of
from tests.e2e.test_drawn_panels import EVERY, every_panel_is_drawn

SHOW = "from lora_course import cli; from lora_course.classroom import projector as page"
SHOW += f"; page.PANELS += ({EVERY!r},); cli.main()"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A running page, with one more cell, that can reach nobody."""
    options = ["--no-browser", "--port", "0", "--out", str(tmp_path / "runs")]
    with serving(["-c", SHOW, "show", *options], tmp_path) as address:
        yield address
        assert not (tmp_path / "blocked").exists()


def test_panels_are_live_behind_a_token_and_ask_no_other_machine(browser: Browser, address: str) -> None:
    page = browser.new_page()
    asked = elsewhere(page)
    page.goto(address.partition("?")[0])
    assert "/login" in page.url  # without the token it shows nothing
    page.goto(address, wait_until="commit")  # the rest of the page comes as the cells are run
    page.locator(".lab-panel .card").nth(2).wait_for(timeout=400_000)
    every_panel_is_drawn(page, first=3)
    panel_of(page, 2).get_by_role("button", name="Start").click()
    expect(panel_of(page, 2).get_by_role("button", name="Stop")).to_be_enabled()  # the kernel answers
    assert not asked
    page.close()
