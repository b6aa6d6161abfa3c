"""Tests of panels in JupyterLab: all on one page with a slow, a busy, and a restarted kernel; and a lesson by keyboard.

The tests share one page and run in the order of this file.
"""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect

from lora_lab import LoRA, load_model, save_adapter
from tests.conftest import randomise
from tests.e2e.pages import FOCUSED, box_of, panel_of
from tests.e2e.panels import ONE_EACH_CELL
from tests.e2e.test_drawn_panels import assert_drawn

LORA, MEMORY, SWEEP, OTHER_SWEEP, VOICES, COMPARE = range(6)  # the panels, from the top
OPINIONS = "text,label\n" + "".join(
    f"{'a fine and moving' if n % 2 else 'a dull and hollow'} film number {n},{n % 2}\n" for n in range(60)
)
PANELS = """
import ipywidgets as W
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel
from lora_course.panels.voices_panel import VoicesPanel
grid = dict(task="opinions.csv", rank=(1, 2), alpha=(8,), lr=(1e-3, 4e-3), seed=(0, 1), steps=60, batch=2)
lora, memory = LoRAPanel(models=["minilm"]), MemoryPanel("minilm", "LoRA q, v", batch=2, seq=64, models=["minilm"])
sweep, other_sweep = SweepPanel("mine/runs", **grid), SweepPanel("other/runs", **grid)
voices = VoicesPanel({"captain": "voices/captain", "json": "voices/json"}, longest=40)
tuning = dict(seeds=2, rates=1, growth=0, steps=20, batch=4)
compare = ComparePanel("minilm", "opinions.csv", ("head", "lora"), store="compared", **tuning)
linked, observed = W.IntText(), W.Textarea()
links = [W.jslink((lora, "rank"), (memory, "rank")), W.jslink((sweep, "rank"), (linked, "value"))]
for panel, name in ((lora, "rank"), (memory, "batch"), (sweep, "rank")):
    panel.observe(lambda c: setattr(observed, "value", observed.value + f" {c['name']} {c['new']}"), name)
panels = [W.HBox([lora, W.HTML("beside")]), W.HBox([memory]), sweep, other_sweep, voices, compare]
W.VBox([*panels, linked, observed])
"""
SLOW = """
import time
seconds = iter([6, 4])
for panel, name in ((memory, "batch"), (sweep, "rank")):
    panel.observe(lambda change: time.sleep(next(seconds, 0)), name)
"""
FEWER_ROWS = """
from dataclasses import replace
from lora_lab.training.tasks import TASKS
full_task = TASKS["rt"]
TASKS["rt"] = replace(full_task, held_out=(50, 100))  # scoring takes longest
"""
ALL_ROWS = 'TASKS["rt"] = full_task'
CELLS = [PANELS, "lora.rank = 128", SLOW, ONE_EACH_CELL]


@pytest.fixture(autouse=True)
def offline(lab):
    yield
    assert not lab.requests
    assert not lab.blocked.exists(), lab.blocked.read_text()


@pytest.fixture(scope="module")
def page(lab):
    (lab.folder / "opinions.csv").write_text(OPINIONS)
    model = load_model("smollm2")
    LoRA(rank=2).attach(model)
    for seed, name in enumerate(("captain", "json")):
        randomise(model, seed)
        save_adapter(model, lab.folder / "voices" / name)
    notebook = new_notebook(cells=[new_code_cell(source.strip()) for source in CELLS])
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(notebook, lab.folder / "panels.ipynb")
    page = lab.open("panels.ipynb")
    run(page, CELLS.index(PANELS))
    panel_of(page, COMPARE).wait_for(timeout=120_000)
    return page


def run(page: Page, cell: int | str) -> None:
    """Run a cell, given by its number or by a part of its source."""
    editors = page.locator(".jp-Cell .cm-content")
    (editors.nth(cell) if isinstance(cell, int) else editors.filter(has_text=cell)).click()
    page.keyboard.press("Control+Enter")


def test_observe_jslink_and_hbox(page: Page) -> None:
    lora, memory, sweep = (panel_of(page, number) for number in (LORA, MEMORY, SWEEP))
    assert min(box_of(panel)["width"] for panel in (lora, memory)) > 300  # in an HBox
    observed = page.locator("textarea")
    expect(unsaved := page.locator(".jp-mod-dirty")).not_to_have_count(0)
    lora.get_by_role("slider", name="rank r").press("Control+s")
    expect(unsaved).to_have_count(0)
    lora.get_by_role("slider", name="rank r").press("ArrowRight")
    expect(observed).to_have_value(re.compile("rank 9"))
    expect(memory.get_by_role("slider", name="rank")).to_have_attribute("aria-valuetext", "rank 9")
    memory.get_by_role("slider", name="rank").press("ArrowRight")
    expect(lora.get_by_role("slider", name="rank r")).to_have_attribute("aria-valuetext", re.compile("^rank 10"))
    memory.get_by_role("slider", name="batch size").press("ArrowRight")
    expect(observed).to_have_value(re.compile("batch 3"))
    sweep.get_by_role("slider", name="rank").press("ArrowLeft")
    expect(page.locator("input[type=number]")).to_have_value("1")
    run(page, CELLS.index("lora.rank = 128"))
    expect(lora.locator(".big")).to_contain_text("16×")


