"""Tests of the sweep panel on a page without a kernel."""

from playwright.sync_api import expect

from tests.e2e.pages import Pages, box_of, move, panel_of, trait
from tests.e2e.panels import sweep


def test_sliders_snap_to_cells_and_show_their_results(pages: Pages) -> None:
    python = sweep(view="rank")
    panel = panel_of(pages.open(python))
    status, headline = panel.get_by_role("status"), panel.locator(".big")
    expect(status).to_be_empty()
    rates = python.data["rates"]
    move(panel, "rank", python.data["ranks"].index(64))
    for lr in (5e-4, 4e-3, 1.1e-2):
        move(panel, "learning rate", rates.index(lr))
        (cell,) = [c for c in python.data["cells"] if (c["rank"], c["alpha"], c["lr"]) == (64, 16.0, lr)]
        expect(headline).to_contain_text(f"{cell['mean']:.1f}%")
        assert panel.locator(".results circle.train, .results path.ink").count() == 3
    expect(status).to_contain_text("All collapsed")
    expect(panel.locator(".results path.ink")).to_have_count(3)  # a cross for each run
    move(panel, "learning rate", 0)
    expect(headline).to_have_text("not tried")
    panel.get_by_role("button", name="go to the best cell").press("Enter")
    expect(panel.locator(".words")).to_contain_text("The best cell of this map")


def test_a_line_appears_only_after_a_prediction(pages: Pages) -> None:
    python = sweep(view="alpha")
    page = pages.open(python)
    panel = panel_of(page)
    question, title, lines = (panel.locator(name) for name in (".question", ".title", ".iso"))
    expect(question).to_contain_text("Predict")
    expect(lines).to_have_count(0)
    expect(title).to_contain_text("Which slider moves accuracy most?")
    panel.get_by_role("radio", name="falls with α", exact=True).dispatch_event("click")
    expect(title).to_contain_text("The learning rate matters most")
    expect(lines).to_have_count(1)
    lost = python.data["lines"]["alpha"]["q,v|8"]["whole"]["lost"]
    expect(panel.locator(".fits")).to_contain_text(f"Your prediction (falls with α) loses {lost:.1f} points")
    panel.get_by_role("radio", name="falls with √α").dispatch_event("click")
    expect(panel.locator(".fits")).to_contain_text("You predicted “falls with α”")
    expect(lines).to_have_count(1)
    assert trait(page, "guess") == {"alpha": "whole"}
    panel.get_by_role("radio", name="rate × rank").dispatch_event("click")
    expect(question).to_contain_text("Predict")  # each map asks for its own prediction
    expect(lines).to_have_count(0)


def test_a_page_without_a_kernel_offers_no_training(pages: Pages) -> None:
    python = sweep(view="rank")
    page = pages.open(python)
    panel, rows = panel_of(page), len(python.data["ranks"])
    picture, row = panel.locator(".picture svg"), python.data["ranks"].index(64)
    height = min(66, max(36, 330 / rows))
    x = 46 + 0.5 * (box_of(picture)["width"] - 48) / len(python.data["rates"])
    picture.click(position={"x": x, "y": 24 + (rows - row - 0.5) * height})  # the cell of the lowest rate
    expect(panel.locator(".big")).to_have_text("not tried")
    expect(panel.get_by_role("button")).to_have_text(["go to the best cell"])
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    assert trait(page, "picked") == []
