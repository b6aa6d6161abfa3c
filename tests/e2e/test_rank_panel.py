"""Tests of the rank panel on a page without a kernel."""

import base64

import numpy as np
from playwright.sync_api import expect

from lora_lab.widgets.matrices import unpacked
from lora_lab.widgets.rank_panel import RankPanel
from tests.e2e.pages import Pages, move, panel_of

EVERY_SEVENTH_PIXEL = """c => { // its brightness, 0 to 255
    const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
    return btoa(String.fromCharCode(...data.filter((_, i) => i % 28 === 0)));
}"""


def test_the_browser_draws_the_sum_that_python_computes(pages: Pages) -> None:
    python = RankPanel("picture", rank=1)
    panel, data = panel_of(pages.open(python)), python.data["picture"]
    for position, rank in ((2, 2), (20, 32), (12, 12), (0, 0)):
        move(panel, "pieces added", position)
        encoded = panel.locator("canvas.sum").evaluate(EVERY_SEVENTH_PIXEL)
        actual = np.frombuffer(base64.b64decode(encoded), np.uint8)
        expected = unpacked(data, rank).ravel()[::7]
        unclipped = np.abs(expected) < 0.95 * data["limit"]
        if rank:
            assert np.corrcoef(actual[unclipped], expected[unclipped])[0, 1] > 0.999
        else:
            assert np.ptp(actual) == 0
        expect(panel.locator(".big b")).to_have_text(f"{100 * data['kept'][rank][1]:.1f}%")


def test_keys_add_and_remove_pieces(pages: Pages) -> None:
    panel = panel_of(pages.open(RankPanel(), reduced=True))
    slider, headline = panel.get_by_role("slider", name="pieces added"), panel.locator(".big")
    expect(headline).to_contain_text("79.2%")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "rank 1, 7.6% of the energy")
    expect(headline).to_contain_text("60.6%")
    panel.get_by_role("button", name="add the next piece").press("Enter")
    expect(headline).to_contain_text("right at rank 2")
    expect(panel.get_by_role("img", name="sum of its first 2 rank-one pieces")).to_be_visible()
    panel.get_by_role("button", name="take it away").press("Enter")
    expect(panel.get_by_role("status")).to_contain_text("60.6%")
