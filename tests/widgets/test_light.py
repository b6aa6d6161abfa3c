"""Panels that only count and draw start without torch."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel
from lora_lab.widgets.rank_panel import RankPanel
for panel in (ComparePanel, LoRAPanel, SweepPanel, RankPanel, MemoryPanel):
    panel()._repr_mimebundle_()
panel = MemoryPanel("minilm")
panel.seq = 128
panel.describe()
RankPanel("weight")._repr_mimebundle_()
print([m for m in ("torch", "transformers", "pandas") if m in sys.modules])
"""


def test_drawing_them_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
