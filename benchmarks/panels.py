"""Time how fast the panels respond: to a slider, when they open, and when they start to train.

Slider: the milliseconds of the script, and those until the frame is painted, in chromium without a kernel, one step per
frame. The fastest of three rounds counts, because other work on the machine slows the other rounds.
Opening: the time to make a panel from shipped data in a process that has imported `lora_lab`, and to draw it.
Training: the time from a click on *run these* to the first point, in a process that has trained the model before.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks.measure import goal, table
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel
from lora_lab.widgets.base import Panel, page
from tests.e2e.conftest import BROWSER_FLAGS
from tests.e2e.panels import train
from tests.notebooks import still

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
        input.value = step % (Number(input.max) + 1);
        input.dispatchEvent(new Event('input', { bubbles: true }));
        const script = performance.now() - began;
        await new Promise(requestAnimationFrame);
        await new Promise((done) => setTimeout(done)); // after the frame is painted
        times.push([script, performance.now() - began]);
    }
    return times;
}"""
PAINTED = """() => new Promise((done) => {
    const wait = () => {
        const { milliseconds } = document.querySelector('.lab-panel')?.dataset ?? {};
        if (milliseconds) requestAnimationFrame(() => setTimeout(() => done(performance.now() - labBegan)));
        else requestAnimationFrame(wait);
    };
    wait();
})"""
CREATE = """
import time, ipykernel.ipkernel, lora_lab
began = time.perf_counter()
panel = lora_lab.{name}()
panel._repr_mimebundle_()
print(time.perf_counter() - began)
"""
FIRST_POINT = """
import tempfile, time
from lora_lab import SweepPanel
folder = tempfile.TemporaryDirectory()
for lr in (2e-3, 1e-3):  # the first loads the model
    panel = SweepPanel(into=folder.name, picked=[[48, 16.0, lr]])
    began = time.perf_counter()
    panel._handle_custom_msg({"do": "run"}, [])
    while not any(losses for *_, losses in panel.live.get("curves", ())):
        assert not panel.live.get("error"), panel.live["error"]
        time.sleep(0.02)
    print(time.perf_counter() - began)
    panel.stop()
    panel.work.thread.join()
"""


def report(quick: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, still.BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        file, steps = Path(folder, "panel.html"), 20 if quick else 100
        times = {
            f"{name}: {slider}": time_slider(browser, file, panel, slider, steps)
            for name, (panel, sliders) in SLIDERS.items()
            for slider in sliders
        }
        opened = {panel.__name__: time_opening(browser, file, panel) for panel in (LoRAPanel, SweepPanel, MemoryPanel)}
        browser.close()
    cold, warm = run_python(FIRST_POINT, LORA_LAB_HEADLESS="")
    yield "## Panels"
    yield table(
        ["slider", "script, median ms", "script, p95 ms", "painted, median ms", "painted, p95 ms"],
        [[name, *(f"{np.percentile(part, q):.1f}" for part in both for q in (50, 95))] for name, both in times.items()],
    )
    yield table(
        ["opened", "made in Python, s", "drawn, s"],
        [[name, f"{made:.2f}", f"{drawn:.2f}"] for name, (made, drawn) in opened.items()],
    )
    yield f"First point of a live curve: {cold:.1f} s in a new process, {warm:.1f} s when the model is loaded."
    worst = max(np.percentile(script, 95) for script, _ in times.values())
    yield goal("milliseconds of script for a slider's step, worst p95", worst, 8)
    late = 100 * np.mean([painted > 1.5 * FRAME for _, painted in times.values()])
    yield goal("steps that miss the next frame, %", late, 5)
    yield goal("seconds to open the slowest panel after the import", max(map(sum, opened.values())), 0.5)
    yield goal("seconds to the first live point when the model is loaded", warm, 4)


def time_slider(browser: Browser, file: Path, panel: Panel, slider: str, steps: int) -> np.ndarray:
    """Return the script's milliseconds, and the milliseconds until the frame is painted: (2, steps)."""
    file.write_text(page(panel.snapshot()), encoding="utf-8")
    view = browser.new_page(viewport={"width": 1024, "height": 900})
    view.goto(file.as_uri())
    view.locator(".lab-panel .card").wait_for()
    rounds = [np.array(view.evaluate(STEPS, [slider, steps])).T for _ in range(3)]
    view.close()
    return min(rounds, key=lambda times: float(np.percentile(times[0], 95)))


def time_opening(browser: Browser, file: Path, panel: type[Panel]) -> tuple[float, float]:
    """Return the seconds to make a panel in a new process, and to draw it, from the start of the page's scripts."""
    text = page(panel().snapshot()).replace("<script>", "<script>const labBegan = performance.now();\n", 1)
    file.write_text(text, encoding="utf-8")
    made, drawn = [], []
    for _ in range(3):
        made += run_python(CREATE.format(name=panel.__name__))
        view = browser.new_page(viewport={"width": 1024, "height": 900})
        view.goto(file.as_uri(), wait_until="commit")
        drawn.append(view.evaluate(PAINTED) / 1000)
        view.close()
    return float(np.median(made)), float(np.median(drawn))


def run_python(code: str, **environment: str) -> list[float]:
    """Run code in a new process and return the numbers that it prints."""
    env = {"HF_HUB_OFFLINE": "1", **os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]
