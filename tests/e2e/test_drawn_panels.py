"""What holds for every panel that the browser draws: on a page without a kernel, and for everyone."""

import json
import re
import tempfile
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from playwright.sync_api import Browser, Page, expect

from lora_course.lesson import reference_comparison
from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.class_panel import ClassPanel
from lora_course.panels.mixer_panel import MixerPanel
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel, TrainPanel
from lora_lab.widgets.base import JS, Panel, module, place
from lora_lab.widgets.lora_panel import VIEWS
from lora_lab.widgets.rank_panel import RankPanel
from tests.conftest import HOSTILE, MARK
from tests.e2e.pages import FOCUSED, Pages, axe_finds, box_of, class_in, panel_of

Made = TypeVar("Made", bound=Panel)
MODELS = ["minilm", "gpt2", "llama-3-8b"]
AT_WORK = {"state": "training", "busy": True, "error": "", "share": 0.3, "step": 60, "left": 20, "runs": 3}
SET = "(e, values) => { for (const [name, value] of Object.entries(values)) e.model.set(name, value); }"
SEEN = "const seen = (what) => [...card.querySelectorAll(what)].find((e) => e.checkVisibility());"
FLAWS = {  # by panel: a rule of axe, and what an author may forget
    "SweepPanel": (
        "label",
        f"card => {{ {SEEN} const e = seen('input[type=range]'); e.removeAttribute('aria-label');"
        " e.closest('label').replaceWith(e); }",
    ),
    "RankPanel": ("svg-img-alt", "card => card.querySelector('svg[role=img]').removeAttribute('aria-label')"),
}
NIGHT = """() => {
    document.documentElement.style.colorScheme = 'dark';
    Object.assign(document.body.style, { background: '#111', color: '#e6e6e6' }); // panels follow their page
}"""
CHANGES = """async (card) => { // redraws of the picture within a third of a second
    let count = 0;
    const watch = new MutationObserver(() => { count += 1; });
    watch.observe(card.querySelector('.picture svg'), { childList: true });
    await new Promise((done) => setTimeout(done, 330));
    watch.disconnect();
    return count;
}"""


def lora(view: str = "size", **given: Any) -> LoRAPanel:
    return LoRAPanel(view, models=MODELS, **given)


def having(panel: Made, **values: Any) -> Made:
    """The panel with other values of its traits, set one after the other."""
    for name, value in values.items():
        setattr(panel, name, value)
    return panel


def sweep(**values: Any) -> SweepPanel:
    """The runs that ship, at rank 8 and alpha 16."""
    return having(SweepPanel(into="nothing here"), **{"rank": 8, "alpha": 16.0, "lr": 2e-3} | values)


def film(model: str = "llama-3-8b", method: str = "LoRA q, v", **given: Any) -> MemoryPanel:
    return MemoryPanel(model, method, models=[model], **given)


def train(**values: Any) -> TrainPanel:
    """A run that is done, among three other seeds; its numbers are made up."""
    panel = TrainPanel(store="nothing here")
    checks = [[0, 51.0], [200, 74.0], [400, 79.2]]
    others = [{"checks": [[step, value + by] for step, value in checks], "value": 80.0 + by} for by in (-1, 0.5, 2)]
    earlier = [{"checks": [[0, 50.0], [400, 62.0]], "label": "lr 0.0001"}]
    moved = [[layer, role, 0.1 + 0.04 * layer] for layer in range(6) for role in ("q", "v")]
    panel.setup = panel.setup | {"others": others, "earlier": earlier}
    panel.live = {
        "state": "done", "busy": False, "error": "", "hash": panel.setup["hash"], "guess": 75, "left": 0, "step": 400,
        "steps": 400, "every": 1, "losses": [0.69 - 0.0008 * n for n in range(400)], "checks": checks, "moved": moved,
    }  # fmt: skip
    strengths = [step / 10 for step in range(21)]
    said = {"text": "not a dull film", "truth": "positive", "without": "negative", "with_adapter": "positive"}
    rising = [[0.7 - 0.3 * s, 0.3 + 0.3 * s] for s in strengths]
    panel.found = {
        "metric": "accuracy", "value": 80.9, "half": 1.7, "low": 79.2, "high": 82.6, "rows": 2000, "steps": 400,
        "seconds": 97, "adapter": "runs/a", "words": "minilm on rt", "labels": ["negative", "positive"],
        "made": {"date": "today", "hardware": "a laptop", "lora_lab": "0"}, "strengths": strengths,
        "changed": 9, "of": 50, "better": 6, "without": 70.0, "with": 76.0,
        "sentences": [said | {"p": rising}, said | {"truth": "negative", "p": rising[::-1]}],
    }  # fmt: skip
    return having(panel, **values)


