import io
import json
import re
from functools import cache
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from lora_course.lesson import reference_comparison
from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import ComparePanel, HeadOnly, MemoryPanel, RankPanel
from lora_lab.widgets.base import JS, Panel, module, place
from lora_lab.widgets.lora_panel import VIEWS
from tests.conftest import HOSTILE, MARK
from tests.e2e.pages import FOCUSED, Pages, box_of, panel_of, violations
from tests.e2e.panels import ONE_EACH, claim, lora, memory, mixer, sweep, train, training, with_traits
from tests.notebooks import still


@cache
def one_each() -> dict[str, Panel]:
    """One panel of each kind, which tests open but don't change."""
    return {name: make() for name, make in ONE_EACH.items()}


def assert_drawn(page, first: int = 0) -> None:
    """Assert that a page or frame shows one panel of each kind, starting with panel number `first`."""
    for number, name in enumerate(ONE_EACH, first):
        panel = panel_of(page, number)
        expect(panel.locator(".big")).to_contain_text(re.compile(r"\w"), timeout=180_000)
        heights = panel.locator(".drawn svg, canvas, .voice").evaluate_all("all => all.map((e) => e.clientHeight)")
        assert max(heights) > 60, name


def all_looks() -> list[Panel]:
    """Every panel in each of its views and states without a kernel."""
    work = {"state": "training", "busy": True, "error": "", "share": 0.3, "step": 60, "left": 20, "runs": 3}
    running = sweep(rank=64, live={**work, "curves": [[64, 16.0, 2e-3, [0.69, 0.68, 0.6]]]})
    predicted = sweep(view="alpha", guess={"alpha": "root"}, picked=[[8, 4.0, 0.02]], lr=5e-3)
    resampled = with_traits(ComparePanel(), margin=0.03)
    resampled.resample(200, count=20)
    layers = [lora(view, model="gpt2") for view in VIEWS]
    films = [memory(method="QLoRA"), memory("minilm"), MemoryPanel("minilm", HeadOnly(), models=["minilm"])]
    ranks = [RankPanel(), RankPanel("weight", rank=8), RankPanel(np.zeros((8, 8)))]
    others = [one_each()[name] for name in ("sweep", "voices", "train", "mixer", "claim", "class")]
    reference = ComparePanel(reference=reference_comparison("minilm_rt"))
    return [*layers, running, predicted, *films, *ranks, resampled, reference, *others]


MAKE_DARK = """() => { // panels follow the page's colors
    document.documentElement.style.colorScheme = 'dark';
    Object.assign(document.body.style, { background: '#111', color: '#e6e6e6' });
}"""


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "no kernel"])
def test_axe_finds_no_violations_and_nothing_overflows(pages: Pages, kernel: bool) -> None:
    panels: list[Panel] = [one_each()["train"], training()] if kernel else all_looks()
    page = pages.open(*panels, reduced=True, kernel=kernel)
    doing = "Step 230 of 400, about 41 s left." if kernel else "training step 15 of 200"
    expect(page.get_by_text(doing)).to_be_visible()
    opened = set[str]()
    for number, panel in enumerate(panels):  # one table of each kind, because axe is slow in tables
        details = panel_of(page, number).locator("details")
        if type(panel).__name__ not in opened and details.locator("visible=true").count():
            details.evaluate_all("all => all.forEach((e) => { e.open = true; })")
            opened.add(type(panel).__name__)
    assert not violations(page)
    for width in (1000, 700, 380):
        page.set_viewport_size({"width": width, "height": 900})
        overflow = page.locator(".lab-panel .card").evaluate_all("all => all.map((e) => e.scrollWidth - e.clientWidth)")
        assert len(overflow) == len(panels)
        assert max(overflow) <= 1, (width, overflow)
    page.evaluate(MAKE_DARK)
    expect(page.locator(".card.dark")).to_have_count(len(panels))
    assert not violations(page)


OVERLAPS = """(all) => {
    const boxes = all.map((e) => [e.getBoundingClientRect(), e.textContent]);
    const cover = ([a], [b]) => Math.min(a.right, b.right) > 2 + Math.max(a.left, b.left)
        && Math.min(a.bottom, b.bottom) > 4 + Math.max(a.top, b.top);
    return boxes.flatMap((a, i) => boxes.slice(0, i).filter((b) => cover(a, b)).map((b) => [a[1], b[1]]));
}"""


def test_words_in_pictures_never_cover_each_other(pages: Pages) -> None:
    run = train()
    run.live = run.live | {"guess": 100}
    run.found = run.found | {"rows": 12, "low": 20.0, "high": 100.0}
    full = MemoryPanel("llama-3-8b", "full", batch=128, seq=32768, models=["llama-3-8b"])
    thin, close = RankPanel(np.random.default_rng(0).normal(size=(800, 3))), ClaimPanel("dora_beats_lora")
    panels = [run, full, thin, ComparePanel(), close]
    for width in (1000, 360):
        page = pages.open(*panels, width=width)
        for number in range(len(panels)):
            words = panel_of(page, number).locator(".picture text, .forest text")
            assert words.evaluate_all(OVERLAPS) == [], (width, number)


