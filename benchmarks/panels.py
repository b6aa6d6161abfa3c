"""How soon a panel that the browser draws answers: to a slider, when it is opened, and when it is asked to train.

Slider: script, and until it is painted, in chromium on a page without a kernel, each step in a frame of its own; the
quietest of three rounds, for what else a machine does is not the panel's.
Opening: the panel made from what ships, in a kernel after `import lora_lab`, and its first drawing in chromium.
Training: from *run these* to the first point of a curve, in a process where the model has been trained before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks.measure import goal, table
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel
from lora_lab.widgets.base import Panel, page
from tests.e2e.conftest import BROWSER_FLAGS
from tests.e2e.test_drawn_panels import train

SLIDERS: dict[str, tuple[Panel, tuple[str, ...]]] = {
    "LoRA, one layer": (LoRAPanel("size"), ("d", "rank")),
    "LoRA, llama-3-8b": (LoRAPanel("model", model="llama-3-8b"), ("rank",)),
    "LoRA, deepseek-v3": (LoRAPanel("model", model="deepseek-v3", targets=["all-linear"]), ("rank",)),
    "LoRA, toy": (LoRAPanel("steps"), ("scan", "alpha")),
    "playground": (SweepPanel(into="nothing here"), ("lr", "rank", "alpha")),
    "comparison": (ComparePanel(), ("margin",)),
    "film, llama-3-8b": (MemoryPanel("llama-3-8b"), ("seq", "batch", "rank", "scrub")),
    "training": (train(), ("scrub", "strength")),
}
FRAME = 1000 / 60  # milliseconds
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
DRAWN = """() => new Promise((done) => {
    const wait = () => {
        const drawn = document.querySelector('.lab-panel')?.dataset.milliseconds;
        if (drawn) requestAnimationFrame(() => setTimeout(() => done(performance.now() - labBegan)));
        else requestAnimationFrame(wait);
    };
    wait();
})"""
MADE = """
import time, ipykernel.ipkernel, lora_lab
began = time.perf_counter()
panel = lora_lab.{name}()
panel._repr_mimebundle_()
print(time.perf_counter() - began)
"""
FIRST = """
import tempfile, time
from lora_lab import SweepPanel
folder = tempfile.TemporaryDirectory()
for lr in (2e-3, 1e-3):  # the first loads the model
    panel = SweepPanel(into=folder.name, picked=[[64, 16.0, lr]])
    began = time.perf_counter()
    panel._handle_custom_msg({"do": "run"}, [])
    while not any(losses for *_, losses in panel.live.get("curves", ())):
        assert panel.live["state"] != "failed", panel.live["error"]
        time.sleep(0.02)
    print(time.perf_counter() - began)
    panel.stop()
    panel.work.wait()
"""


def report(quick: bool) -> str:
    """The tables and the verdicts, in Markdown."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER_FLAGS)
        file = Path(folder, "panel.html")
        steps, worst, later = slider_steps(browser, file, 20 if quick else 100)
        opened = {name: opening(browser, file, name) for name in ("LoRAPanel", "SweepPanel", "MemoryPanel")}
        browser.close()
    cold, warm = said(FIRST, LORA_LAB_HEADLESS="")
    head = ["slider", "script, median ms", "script, p95 ms", "painted, median ms", "painted, p95 ms"]
    rows = [[name, f"{made:.2f}", f"{drawn:.2f}"] for name, (made, drawn) in opened.items()]
    return "\n".join(
        [
            "## Panels\n",
            table(head, steps) + "\n",
            table(["opened", "made in Python, s", "drawn, s"], rows) + "\n",
            f"First point of a live curve: {cold:.1f} s in a new process, {warm:.1f} s on a warm model.\n",
            goal("script of a slider's step, worst p95, ms", worst, 8),
            goal("steps that miss the next frame, %", later, 5),
            goal("a panel opened after the import, the slowest, s", max(map(sum, opened.values())), 0.5),
            goal("first live point on a warm model, s", warm, 4),
        ]
    )


def slider_steps(browser: Browser, file: Path, steps: int) -> tuple[list[list[str]], float, float]:
    """Rows of the table, the worst 95th percentile of script in ms, and the share of steps painted late, in %."""
    rows, worst, late = [], 0.0, list[bool]()
    for name, (panel, sliders) in SLIDERS.items():
        file.write_text(page(panel.snapshot()), encoding="utf-8")
        view = browser.new_page(viewport={"width": 1024, "height": 900})
        view.goto(file.as_uri())
        view.locator(".lab-panel .card").wait_for()
        for slider in sliders:
            rounds = [np.array(view.evaluate(STEPS, [slider, steps])).T for _ in range(3)]
            script, painted = min(rounds, key=lambda one: float(np.percentile(one[0], 95)))
            worst = max(worst, float(np.percentile(script, 95)))
            late += list(painted > 1.5 * FRAME)
            cells = [np.median(script), np.percentile(script, 95), np.median(painted), np.percentile(painted, 95)]
            rows.append([f"{name}: {slider}", *(f"{cell:.1f}" for cell in cells)])
        view.close()
    return rows, worst, 100 * float(np.mean(late))


def opening(browser: Browser, file: Path, name: str) -> tuple[float, float]:
    """Seconds to make the panel in a process of its own, and from the page's scripts to the painted picture."""
    panel: Panel = {"LoRAPanel": LoRAPanel, "SweepPanel": SweepPanel, "MemoryPanel": MemoryPanel}[name]()
    text = page(panel.snapshot()).replace("<script>", "<script>const labBegan = performance.now();\n", 1)
    file.write_text(text, encoding="utf-8")
    made, drawn = [], []
    for _ in range(3):
        made += said(MADE.format(name=name))
        view = browser.new_page(viewport={"width": 1024, "height": 900})
        view.goto(file.as_uri(), wait_until="commit")
        drawn.append(view.evaluate(DRAWN) / 1000)
        view.close()
    return float(np.median(made)), float(np.median(drawn))


def said(code: str, **environment: str) -> list[float]:
    """The numbers that a process of its own prints."""
    env = {"HF_HUB_OFFLINE": "1", **os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]
