"""The style panel as a student meets it: press Ask, and every voice writes its column while the notebook is free."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.e2e.conftest import Lab, Watched, shown

CELL = """
import torch
from lora_lab import LoRA, load_model, save_adapter
from lora_course.panels.style_panel import StylePanel
folders = {}
for seed, name in enumerate(("captain", "json")):  # untrained voices: what they say does not matter here
    model = load_model("smollm2")
    LoRA(rank=2).attach(model)
    torch.manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.data.normal_(std=0.05)
    folders[name] = save_adapter(model, f"voices/{name}")
StylePanel(folders, questions=("Why is the sky blue?",), longest=40).show()
"""


def test_all_voices_answer_side_by_side_and_stop_ends_them(lab: Lab, watched: Watched) -> None:
    panel = watched.opened("voices.ipynb", CELL)
    expect(panel).to_contain_text("then press Ask", timeout=60_000)
    expect(panel).to_contain_text("captain (0.", timeout=10_000)  # its file's size stands beside its name
    assert shown(panel)
    panel.get_by_role("button", name="Ask").click()
    expect(panel).to_contain_text(re.compile(r"answering: [1-9]\d* tokens a voice"), timeout=180_000)
    expect(panel.get_by_role("button", name="Ask")).to_be_disabled()
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("stopped:", timeout=60_000)
    panel.get_by_role("textbox").fill("How do I cook rice?")
    panel.get_by_role("textbox").press("Tab")
    panel.get_by_role("button", name="Ask").click()
    expect(panel).to_contain_text("done:", timeout=180_000)
    expect(panel).to_contain_text("no adapter")
    assert not watched.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()
