"""Pictures in words and numbers: what stands beside each panel's picture agrees with what the panel knows."""

from __future__ import annotations

import pytest

from lora_course.experiments.microscope import Views, views_from
from lora_course.lesson import reference_microscope
from lora_course.panels.microscope_panel import MicroscopePanel
from lora_lab.plots import Curve
from lora_lab.widgets.named import Named
from lora_lab.widgets.panel import Panel, scrolling
from lora_lab.widgets.shown import Shown, Table
from lora_lab.widgets.train_panel import TrainPanel
from lora_lab.widgets.words import curve_tables


@pytest.fixture(scope="module")
def views() -> Views:
    return views_from(reference_microscope()["views"])


def test_a_picture_its_words_and_its_tables_go_in_one_message(monkeypatch: pytest.MonkeyPatch):
    shown, sent = Shown(), []
    monkeypatch.setattr(Shown, "send_state", lambda _, key=None: sent.append(set(key)))
    shown.show(b"png", "two curves", Table("by step", ("step", "loss"), [("1", "0.5")]))
    assert sent == [{"value", "alt", "tables"}]
    assert shown.numbers() == "by step\nstep | loss\n1 | 0.5"


def test_every_panel_is_named_and_its_name_is_its_title():
    panel = TrainPanel()
    assert isinstance(panel.children[-1], Named)
    assert panel.children[-1].title == panel.title != ""
    assert isinstance(panel, Panel)


def test_the_microscopes_curves_are_told_rank_by_rank(views: Views):
    panel = MicroscopePanel(views)
    accuracy, energy = panel.picture.numbers().split("energy kept")
    for name, ranks in views.ranks.items():
        assert name in accuracy
        assert f"{views.accuracy(views.at(name, ranks[0])):.1%}" in accuracy
        assert f"{views.at(name, ranks[0]).energy:.1%}" in energy
    assert "a ring at rank 4" in panel.picture.alt


def test_curves_in_numbers_while_a_run_goes_on():
    live = Curve("this", [1, 2, 3], [3.0, 2.0, 1.0], [(2, 0.8)])
    earlier = [Curve("before", [1, 2], [2.0, 1.0], [(2, 0.75)])]
    now, before = curve_tables(live, earlier, "accuracy")
    assert now.rows == [("2", "2.500", "80.0%"), ("3", "2.000", "-")]  # means of what there is so far
    assert before.rows == [("before", "1.500", "75.0%")]
    assert not list(curve_tables(Curve("", [], [], []), [], "accuracy"))


def test_markup_that_scrolls_is_named_and_reached_by_the_keyboard():
    assert scrolling("a <name>", "<table></table>").startswith(
        "<div role='region' tabindex='0' aria-label='a &lt;name&gt;'"
    )