def mixer() -> MixerPanel:
    """Two hundred texts, each of which turns at a share of its own; their numbers are made up."""
    shares, turns = np.linspace(0, 1, 21), np.random.default_rng(0).normal(0.6, 0.15, 200)
    sure = 1 / (1 + np.exp(12 * (shares[:, None] - turns)))
    return MixerPanel(("critic", "contrarian"), shares.tolist(), sure, [f"film number {n}" for n in range(200)])


def at_work() -> TrainPanel:
    panel = train()
    cut = {"losses": panel.live["losses"][:230], "checks": panel.live["checks"][:2], "step": 230, "left": 41}
    return train(live=panel.live | cut | {"busy": True, "state": "training"}, found={})


def classroom() -> ClassPanel:
    """What two laptops of a class left."""
    with tempfile.TemporaryDirectory() as folder:
        return ClassPanel(class_in(Path(folder)))


ONE_EACH = {
    "lora": lora, "sweep": sweep, "film": film, "rank": RankPanel, "voices": VoicesPanel, "train": train,
    "rivals": ComparePanel, "mixer": mixer, "claim": ClaimPanel, "class": classroom,
}  # fmt: skip
EVERY = """
import ipywidgets, os
os.environ["LORA_LAB_HEADLESS"] = ""  # which the import of tests would set
from tests.e2e.test_drawn_panels import ONE_EACH
ipywidgets.VBox([make() for make in ONE_EACH.values()])
"""


def every_panel_is_drawn(view: Any, first: int = 0) -> None:
    """Those of the cell EVERY, whose first is panel number `first` of a page or a frame."""
    for number in range(first, first + len(ONE_EACH)):
        panel = panel_of(view, number)
        expect(panel.locator(".big")).to_contain_text(re.compile(r"\w"), timeout=180_000)
        heights = panel.locator(".drawn svg, canvas, .voice").evaluate_all("all => all.map((e) => e.clientHeight)")
        assert max(heights) > 60, number


def all_looks() -> list[Panel]:
    """A page without a kernel."""
    training = sweep(rank=64, live={**AT_WORK, "curves": [[64, 16.0, 2e-3, [0.69, 0.68, 0.6]]]})
    predicted = sweep(view="alpha", guess={"alpha": "root"}, picked=[[8, 4.0, 0.02]], lr=5e-3)
    danced = having(ComparePanel(), margin=0.03)
    danced.resample(200, count=20)
    layers, maps = [lora(view, model="gpt2") for view in VIEWS], [sweep(), predicted, training]
    films, ranks = [film(method="QLoRA"), film("minilm")], [RankPanel(), RankPanel("weight", rank=8)]
    compared = [danced, ComparePanel(reference=reference_comparison("minilm_rt"))]
    return [*layers, *maps, *films, *ranks, VoicesPanel(), train(), *compared, mixer(), ClaimPanel(), classroom()]


def test_axe_finds_nothing_but_what_an_author_forgets_and_nothing_is_cut_off(pages: Pages) -> None:
    without, kernel = all_looks(), [train(), at_work()]
    for shown, with_kernel, words in (
        (kernel, True, "Step 230 of 400, about 41 s to go."), (without, False, "training step 15 of 200"),
    ):  # fmt: skip
        view = pages.open(*shown, still=True, kernel=with_kernel)
        expect(view.get_by_text(words)).to_have_count(1)
        opened = set[str]()
        for number, panel in enumerate(shown):  # axe is slow in tables: one of each kind
            if (kind := type(panel).__name__) not in opened and panel_of(view, number).locator(
                "details:visible"
            ).count():
                panel_of(view, number).locator("details").evaluate("e => e.open = true")
                opened.add(kind)
        assert not axe_finds(view)
        for wide in (1000, 700, 380):
            view.set_viewport_size({"width": wide, "height": 900})
            over = [panel_of(view, n).evaluate("e => e.scrollWidth - e.clientWidth") for n in range(len(shown))]
            assert max(over) <= 1, (wide, over)
        view.evaluate(NIGHT)
        expect(view.locator(".card.dark")).to_have_count(len(shown))
        assert not axe_finds(view)
    for kind, (rule, plant) in FLAWS.items():
        view.locator(f"[data-panel={kind}] .card").first.evaluate(plant)
        assert any(one.startswith(f"{rule}:") for one in axe_finds(view, f"[data-panel={kind}]")), rule


