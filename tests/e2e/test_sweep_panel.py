"""The playground as people use it: on a page without a kernel, and in a notebook where it trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from lora_lab import SweepPanel
from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from tests.e2e.pages import Pages, box_of, move, panel_of


def shown_panel(**changes: Any) -> SweepPanel:
    """The runs that ship, at rank 8 and alpha 16."""
    panel = SweepPanel(view="rank", into="nothing here")
    panel.rank, panel.alpha, panel.lr = 8, 16.0, 2e-3
    for name, value in changes.items():
        setattr(panel, name, value)
    return panel


def training_panel() -> SweepPanel:
    """A panel as it is while an untried cell trains."""
    at_work = {"state": "training", "busy": True, "error": "", "share": 0.3, "step": 60, "left": 20, "runs": 3}
    return shown_panel(rank=64, lr=8.8e-5, live={**at_work, "curves": [[64, 16.0, 8.8e-5, [0.69, 0.68, 0.6]]]})


def cell_of(panel: SweepPanel, rank: int, alpha: float, lr: float) -> dict[str, Any]:
    (found,) = [c for c in panel.data["cells"] if (c["rank"], c["alpha"], c["lr"]) == (rank, alpha, lr)]
    return found


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
    python = shown_panel()
    panel = panel_of(pages.open(python))
    expect(panel.get_by_role("status")).to_be_empty()
    rates = python.data["rates"]
    move(panel, "rank", python.data["ranks"].index(64))
    for lr in (5e-4, 4e-3, 1.1e-2):
        move(panel, "learning rate", rates.index(lr))
        cell = cell_of(python, 64, 16.0, lr)
        expect(panel.locator(".big")).to_contain_text(f"{cell['mean']:.1f}%")
        assert panel.locator(".results circle.train").count() + panel.locator(".results path.ink").count() == 3
    expect(panel.get_by_role("status")).to_contain_text("All collapsed")
    assert panel.locator(".results path.ink").count() == 3  # a cross for each run
    move(panel, "learning rate", 0)
    expect(panel.locator(".big")).to_have_text("not tried")
    panel.get_by_role("button", name="go to the best cell").press("Enter")
    expect(panel.locator(".words")).to_contain_text("The best cell of this map")


def test_the_map_is_dragged_over_and_clicked(pages: Pages) -> None:
    python = shown_panel()
    view = pages.open(python, kernel=True)
    panel = panel_of(view)
    click(panel, 1e-3, python.data["ranks"].index(8), python.data)
    expect(panel.locator(".big")).to_contain_text(f"{cell_of(python, 8, 16.0, 1e-3)['mean']:.1f}%")
    picture = box_of(panel.locator(".picture svg"))
    view.mouse.move(picture["x"] + 60, picture["y"] + 150)
    view.mouse.down()
    view.mouse.move(picture["x"] + picture["width"] - 20, picture["y"] + 150, steps=5)
    view.mouse.up()
    words = panel.get_by_role("slider", name="learning rate").get_attribute("aria-valuetext") or ""
    assert words.startswith(f"rate {python.data['rates'][-1]:g}")
    expect(panel.get_by_role("button", name=re.compile("^run these"))).to_be_disabled()  # a drag picks nothing


def test_a_line_is_drawn_only_after_it_was_predicted_and_one_at_a_time(pages: Pages) -> None:
    python = shown_panel(view="alpha")
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


def test_untried_cells_are_picked(pages: Pages) -> None:
    python = shown_panel()
    view = pages.open(python, kernel=True)
    panel = panel_of(view)
    lowest = python.data["rates"][0]
    click(panel, lowest, python.data["ranks"].index(64), python.data)
    expect(panel.get_by_role("button", name="run these: 1 cell × 3 seeds")).to_be_enabled()
    panel.get_by_role("button", name=re.compile("pick this row’s")).press("Enter")
    tried = {cell["lr"] for cell in python.data["cells"] if (cell["rank"], cell["alpha"]) == (64, 16.0)}
    left = [rate for rate in python.data["rates"] if rate not in tried]
    untried = len(left)
    panel.get_by_role("button", name="unpick this cell").press("Enter")
    expect(panel.get_by_role("button", name=f"run these: {untried - 1} cells × 3 seeds")).to_be_enabled()
    expect(panel.locator(".doing")).to_contain_text(re.compile(r"^Picked: rate \S+ at rank 64, α 16"))
    assert view.locator("[data-panel]").evaluate("e => e.model.get('picked').length") == untried - 1


def test_a_page_without_a_kernel_offers_no_training(pages: Pages) -> None:
    python = shown_panel()
    view = pages.open(python)
    panel = panel_of(view)
    click(panel, python.data["rates"][0], python.data["ranks"].index(64), python.data)
    expect(panel.locator(".big")).to_have_text("not tried")
    expect(panel.get_by_role("button")).to_have_text(["go to the best cell"])
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    assert view.locator("[data-panel]").evaluate("e => e.model.get('picked')") == []


def test_a_cell_that_trains_shows_its_step(pages: Pages) -> None:
    expect(panel_of(pages.open(training_panel())).locator(".big")).to_contain_text("training step 15 of 200")


def test_each_key_is_a_step_to_another_cell(pages: Pages) -> None:
    python = shown_panel(lr=2.5e-4)
    slider = panel_of(pages.open(python)).get_by_role("slider", name="learning rate")
    rates = [rate for rate in python.data["rates"] if rate > 2.5e-4]
    for rate in rates:
        slider.press("ArrowRight")
        assert (slider.get_attribute("aria-valuetext") or "").startswith(f"rate {rate:g}")


def test_a_class_is_a_dot_for_each_student(pages: Pages, tmp_path: Path) -> None:
    for run in Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs():
        recipe = run.recipe
        if recipe.method.rank == 8 and recipe.lr == 2e-3 and recipe.clip and recipe.dtype == "auto":
            Store(tmp_path / "class" / f"student{recipe.seed}" / "runs").add(run)
    python = SweepPanel(tmp_path / "class", into=tmp_path / "mine")
    python.rank, python.alpha = 8, 16.0
    panel = panel_of(pages.open(python))
    assert panel.locator(".results circle.train").count() == 5
    panel.get_by_text("all cells as a table").click()
    expect(panel.locator("details")).to_contain_text("student4")