def test_colors_forced_by_the_reader_are_used(pages: Pages) -> None:
    page = pages.open(lora())
    page.emulate_media(forced_colors="active", color_scheme="dark")
    expect(panel_of(page)).to_have_css("color", "rgb(255, 255, 255)")
    expect(panel_of(page)).to_have_css("background-color", "rgb(0, 0, 0)")
    page.emulate_media(forced_colors="none", color_scheme="light")


def test_axe_finds_a_missing_name(pages: Pages) -> None:
    page = pages.open(one_each()["sweep"], one_each()["rank"])
    unname = "e => { e.removeAttribute('aria-label'); e.closest('label')?.replaceWith(e); }"
    for number, selector in enumerate(("input[type=range]", "svg[role=img]")):
        panel_of(page, number).locator(selector).first.evaluate(unname)
    assert {violation.partition(":")[0] for violation in violations(page)} >= {"label", "svg-img-alt"}


def test_tab_reaches_every_control_and_thumbs_are_dragged(pages: Pages) -> None:
    cases: tuple[tuple[Panel, str, tuple[str, ...]], ...] = (  # panel, names in Tab order, slider and its trait
        (lora(), "view model d rank drop", ("width d", "d")),
        (lora("model", model="llama-3-8b"), f"view model {'targets ' * 8} rank drop", ("rank r", "rank")),
        (lora("steps"), "view go act scan toy_rank alpha", ()),
        (sweep(lr=1e-3), "view lr rank alpha best family", ("learning rate", "lr")),
        (memory(), "method scrub play model card optimizer seq batch rank checkpointing", ("sequence length", "seq")),
        (RankPanel(), "source rank more less", ("pieces added", "rank")),
        (VoicesPanel(), "question strength", ("strength", "strength")),
        (train(), "scrub play sentence strength", ("strength", "strength")),
        (ComparePanel(), "axis rival method margin flip", ("margin", "margin")),
        (mixer(), "share", ("share", "share")),
        (claim(), "A claim p0 p1 p2 p3 reset", ("memory of the card", "at")),
        (one_each()["class"], "lr alpha best family", ()),
    )
    page = pages.open(*(panel for panel, *_ in cases))
    for number, (_, controls, _) in enumerate(cases):
        panel, expected = panel_of(page, number), controls.split()
        expected += panel.locator("details:visible").count() * ["SUMMARY"]
        reached = []
        for _ in expected:
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
        assert [name for name, _ in reached] == expected
        assert all(outline >= 2 for _, outline in reached)
        if expected[-1] == "SUMMARY":
            page.keyboard.press("Enter")
            expect(panel.locator("details[open] > :not(summary)").first).to_be_visible()
            page.keyboard.press("Enter")
    for number, (_, _, slider) in enumerate(cases):
        if slider:
            _drag_and_press(page, number, *slider)


def _drag_and_press(page: Page, number: int, slider: str, trait: str) -> None:
    """Assert that the panel changes while the thumb is dragged, and at each key press."""
    panel, handle = panel_of(page, number), panel_of(page, number).get_by_role("slider", name=slider)
    value, element = "(e, name) => e.model.get(name)", page.locator("[data-panel]").nth(number)
    before = element.evaluate(value, trait)
    handle.scroll_into_view_if_needed()
    track = box_of(handle)
    position = float(handle.evaluate("e => e.value / e.max"))
    y = track["y"] + track["height"] / 2
    states = [(handle.get_attribute("aria-valuetext"), panel.inner_text())]
    page.mouse.move(track["x"] + 9 + position * (track["width"] - 18), y)
    page.mouse.down()
    for share in (0.35, 0.8, 0.05):
        page.mouse.move(track["x"] + 9 + share * (track["width"] - 18), y, steps=3)
        states.append((handle.get_attribute("aria-valuetext"), panel.inner_text()))
    page.mouse.up()
    assert len(set(states)) == 4
    assert element.evaluate(value, trait) != before
    handle.press("Home")
    values = [handle.get_attribute("aria-valuetext")]
    for _ in range(3):
        handle.press("ArrowRight")
        values.append(handle.get_attribute("aria-valuetext"))
    assert len(set(values)) == 4, values


REDRAWS = """async (card) => { // of the picture, within a third of a second
    let count = 0;
    const watch = new MutationObserver(() => { count += 1; });
    watch.observe(card.querySelector('.picture svg'), { childList: true });
    await new Promise((done) => setTimeout(done, 330));
    watch.disconnect();
    return count;
}"""


def test_animations_jump_to_their_end_with_reduced_motion(pages: Pages) -> None:
    buttons = {lora("merge"): "go", lora("start"): "go", memory(): "play", train(): "play"}
    page = pages.open(*buttons)
    for motion in ("reduce", "no-preference"):
        page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
        for number, name in enumerate(buttons.values()):
            panel = panel_of(page, number)
            panel.locator(f"button[name={name}]").press("Enter")
            assert (panel.evaluate(REDRAWS) < 2) == (motion == "reduce"), name


