"""The page for a projector holds its panels and asks nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path


def test_five_panels_are_on_one_page(lora_lab: Callable, tmp_path: Path):
    done = lora_lab("show", "--no-browser", "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.findall(r'data-panel="(\w+)"', page)
    assert found[:5] == ["LoRAPanel", "RankPanel", "SweepPanel", "MemoryPanel", "ComparePanel"]
    assert not re.search(r'(?:src|href)="https?:', page)
