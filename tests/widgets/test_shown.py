"""Pictures in words and numbers: what stands beside each panel's picture agrees with what the panel knows."""

from __future__ import annotations

import pytest

from lora_lab.plots.methods import KINDS
from lora_lab.widgets.compare_panel import ComparePanel
from lora_lab.widgets.compare_tables import tables
from lora_lab.widgets.named import Named
from lora_lab.widgets.panel import Panel, scrolling
from lora_lab.widgets.shown import Shown, Table
from tests.comparisons import comparison


def test_a_picture_its_words_and_its_tables_go_in_one_message(monkeypatch: pytest.MonkeyPatch):
    shown, sent = Shown(), []
    monkeypatch.setattr(Shown, "send_state", lambda _, key=None: sent.append(set(key)))
    shown.show(b"png", "two curves", Table("by step", ("step", "loss"), [("1", "0.5")]))
    assert sent == [{"value", "alt", "tables"}]
    assert shown.numbers() == "by step\nstep | loss\n1 | 0.5"


def test_every_panel_is_named_and_its_name_is_its_title():
    panel = ComparePanel()
    assert isinstance(panel.children[-1], Named)
    assert panel.children[-1].title == panel.title != ""
    assert isinstance(panel, Panel)


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
