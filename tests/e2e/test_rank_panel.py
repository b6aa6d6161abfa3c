"""The rank panel on a page: what is dragged is drawn as Python would, a piece at a time, with sentences that flip."""

import base64

import numpy as np
from playwright.sync_api import Locator, expect

from lora_lab.widgets.matrices import unpacked
from lora_lab.widgets.rank_panel import RankPanel
from tests.e2e.pages import Pages, move, panel_of

PIXELS = """c => {
    const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
    return btoa(String.fromCharCode(...data.filter((_, i) => i % 28 === 0)));
}"""


def drawn(panel: Locator) -> np.ndarray:
    """Every seventh entry of the sum: how light it is, 0 to 255."""
    return np.frombuffer(base64.b64decode(panel.locator("canvas.sum").evaluate(PIXELS)), np.uint8)


def test_dragging_redraws_the_cut_in_the_browser(pages: Pages) -> None:
    python = RankPanel("picture", rank=1)
    panel = panel_of(pages.open(python))
    data = python.data["picture"]
    for at, rank in ((2, 2), (20, 32), (12, 12), (0, 0)):  # stops of the slider, up and down
        move(panel, "pieces added", at)
        wanted = unpacked(data, rank).ravel()[::7]
        clear = np.abs(wanted) < 0.95 * data["limit"]
        assert np.corrcoef(drawn(panel)[clear], wanted[clear])[0, 1] > 0.999 if rank else np.ptp(drawn(panel)) == 0
        expect(panel.locator(".big b")).to_have_text(f"{100 * data['kept'][rank][1]:.1f}%")


def test_keys_buttons_and_names_for_those_who_use_no_mouse(pages: Pages) -> None:
    panel = panel_of(pages.open(RankPanel(), still=True))
    slider = panel.get_by_role("slider", name="pieces added")
    expect(panel.locator(".big")).to_contain_text("79.2%")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "rank 1, 7.6% of the energy")
    expect(panel.locator(".big")).to_contain_text("60.6%")
    panel.get_by_role("button", name="add the next piece").press("Enter")
    expect(panel.locator(".big")).to_contain_text("right at rank 2")
    expect(panel.get_by_role("img", name="sum of its first 2 rank-one pieces")).to_be_visible()
    panel.get_by_role("button", name="take it away").press("Enter")
    expect(panel.locator("[role=status]")).to_contain_text("60.6%")
