"""How long a step of a slider takes in a panel that the browser draws: script, and until it is painted.

Both are measured in chromium, on a page without a kernel, each step in a frame of its own.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from lora_lab import LoRAPanel
from lora_lab.widgets.base import page
from tests.benchmarks.measure import goal, table
from tests.e2e.conftest import BROWSER_FLAGS

SLIDERS = {
    "one layer, width": (LoRAPanel("size"), "d"),
    "one layer, rank": (LoRAPanel("size"), "rank"),
    "llama-3-8b, rank": (LoRAPanel("model", model="llama-3-8b"), "rank"),
    "deepseek-v3, rank": (LoRAPanel("model", model="deepseek-v3", targets=["all-linear"]), "rank"),
    "toy, forward pass": (LoRAPanel("swap"), "scan"),
    "toy, alpha": (LoRAPanel("steps"), "alpha"),
}
STEPS = """async ([name, steps]) => {
    const card = document.querySelector('.lab-panel').shadowRoot.querySelector('.card');
    const input = card.querySelector(`input[name=${name}]`), times = [];
    for (let step = 0; step < steps; step++) {
        await new Promise(requestAnimationFrame);
        const began = performance.now();
        input.value = (3 * step) % (Number(input.max) + 1);
        input.dispatchEvent(new Event('input', { bubbles: true }));
        const script = performance.now() - began;
        await new Promise(requestAnimationFrame);
        await new Promise((done) => setTimeout(done)); // after that frame was painted
        times.push([script, performance.now() - began]);
    }
    return times;
}"""


def report(quick: bool) -> str:
    """The table and the verdict, in Markdown."""
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER_FLAGS)
        for name, (panel, slider) in SLIDERS.items():
            file = Path(folder, "panel.html")
            file.write_text(page(panel.snapshot()), encoding="utf-8")
            view = browser.new_page(viewport={"width": 1024, "height": 900})
            view.goto(file.as_uri())
            view.locator(".lab-panel .card").wait_for()
            script, painted = np.array(view.evaluate(STEPS, [slider, 20 if quick else 200])).T
            worst = max(worst, float(np.percentile(script, 95)))
            cells = [np.median(script), np.percentile(script, 95), np.median(painted), np.percentile(painted, 95)]
            rows.append([name, *(f"{cell:.1f}" for cell in cells)])
            view.close()
        browser.close()
    head = ["slider", "script, median ms", "script, p95 ms", "painted, median ms", "painted, p95 ms"]
    return "\n".join(
        ["## Panels\n", table(head, rows) + "\n", goal("script of a slider's step, worst p95, ms", worst, 8)]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps each")
    print(report(parser.parse_args().quick))
