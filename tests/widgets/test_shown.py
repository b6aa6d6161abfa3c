"""Pictures in words and numbers: what stands beside each panel's picture agrees with what the panel knows."""

from __future__ import annotations

import pytest

from lora_lab.plots import Curve
from lora_lab.plots.methods import KINDS
from lora_lab.widgets.compare_tables import tables
from lora_lab.widgets.named import Named
from lora_lab.widgets.panel import Panel, scrolling
from lora_lab.widgets.shown import Shown, Table
from lora_lab.widgets.train_panel import TrainPanel
from lora_lab.widgets.words import curve_tables
from tests.comparisons import comparison


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


def test_curves_in_numbers_while_a_run_goes_on():
    live = Curve("this", [1, 2, 3], [3.0, 2.0, 1.0], [(2, 0.8)])
    earlier = [Curve("before", [1, 2], [2.0, 1.0], [(2, 0.75)])]
    now, before = curve_tables(live, earlier, "accuracy")
    assert now.rows == [("2", "2.500", "80.0%"), ("3", "2.000", "-")]  # means of what there is so far
    assert before.rows == [("before", "1.500", "75.0%")]
    assert not list(curve_tables(Curve("", [], [], []), [], "accuracy"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_comparison_has_its_own_table(kind: str):
    found = comparison()
    (table,) = tables(kind, found)
    assert {len(row) for row in table.rows} == {len(table.head)}
    lora = next(row for row in found["methods"] if row["method"] == "lora")
    assert any(lora["label"] in row[0] for row in table.rows)
    if kind == "quality":
        assert any(f"{100 * lora['accuracy']['each'][0]:.1f}" in row[3] for row in table.rows)
    if kind == "rates":
        assert any("(chosen)" in row[1] for row in table.rows)


def test_markup_that_scrolls_is_named_and_reached_by_the_keyboard():
    assert scrolling("a <name>", "<table></table>").startswith(
        "<div role='region' tabindex='0' aria-label='a &lt;name&gt;'"
    )