def test_the_server_refuses_requests_without_its_token(browser, lab):
    with browser.new_page() as page:
        assert page.request.get(f"{lab.address.split('/lab/')[0]}/api/contents").status == 403


def test_every_panel_is_drawn(page: Page) -> None:
    run(page, CELLS.index(ONE_EACH_CELL))
    assert_drawn(page, first=COMPARE + 1)


def test_panels_stay_usable_with_a_slow_kernel(page: Page) -> None:
    panel, slider = panel_of(page, MEMORY), panel_of(page, MEMORY).get_by_role("slider", name="batch size")
    measure = panel.get_by_role("button", name="measure it here")
    run(page, CELLS.index(SLOW))
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").nth(CELLS.index(SLOW))).to_have_text(re.compile(r"\d"))
    before = panel.locator(".big").inner_text()
    for _ in range(3):
        slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "6 sequences", timeout=1_000)
    expect(panel.locator(".big")).not_to_have_text(before, timeout=1_000)
    measure.click()
    expect(panel.locator(".kernel")).to_contain_text("Waiting for the kernel", timeout=3_000)
    expect(measure).to_be_disabled()
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "5 sequences", timeout=1_000)
    expect(panel.locator(".standing")).to_contain_text("measuring")
    expect(panel.locator(".kernel")).to_be_empty()
    expect(page.locator("textarea")).to_have_value(re.compile("batch 5"))
    expect(slider).to_have_attribute("aria-valuetext", "5 sequences")  # older values don't come back from Python
    expect(panel.locator(".standing")).to_contain_text("exactly as predicted", timeout=120_000)
    expect(panel.locator(".measured")).to_have_count(1)


def test_a_sweep_stops_in_mid_run_and_goes_on(page, lab):
    panel, other = panel_of(page, SWEEP), panel_of(page, OTHER_SWEEP)
    panel.get_by_role("slider", name="rank").press("ArrowRight")  # the kernel is busy from here on
    panel.get_by_role("slider", name="rank").press("ArrowLeft")
    for _ in range(2):
        panel.get_by_role("button", name=re.compile("pick this row’s 2 untried")).click()
        panel.get_by_role("slider", name="rank").press("ArrowRight")
    panel.get_by_role("button", name="run these: 4 cells × 2 seeds").click()
    expect(panel.locator(".doing")).to_contain_text("8 runs side by side", timeout=60_000)
    expect(panel.locator(".big")).to_contain_text(re.compile(r"training step \d+"), timeout=180_000)
    panel.get_by_role("button", name="Stop").click()
    expect(panel.locator(".doing")).to_contain_text("Stopped", timeout=60_000)
    expect(other.locator(".doing")).not_to_contain_text("Stopped")
    panel.get_by_role("button", name=re.compile("^run these")).click()
    expect(panel.locator(".doing")).to_contain_text("Done", timeout=240_000)
    expect(panel.locator(".big")).to_contain_text("validation accuracy")
    assert len(list((lab.folder / "mine").rglob("adapter_model.safetensors"))) == 8
    assert not (lab.folder / "other").exists()


def test_voices_answer_side_by_side_and_stop(page: Page) -> None:
    panel = panel_of(page, VOICES)
    ask, doing = panel.get_by_role("button", name="Ask"), panel.locator(".doing")
    ask.click()
    expect(doing).to_contain_text(re.compile(r"Answering: [1-9]\d* tokens each"), timeout=180_000)
    expect(ask).to_be_disabled()
    panel.get_by_role("button", name="Stop").click()
    expect(doing).to_contain_text("Stopped:", timeout=60_000)
    panel.get_by_role("textbox", name="or yours").fill("How do I cook rice?")
    panel.get_by_role("slider", name="strength").press("ArrowLeft")
    ask.click()
    expect(doing).to_contain_text("Done:", timeout=180_000)
    expect(panel.locator("[data-voice=captain]")).to_contain_text("adapter × 0.5")
    assert len(set(panel.locator(".voice p").all_inner_texts())) == 4
    panel.get_by_role("combobox", name="question").select_option("Why is the sky blue?")
    expect(panel.locator("[data-voice=json]")).to_contain_text("Press Ask to hear it")  # at this strength
    panel.get_by_role("slider", name="strength").press("ArrowRight")
    expect(panel.locator("[data-voice=json]")).not_to_contain_text("Press Ask")  # the text until Stop


