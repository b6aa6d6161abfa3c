from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Locator, Page

from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.widgets.base import page as page_of

MOVE = "(e, value) => { e.value = value; e.dispatchEvent(new Event('input', { bubbles: true })) }"
FOCUSED = """() => { // name and outline width; radios and checkboxes show the outline on their label
    const e = document.activeElement.shadowRoot?.activeElement ?? document.activeElement;
    const shown = e.type === 'radio' || e.type === 'checkbox' ? e.parentElement : e;
    return [e.name || e.tagName, parseFloat(getComputedStyle(shown).outlineWidth)];
}"""


def requests_elsewhere(page: Page) -> list[str]:
    requests: list[str] = []
    own = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else requests.append(r.url))
    return requests


def record_problems(page: Page, problems: list[str], own=()) -> None:
    """Record each error, and each request whose URL doesn't start with one of `own`."""
    page.on("request", lambda r: None if r.url.startswith(tuple(own)) else problems.append(r.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)


class Pages:
    """Opens panels on a page without a kernel, from a file, and records requests and errors in `problems`."""

    def __init__(self, page: Page, folder) -> None:
        self.page, self.file = page, folder / "page.html"
        self.problems: list[str] = []
        record_problems(page, self.problems, [self.file.as_uri()])

    def open(self, *panels, width: int = 1000, reduced: bool = False, kernel: bool = False) -> Page:
        """Open a page. `reduced`: the user prefers reduced motion; `kernel`: panels see a kernel that never answers."""
        text = page_of(*(panel.snapshot() for panel in panels))
        self.file.write_text(text.replace("kernel: false", f"kernel: {str(kernel).lower()}"), encoding="utf-8")
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(reduced_motion="reduce" if reduced else "no-preference")
        self.page.goto(self.file.as_uri())
        panel_of(self.page, len(panels) - 1).wait_for()
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page

    def panel(self, panel, **options) -> Locator:
        return panel_of(self.open(panel, **options))


def panel_of(page, number: int = 0) -> Locator:
    return page.locator(".lab-panel .card").nth(number)


def move(panel: Locator, slider: str, position: int) -> None:
    """Drag a slider to a position. The panel is drawn again before the function returns."""
    panel.get_by_role("slider", name=slider).evaluate(MOVE, position)


def drag(panel: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse = panel.page.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(*end, steps=4)
    mouse.up()


def trait(panel: Locator, name: str):
    return panel.page.locator("[data-panel]").first.evaluate("(e, name) => e.model.get(name)", name)


def box_of(shape: Locator) -> dict[str, float]:
    return dict(shape.bounding_box())


def center(shape: Locator) -> tuple[float, float]:
    box = box_of(shape)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def violations(page: Page, selector: str = "main") -> list[str]:
    """Return axe's rule and the markup for each violation in a part of a page."""
    page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], "preload": False}
    run = """async ([selector, options]) => {
        const { violations } = await axe.run(document.querySelector(selector), options);
        return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`));
    }"""
    return page.evaluate(run, [selector, options])


def class_in(folder):
    """Fill a folder with the runs of two laptops of a class, and three guesses."""
    for run in Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs():
        if run.recipe.seed in (0, 1) and run.recipe.method.rank == 8:
            Store(folder / f"laptop{run.recipe.seed}" / "runs").add(run)
    for name, guess in (("ada", 81), ("grace", 95), ("emmy", 95)):
        (folder / name).mkdir()
        (folder / name / "guess.json").write_text(f'{{"name": "{name}", "guess": {guess}}}')
    return folder
