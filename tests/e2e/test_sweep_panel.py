"""The playground as people use it, on a page without a kernel."""

from typing import Any

from playwright.sync_api import Locator, expect

from tests.e2e.pages import Pages, box_of, move, panel_of
from tests.e2e.test_drawn_panels import sweep


def click(panel: Locator, lr: float, row: int, data: dict[str, Any]) -> None:
    """A click on the middle of a cell of the map."""
    picture = box_of(panel.locator(".picture svg"))
    rows = len(data["ranks"])
    height = min(66, max(36, 330 / rows))
    column = data["rates"].index(lr)
    wide = (picture["width"] - 48) / len(data["rates"])
    x, y = 46 + (column + 0.5) * wide, 24 + (rows - 1 - row + 0.5) * height
    panel.locator(".picture svg").click(position={"x": x, "y": y})


def test_sliders_snap_to_cells_and_show_what_python_says_of_them(pages: Pages) -> None:
    python = sweep(view="rank")
    panel = panel_of(pages.open(python))
    expect(panel.get_by_role("status")).to_be_empty()
    rates = python.data["rates"]
    move(panel, "rank", python.data["ranks"].index(64))
    for lr in (5e-4, 4e-3, 1.1e-2):
        move(panel, "learning rate", rates.index(lr))
        (cell,) = [c for c in python.data["cells"] if (c["rank"], c["alpha"], c["lr"]) == (64, 16.0, lr)]
        expect(panel.locator(".big")).to_contain_text(f"{cell['mean']:.1f}%")
        assert panel.locator(".results circle.train").count() + panel.locator(".results path.ink").count() == 3
    expect(panel.get_by_role("status")).to_contain_text("All collapsed")
    assert panel.locator(".results path.ink").count() == 3  # a cross for each run
    move(panel, "learning rate", 0)
    expect(panel.locator(".big")).to_have_text("not tried")
    panel.get_by_role("button", name="go to the best cell").press("Enter")
    expect(panel.locator(".words")).to_contain_text("The best cell of this map")


def test_a_line_is_drawn_only_after_it_was_predicted_and_one_at_a_time(pages: Pages) -> None:
    python = sweep(view="alpha")
    view = pages.open(python)
    panel = panel_of(view)
    expect(panel.locator(".question")).to_contain_text("Predict")
    assert panel.locator(".iso").count() == 0
    expect(panel.locator(".title")).to_contain_text("Which slider moves accuracy most?")
    panel.get_by_role("radio", name="falls with α", exact=True).dispatch_event("click")
    expect(panel.locator(".title")).to_contain_text("The learning rate matters most")
    assert panel.locator(".iso").count() == 1
    lost = python.data["lines"]["alpha"]["q,v|8"]["whole"]["lost"]
    expect(panel.locator(".fits")).to_contain_text(f"Your prediction (falls with α) loses {lost:.1f} points")
    panel.get_by_role("radio", name="falls with √α").dispatch_event("click")
    assert panel.locator(".iso").count() == 1
    expect(panel.locator(".fits")).to_contain_text("You predicted “falls with α”")
    assert view.locator("[data-panel]").evaluate("e => e.model.get('guess')") == {"alpha": "whole"}
    panel.get_by_role("radio", name="rate × rank").dispatch_event("click")
    expect(panel.locator(".question")).to_contain_text("Predict")  # each map has a prediction of its own
    assert panel.locator(".iso").count() == 0


def test_a_page_without_a_kernel_offers_no_training(pages: Pages) -> None:
    python = sweep(view="rank")
    view = pages.open(python)
    panel = panel_of(view)
    click(panel, python.data["rates"][0], python.data["ranks"].index(64), python.data)
    expect(panel.locator(".big")).to_have_text("not tried")
    expect(panel.get_by_role("button")).to_have_text(["go to the best cell"])
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    assert view.locator("[data-panel]").evaluate("e => e.model.get('picked')") == []
