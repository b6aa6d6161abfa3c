"""The class panel: what two laptops left, enlarged for a projector, and a guess that comes late."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from lora_course.panels.class_panel import ClassPanel
from tests.e2e.pages import Pages, box_of, class_in, panel_of


def test_guesses_stand_beside_what_was_measured_and_the_map_is_pulled_where_it_is_touched(
    pages: Pages, tmp_path: Path
) -> None:
    python = ClassPanel(class_in(tmp_path / "class"))
    view = pages.open(python, width=1200, kernel=True)
    panel = panel_of(view)
    assert panel.locator(".guesses circle").count() == 3
    assert len({box_of(dot)["x"] for dot in panel.locator(".guesses circle").all()}) == 2  # equal ones are stacked
    expect(panel.locator(".near")).to_have_text("ada is nearest with 81%.")
    expect(panel.locator(".guessed")).to_contain_text(f"measured, {python.classroom['measured']:.1f}%")
    expect(panel.get_by_role("button", name="run these")).to_have_count(0)
    map_box, chosen = box_of(panel.locator(".picture svg")), panel.locator(".chosen")
    assert map_box["width"] > 1.3 * (panel.locator(".picture").evaluate("e => e.clientWidth"))
    before = box_of(chosen)
    view.mouse.click(before["x"] + 1.5 * before["width"], before["y"] + before["height"] / 2)
    assert abs(box_of(chosen)["x"] - before["x"] - before["width"]) < 4
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.locator(".kernel")).to_contain_text("Waiting for the kernel")