BAD = f'{HOSTILE} <!--<script> "'  # parts of it could hide the rest of a page or end an attribute
REPLACED = r"\b(gpt2|minilm|captain|positive|laptop|today|grace|LoRA r8 q,v|critic|RTX 4090|tuning|q,v|card)\b"


def test_untrusted_text_is_never_read_as_markup(pages: Pages) -> None:
    failed, compared = {"state": BAD, "error": BAD, "busy": False}, ComparePanel()
    others: list[Panel] = [
        lora("model", model="gpt2"), lora("merge", model="gpt2"), RankPanel({BAD: np.eye(4)}), sweep(live=failed),
        with_traits(compared, stored=compared.stored | {"metric": BAD}), train(found={}, live=failed),
    ]  # fmt: skip
    for panels, kernel in ((list(one_each().values()), False), (others, True)):
        snapshots = []
        for panel in panels:  # BAD follows names, labels, texts and dates
            state = re.sub(REPLACED, lambda match: match[0] + json.dumps(BAD)[1:-1], json.dumps(panel.state()))
            snapshots.append(panel.snapshot() | {"state": json.loads(state)})
        assert {place(snapshot, "a.png").count("<img") for snapshot in snapshots} == {1}  # the site changes this tag
        page = pages.open(*(SimpleNamespace(snapshot=snapshot.copy) for snapshot in snapshots), kernel=kernel)
        page.locator("details").evaluate_all("all => all.forEach((e) => { e.open = true; })")
        for number in range(len(snapshots)):
            expect(panel_of(page, number)).to_contain_text(MARK)
        assert page.locator("img").count() == 0


def test_two_panels_on_one_page_are_independent(pages: Pages) -> None:
    changes = {
        "lora": {"rank": 32}, "sweep": {"lr": 1e-2}, "memory": {"batch": 64}, "rank": {"rank": 8},
        "voices": {"sizes": {"base": 9000, "captain": 9, "json": 9, "preacher": 9}},
        "train": {"found": {}}, "compare": {"margin": 0.04}, "mixer": {"share": 0.75},
        "claim": {"at": [0, 3, 5, 1]}, "class": {"lr": 1e-2},
    }  # fmt: skip
    page = pages.open(*(panel for panel in one_each().values() for _ in range(2)))
    change = "(e, values) => { for (const [name, value] of Object.entries(values)) e.model.set(name, value); }"
    for number, name in enumerate(one_each()):
        unchanged, changed = (panel_of(page, 2 * number + at).locator(".big") for at in (0, 1))
        before = unchanged.inner_text(), changed.inner_text()
        page.locator("[data-panel]").nth(2 * number + 1).evaluate(change, changes[name])  # as a kernel would
        expect(changed).not_to_have_text(before[1])
        assert unchanged.inner_text() == before[0]


FRAME = """<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none';
script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'"><script type="module">
for (const [code, state] of PANELS) {
  const values = new Map(Object.entries(state));
  for (const [name, value] of values) { // as bytes arrive from a kernel
    if (value?.b64) values.set(name, new DataView(Uint8Array.from(atob(value.b64), (e) => e.charCodeAt(0)).buffer));
  }
  const model = { get: (n) => values.get(n), set: (n, v) => values.set(n, v), on() {}, off() {}, save_changes() {} };
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const el = document.body.appendChild(document.createElement("div"));
  await (await import(url)).default.render({ model, el });
}
</script>"""
REACHES_OUT = r"\bimport\b *[({*\"']|@import|https?://(?!www\.w3\.org/)|\b(fetch|eval|WebSocket|XMLHttpRequest)\b"


def test_a_panel_is_one_inline_module_that_loads_nothing(browser: Browser) -> None:
    """VS Code and Colab show panels like this: in a frame from another origin that isn't allowed to load anything."""
    panels = one_each().values()
    assert {panel.file for panel in panels} == {file.name for file in JS.glob("*_panel.js")}
    modules = [[module(panel.file), panel.state()] for panel in panels]
    for code, state in modules:
        assert not re.search(REACHES_OUT, code)
        assert len(json.dumps([code, state])) < 10**6  # a server accepts messages of up to 10 MB
    frame = FRAME.replace("PANELS", json.dumps(modules).replace("<", "\\u003c"))
    page, messages = browser.new_page(), list[str]()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.set_content(f'<iframe sandbox="allow-scripts" width="900" height="9000" srcdoc="{escape(frame)}"></iframe>')
    assert_drawn(page.frame_locator("iframe"))
    page.close()
    assert not messages


def test_a_still_is_a_wide_png(browser: Browser) -> None:
    png = still.still(lora().snapshot())
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 1000  # its width
    bar = Image.new("RGB", (400, 100), "white")
    for shade in range(60):  # an edge has many shades
        bar.paste((0, 158 - shade, 115), (shade * 5, 0, shade * 5 + 5, 90))
    for number, color in enumerate(((86, 180, 233), (230, 159, 0))):
        bar.paste(color, (40 * number, 95, 40 * number + 5, 97))
    colors = {color for _, color in Image.open(io.BytesIO(still.small_png(bar))).convert("RGB").getcolors()}
    assert {(86, 180, 233), (230, 159, 0)} <= colors
