"""Record the README's animation of the playground in chromium: `python docs/moving.py`.

The mouse drags the learning rate through all tried values at the best rank and alpha, then alpha at the best rate.
"""

import io
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from lora_lab import SweepPanel
from lora_lab.widgets.base import page

PICTURE = Path(__file__).with_name("pictures") / "playground.webp"
WIDTH, SCALE = 860, 1.0  # the panel's width in CSS pixels, and picture pixels per CSS pixel
FRAME, REST = 60, 1100  # milliseconds per frame, and for the last frame of a drag
CURSOR = """() => {
    document.body.insertAdjacentHTML('beforeend', `<svg width="22" style="position: fixed; pointer-events: none">
        <path d="M2 1v21l5-4 4 9 4-2-4-8h7z" fill="#fff" stroke="#000" stroke-width="1.6"/></svg>`);
    const { style } = document.body.lastElementChild;
    addEventListener('mousemove', (e) => Object.assign(style, { left: `${e.x - 2}px`, top: `${e.y}px` }), true);
}"""


def main() -> None:
    panel, frames, times = SweepPanel(view="alpha"), list[Image.Image](), list[int]()
    cells, alphas = panel.data["cells"], panel.data["alphas"]
    best = cells[panel.data["best"][panel.targets]]
    row = [cell["column"] for cell in cells if all(cell[name] == best[name] for name in ("targets", "rank", "alpha"))]
    start = alphas.index(best["alpha"])
    drags = {  # each slider's last position, and the positions on the way
        "input[name=lr]": (len(panel.data["rates"]) - 1, [best["column"], min(row), max(row), best["column"]]),
        "input[name=alpha]": (len(alphas) - 1, [start, 0, len(alphas) - 1, start]),
    }
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        (file := Path(folder, "playground.html")).write_text(page(panel.snapshot()), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        size: Any = {"width": WIDTH + 24, "height": 1000}
        view = browser.new_page(viewport=size, device_scale_factor=SCALE, reduced_motion="reduce")
        view.goto(file.as_uri())
        view.locator(".words").evaluate("(e) => { e.style.minHeight = '9em'; }")  # so that nothing below moves
        view.evaluate(CURSOR)
        boxes: Any = {selector: view.locator(selector).bounding_box() for selector in (".card", ".curve", *drags)}
        card, curve = boxes[".card"], boxes[".curve"]
        clip: Any = {**card, "height": curve["y"] + curve["height"] - card["y"]}
        path, ends = [(400.0, 500.0)], []  # the mouse's path, and the number of frames for each segment
        for name, (last, stops) in drags.items():
            box = boxes[name]
            path += [(box["x"] + 9 + (box["width"] - 18) * stop / last, box["y"] + box["height"] / 2) for stop in stops]
            ends += [8, *(2 * abs(a - b) for a, b in pairwise(stops))]
        for number, ((start, end), parts) in enumerate(zip(pairwise(path), ends, strict=True)):
            (view.mouse.down if number % 4 else view.mouse.up)()
            for part in range(1, parts + 1):
                view.mouse.move(*(a + (b - a) * part / parts for a, b in zip(start, end, strict=True)))
                view.wait_for_timeout(50)
                frames.append(Image.open(io.BytesIO(view.screenshot(clip=clip))).convert("RGB"))
                times.append(FRAME if part < parts else REST)
    palette = frames[0].quantize(64, Image.Quantize.MAXCOVERAGE)  # fewer colors make the lossless file a third smaller
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB") for frame in frames]
    small = {"lossless": True, "quality": 100, "method": 6, "minimize_size": True}
    frames[0].save(PICTURE, save_all=True, append_images=frames[1:], duration=times, loop=0, **small)
    print(f"{PICTURE.name}: {len(frames)} frames, {sum(times) / 1e3:.0f} s, {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
