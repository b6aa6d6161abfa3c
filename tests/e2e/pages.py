"""What the tests of panels drawn by the browser share: pages opened as files, and what is done there."""

from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Locator, Page

from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.widgets.base import Panel
from lora_lab.widgets.base import page as page_of

MOVE = "(e, value) => { e.value = value; e.dispatchEvent(new Event('input', { bubbles: true })) }"
FOCUSED = """() => {
    const e = document.activeElement.shadowRoot?.activeElement ?? document.activeElement;
    const shown = e.type === 'radio' || e.type === 'checkbox' ? e.parentElement : e; // its label is what is seen
    return [e.name || e.tagName, parseFloat(getComputedStyle(shown).outlineWidth)];
}"""


def elsewhere(view: Page) -> list[str]:
    """What a page of a server here asks of other machines, from now on."""
    asked: list[str] = []
    own = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    view.on("request", lambda r: None if r.url.startswith(own) else asked.append(r.url))
    return asked


class Pages:
    """Pages with panels, opened as files; what they asked of others or complained of is kept."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.opened: list[Page] = []
        self.trouble: list[str] = []

    def watch(self, view: Page, *own: str) -> None:
        """Hear of it if a page asks for anything that doesn't begin as its own, or complains."""
        self.opened.append(view)
        view.on("request", lambda r: None if r.url.startswith(own) else self.trouble.append(r.url))
        view.on("pageerror", lambda error: self.trouble.append(str(error)))
        view.on("console", lambda said: self.trouble.append(said.text) if said.type == "error" else None)

    def open(
        self, *panels: Panel, width: int = 1000, dark: bool = False, still: bool = False, kernel: bool = False
    ) -> Page:
        """`kernel`: as it looks with one, which never answers."""
        file = self.folder / "page.html"
        text = page_of(*(panel.snapshot() for panel in panels), dark=dark)
        file.write_text(text.replace("kernel: false", f"kernel: {str(kernel).lower()}"), encoding="utf-8")
        view = self.browser.new_page(
            viewport={"width": width, "height": 900}, reduced_motion="reduce" if still else None
        )
        self.watch(view, file.as_uri())
        view.goto(file.as_uri())
        for number in range(len(panels)):
            panel_of(view, number).wait_for()
        view.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return view


def panel_of(view: Page, number: int = 0) -> Locator:
    return view.locator(".lab-panel .card").nth(number)


def move(panel: Locator, slider: str, position: int) -> None:
    """What a drag to a position does; the panel has been drawn again when this returns."""
    panel.get_by_role("slider", name=slider).evaluate(MOVE, position)


def box_of(shape: Locator) -> dict[str, float]:
    box = shape.bounding_box()
    assert box
    return dict(box)


def axe_finds(view: Page, part: str = "main") -> list[str]:
    """What is wrong in a part of a page for those who use a keyboard or a screen reader."""
    view.evaluate(AXE_SCRIPT)
    found: dict[str, Any] = view.evaluate(
        "part => axe.run(document.querySelector(part), { resultTypes: ['violations'], preload: false })", part
    )
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


def class_in(folder: Path) -> Path:
    """Fill a folder with the runs of two laptops of a class, and three guesses."""
    for run in Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs():
        if run.recipe.seed in (0, 1) and run.recipe.method.rank == 8:
            Store(folder / f"laptop{run.recipe.seed}" / "runs").add(run)
    for name, guess in (("ada", 81), ("grace", 95), ("emmy", 95)):
        (folder / name).mkdir()
        (folder / name / "guess.json").write_text(f'{{"name": "{name}", "guess": {guess}}}')
    return folder
