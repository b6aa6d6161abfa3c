"""The mixer: filled dots are right answers, and the texts whose answer changes at a share are quoted."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.pages import Pages, move, panel_of
from tests.e2e.test_drawn_panels import mixer


def test_dots_and_quotes_follow_the_share(pages: Pages) -> None:
    python = mixer()
    panel = panel_of(pages.open(python))
    for position in (0, 10, 14, 20):
        move(panel, "share", position)
        right = round(2 * python.right[position])
        assert panel.locator(".picture circle.train").count() == right
        assert panel.locator(".picture circle.no").count() == 200 - right
    move(panel, "share", 13)
    turned = round(2 * (python.right[12] - python.right[13]))
    expect(panel.locator(".question")).to_have_text(f"{turned} answers change between 0.6 and 0.65")
    assert panel.locator("li").count() == 3
    panel.get_by_text("every share in numbers").click()
    expect(panel.locator("tr.now")).to_contain_text("0.65")