def test_tab_reaches_every_control_and_a_thumb_is_dragged(pages: Pages) -> None:
    each = (  # a panel, what Tab reaches in it, and a slider with its trait
        (lora(), "view model d rank drop", ("width d", "d")),
        (lora("model", model="llama-3-8b"), f"view model {'targets ' * 8} rank drop", ("rank r", "rank")),
        (lora("steps"), "view go act scan toy_rank alpha", ()),
        (sweep(lr=1e-3), "view lr rank alpha best family", ("learning rate", "lr")),
        (film(), "method scrub play model card optimizer seq batch rank checkpointing", ("sequence length", "seq")),
        (RankPanel(), "source rank more less", ("pieces added", "rank")),
        (VoicesPanel(), "question strength", ("strength", "strength")),
        (train(), "scrub play sentence strength", ("strength", "strength")),
        (ComparePanel(), "axis rival method margin flip", ("margin", "margin")),
        (mixer(), "share", ("share", "share")),
        (ClaimPanel(), "A claim p0 p1 p2 p3", ("memory of the card", "at")),
        (classroom(), "lr alpha family", ()),
    )
    view = pages.open(*(panel for panel, *_ in each))
    for number, (_, names, _) in enumerate(each):
        panel, seen, wanted = panel_of(view, number), [], [*names.split(), "SUMMARY"]
        wanted = wanted if panel.locator("details:visible").count() else wanted[:-1]
        for _ in wanted:
            view.keyboard.press("Tab")
            seen.append(view.evaluate(FOCUSED))
        assert [name for name, _ in seen] == wanted
        assert all(outline >= 2 for _, outline in seen)  # where the focus is can be seen
        if wanted[-1] == "SUMMARY":
            view.keyboard.press("Enter")  # the numbers unfold
            expect(panel.locator("details table").first).to_be_visible()
            view.keyboard.press("Enter")
    for number, (_, _, dragged) in enumerate(each):
        if dragged:
            _drag(view, number, *dragged)


def _drag(view: Page, number: int, slider: str, trait: str) -> None:
    """Pull a thumb with the mouse: what is drawn and told changes while the button is down. Then by keys."""
    panel, handle = panel_of(view, number), panel_of(view, number).get_by_role("slider", name=slider)
    value, place = "(e, name) => e.model.get(name)", view.locator("[data-panel]").nth(number)
    before = place.evaluate(value, trait)
    handle.scroll_into_view_if_needed()
    track = box_of(handle)
    at = float(handle.evaluate("e => e.value / e.max"))
    x, y = track["x"] + 9 + at * (track["width"] - 18), track["y"] + track["height"] / 2
    seen = [(handle.get_attribute("aria-valuetext"), panel.inner_text())]
    view.mouse.move(x, y)
    view.mouse.down()
    for share in (0.35, 0.8, 0.05):
        view.mouse.move(track["x"] + 9 + share * (track["width"] - 18), y, steps=3)
        seen.append((handle.get_attribute("aria-valuetext"), panel.inner_text()))
    view.mouse.up()
    assert len(set(seen)) == 4
    assert place.evaluate(value, trait) != before
    handle.press("Home")
    told = [handle.get_attribute("aria-valuetext")]
    for _ in range(3):  # each key is a step to another value
        handle.press("ArrowRight")
        told.append(handle.get_attribute("aria-valuetext"))
    assert len(set(told)) == 4, told