def test_methods_are_compared_and_studies_simulated(page: Page) -> None:
    panel = panel_of(page, COMPARE)
    expect(panel.locator(".title")).to_have_text("Nothing has been compared yet")
    panel.get_by_role("button", name="Start: 2 methods").click()
    expect(panel.locator(".doing")).to_contain_text("Done: 2 of 2 methods", timeout=240_000)
    expect(panel.locator(".title")).to_contain_text("LoRA r8 q,v trains 96.8 times the parameters of head only")
    expect(panel.locator(".picture circle.dot")).to_have_count(4)
    panel.get_by_role("button", name="draw 100 studies").click()
    expect(panel.locator(".misses")).to_contain_text("of 100 intervals (crosses) miss the truth", timeout=60_000)


def test_panels_report_a_restarted_kernel_and_keep_their_content(page: Page) -> None:
    panels = [panel_of(page, number) for number in range(6)]
    headlines = [panel.locator(".big").text_content() for panel in panels]
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    for panel, headline in zip(panels, headlines, strict=True):
        expect(panel.locator(".kernel")).to_contain_text("The kernel was restarted or has ended", timeout=60_000)
        assert panel.locator(".big").text_content() == headline
    expect(page.locator(".lab-panel .title").last).to_contain_text("74.0% on validation at step 200")  # it was training
    slider = panels[MEMORY].get_by_role("slider", name="batch size")
    before = slider.get_attribute("aria-valuetext") or ""
    slider.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuetext", before)
    expect(panels[MEMORY].locator(".big")).not_to_have_text(headlines[MEMORY])
    for number, button in ((MEMORY, "measure it here"), (OTHER_SWEEP, "run these"), (COMPARE, "Start")):
        expect(panels[number].get_by_role("button", name=re.compile(f"^{button}"))).to_be_disabled()


def test_a_lesson_is_done_by_keyboard(lab):
    file = lab.folder / "02_how_sure_are_you.ipynb"
    lesson = nbformat.read(file, as_version=4)
    lesson.cells.insert(0, new_code_cell(FEWER_ROWS.strip()))
    (needs_result,) = [n for n, cell in enumerate(lesson.cells) if "run = panel.result()" in cell.source]
    lesson.cells.insert(needs_result + 1, new_code_cell(ALL_ROWS))
    nbformat.write(lesson, file)
    page = lab.run_all(file.name)  # stops at the cell that needs a result
    panel, outputs = panel_of(page), page.locator(".jp-OutputArea")
    panel.wait_for(timeout=180_000)
    assert page.get_by_text("Jupyter news").count() == 0
    expect(outputs.filter(has_text="press Start in the panel above").first).to_be_visible(timeout=60_000)
    panel.get_by_role("button", name="Start").focus()  # from here on only keys
    _tab_to(page, "targets")
    page.keyboard.press("Space")  # q off
    expect(panel.locator(".count")).to_contain_text("36,864 parameters in the adapter")
    page.keyboard.press("Space")
    expect(panel.locator(".count")).to_contain_text("73,728 parameters in the adapter")
    _tab_to(page, "go", "Shift+Tab")
    page.keyboard.press("Enter")
    doing, curve = panel.locator(".doing"), panel.locator(".picture svg")
    for again in (True, False):
        expect(doing).to_contain_text(re.compile(r"Step [1-9]\d* of 200"), timeout=120_000)
        step, drawn = doing.inner_text().partition(" of ")[0], curve.inner_html()
        expect(doing).not_to_contain_text(f"{step} of ")
        expect(curve).not_to_have_js_property("innerHTML", drawn)  # waits, for a busy machine
        page.keyboard.press("Space")  # the same button is now Stop and has kept the focus
        expect(doing).to_contain_text("Stopped at step", timeout=120_000)
        assert page.evaluate(FOCUSED)[0] == "go"
        if again:
            page.keyboard.press("Space")  # go on
    expect(panel.locator(".big")).to_contain_text("of 100 test rows right")
    expect(panel.locator(".changes")).to_contain_text(re.compile(r"changed \d+ of 50 validation answers"))
    assert len(list((lab.folder / "runs" / "02").glob("*/adapter_model.safetensors"))) == 1
    panel.get_by_role("textbox", name="Your own sentence").fill("a fine and <b>moving</b> film")
    expect(panel.locator(".said")).to_contain_text("%", timeout=60_000)
    expect(panel.locator(".quoted")).to_contain_text("<b>moving</b>")
    ray = panel.locator(".curve .ray")  # after a few steps, the answer may be the same at every strength
    before = ray.get_attribute("d") or ""
    panel.get_by_role("slider", name="strength").press("Home")
    expect(ray).not_to_have_attribute("d", before, timeout=1_000)  # without the kernel
    run(page, ALL_ROWS)
    run(page, "run = panel.result()")
    expect(outputs.filter(has_text="stays sealed").first).to_be_visible()
    expect(panel.locator(".picture path.pale")).to_have_count(1, timeout=60_000)  # the other seeds


def _tab_to(page: Page, name: str, key: str = "Tab") -> None:
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate(FOCUSED)[0] == name:
            return
    raise AssertionError(f"20 times {key} doesn't reach {name}")
