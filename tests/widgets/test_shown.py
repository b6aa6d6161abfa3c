"""Pictures in words and numbers: what stands beside each panel's picture agrees with what the panel knows."""

from __future__ import annotations

import pytest

from lora_course.panels.class_panel import ClassPanel
from lora_lab.widgets.named import Named
from lora_lab.widgets.panel import Panel, scrolling
from lora_lab.widgets.shown import Shown, Table


def test_a_picture_its_words_and_its_tables_go_in_one_message(monkeypatch: pytest.MonkeyPatch):
    shown, sent = Shown(), []
    monkeypatch.setattr(Shown, "send_state", lambda _, key=None: sent.append(set(key)))
    shown.show(b"png", "two curves", Table("by step", ("step", "loss"), [("1", "0.5")]))
    assert sent == [{"value", "alt", "tables"}]
    assert shown.numbers() == "by step\nstep | loss\n1 | 0.5"


def test_every_panel_is_named_and_its_name_is_its_title(tmp_path):
    panel = ClassPanel(tmp_path)
    assert isinstance(panel.children[-1], Named)
    assert panel.children[-1].title == panel.title != ""
    assert isinstance(panel, Panel)


def test_markup_that_scrolls_is_named_and_reached_by_the_keyboard():
    assert scrolling("a <name>", "<table></table>").startswith(
        "<div role='region' tabindex='0' aria-label='a &lt;name&gt;'"
    )