def test_what_plays_jumps_to_its_end_for_those_who_want_no_motion(pages: Pages) -> None:
    names = {lora("merge"): "go", lora("start"): "go", film(): "play", train(): "play"}
    view = pages.open(*names, still=True)
    for still in (True, False):
        view.emulate_media(reduced_motion="reduce" if still else "no-preference")
        for number, name in enumerate(names.values()):
            shown = panel_of(view, number)
            shown.locator(f"button[name={name}]").press("Enter")
            assert (shown.evaluate(CHANGES) < 2) == still, name


BAD = f'{HOSTILE} <!--<script> "'  # two of these would hide the rest of a page, or end an attribute
STRANGERS = r"\b(gpt2|minilm|captain|positive|laptop|today|grace|LoRA r8 q,v|critic|RTX 4090|tuning|q,v|card)\b"


def by_strangers(panel: Panel) -> dict[str, Any]:
    """A snapshot with BAD after names, labels, texts and dates."""
    text = re.sub(STRANGERS, lambda match: match[0] + json.dumps(BAD)[1:-1], json.dumps(panel.state()))
    return panel.snapshot() | {"state": json.loads(text)}


def test_text_of_strangers_is_never_read_as_markup(pages: Pages) -> None:
    failed, compared = {"state": BAD, "error": BAD, "busy": False}, ComparePanel()
    others = [
        lora("model", model="gpt2"), lora("merge", model="gpt2"), RankPanel({BAD: np.eye(4)}),
        having(compared, stored=compared.stored | {"metric": BAD}), sweep(live=failed), train(found={}, live=failed),
    ]  # fmt: skip
    for panels, kernel in (([make() for make in ONE_EACH.values()], False), (others, True)):
        shown = [by_strangers(panel) for panel in panels]
        assert {place(one, "a.png").count("<img") for one in shown} == {1}  # the site changes this tag
        view = pages.open(*(SimpleNamespace(snapshot=one.copy) for one in shown), kernel=kernel)
        view.locator("details").evaluate_all("all => all.forEach((e) => { e.open = true; })")
        for number in range(len(shown)):
            expect(panel_of(view, number)).to_contain_text(MARK)
        assert view.locator("img").evaluate_all("all => all.map((e) => e.parentElement.className)") == []


CHANGED = {
    "lora": {"rank": 32}, "sweep": {"lr": 1e-2}, "film": {"batch": 64}, "rank": {"rank": 8},
    "voices": {"sizes": {"base": 9000, "captain": 9, "json": 9, "preacher": 9}},
    "train": {"found": {}}, "rivals": {"margin": 0.04}, "mixer": {"share": 0.75},
    "claim": {"at": [0, 3, 5, 1]}, "class": {"lr": 1e-2},
}  # fmt: skip


def test_two_panels_on_a_page_do_not_hear_each_other(pages: Pages) -> None:
    view = pages.open(*(make() for make in ONE_EACH.values() for _ in range(2)))
    for number, name in enumerate(ONE_EACH):
        one, other = (panel_of(view, 2 * number + at).locator(".big") for at in (0, 1))
        before = one.inner_text(), other.inner_text()
        view.locator("[data-panel]").nth(2 * number + 1).evaluate(SET, CHANGED[name])  # as a kernel would
        expect(other).not_to_have_text(before[1])
        assert one.inner_text() == before[0]


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


def test_a_panel_is_one_inline_module_and_needs_nothing_from_a_strange_front_end(browser: Browser) -> None:
    """As VS Code and Colab show it: in a frame of another origin, which may load nothing, with the plainest model."""
    panels = [make() for make in ONE_EACH.values()]
    assert {panel.file for panel in panels} == {file.name for file in JS.glob("*_panel.js")}
    sent = [[module(panel.file), panel.state()] for panel in panels]
    for code, state in sent:
        assert not re.search(REACHES_OUT, code)
        assert len(json.dumps([code, state])) < 10**6  # a server passes messages of up to 10 MB on
    frame = FRAME.replace("PANELS", json.dumps(sent).replace("<", "\\u003c"))
    view, trouble = browser.new_page(), list[str]()
    view.on("console", lambda said: trouble.append(said.text))
    view.on("pageerror", lambda error: trouble.append(str(error)))
    view.set_content(f'<iframe sandbox="allow-scripts" width="900" height="9000" srcdoc="{escape(frame)}"></iframe>')
    every_panel_is_drawn(view.frame_locator("iframe"))
    view.close()
    assert not trouble
