"""The panels that the browser draws in JupyterLab: all on one page; its one kernel is slow, restarted and lost."""

import base64
import re
from collections.abc import Iterator

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Browser, Page, expect

from lora_lab import LoRA, LoRAPanel, load_model, save_adapter
from lora_lab.widgets.still import still
from tests.conftest import randomise
from tests.e2e.conftest import Lab, Watched, watching
from tests.e2e.pages import box_of, panel_of
from tests.e2e.test_drawn_panels import EVERY, every_panel_is_drawn

LORA, FILM, SWEEP, OTHER, RANK, VOICES, TRAIN, RIVALS = range(8)  # the panels, from the top
OPINIONS = "text,label\n" + "".join(
    f"{'a fine and moving' if n % 2 else 'a dull and hollow'} film number {n},{n % 2}\n" for n in range(60)
)
PANELS = """
import ipywidgets as W
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, SweepPanel, TrainPanel
from lora_lab.widgets.rank_panel import RankPanel
from lora_course.panels.voices_panel import VoicesPanel
plan = dict(task="opinions.csv", rank=(1, 2), alpha=(8,), lr=(1e-3, 4e-3), seed=(0, 1), steps=60, batch=4)
lora, film = LoRAPanel(models=["minilm"]), MemoryPanel("minilm", "LoRA q, v", batch=2, seq=64, models=["minilm"])
sweep, other = SweepPanel("mine/runs", **plan), SweepPanel("other/runs", **plan)
rank = RankPanel()
voices = VoicesPanel({"captain": "voices/captain", "json": "voices/json"}, longest=40)
train = TrainPanel(task="opinions.csv", steps=200, batch=4, store="trained/runs")
terms = dict(seeds=2, rates=1, growth=0, steps=20, batch=4)
rivals = ComparePanel("minilm", "opinions.csv", ("head", "lora"), store="compared", **terms)
twin, heard = W.IntText(), W.Textarea()
links = [W.jslink((lora, "rank"), (film, "rank")), W.jslink((sweep, "rank"), (twin, "value"))]
for panel, name in ((lora, "rank"), (film, "batch"), (sweep, "rank")):
    panel.observe(lambda change: setattr(heard, "value", heard.value + f" {change['name']} {change['new']}"), name)
W.VBox([W.HBox([lora, W.HTML("beside")]), W.HBox([film]), sweep, other, rank, voices, train, rivals, twin, heard])
"""
SLOW = """
import time
seconds = iter([6, 4])
for panel, name in ((film, "batch"), (sweep, "rank")):
    panel.observe(lambda change: time.sleep(next(seconds, 0)), name)
"""
CELLS = [PANELS, "lora.rank = 128", SLOW, EVERY, "LoRAPanel(models=['minilm'])"]


@pytest.fixture(scope="module")
def opened(browser: Browser, lab: Lab) -> Iterator[Watched]:
    """One page for all tests here, its panels shown; the last cell has a picture and was not run here."""
    (lab.folder / "opinions.csv").write_text(OPINIONS)
    model = load_model("smollm2")
    LoRA(rank=2).attach(model)
    for seed, name in enumerate(("captain", "json")):  # untrained voices: what they say does not matter here
        randomise(model, seed)
        save_adapter(model, lab.folder / "voices" / name)
    notebook = new_notebook(cells=[new_code_cell(source.strip()) for source in CELLS])
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    snapshot = LoRAPanel(models=["minilm"]).snapshot()
    picture = {"image/png": base64.b64encode(still(snapshot)).decode(), "text/plain": snapshot["words"]}
    notebook.cells[-1].outputs = [new_output("display_data", picture)]
    nbformat.write(notebook, lab.folder / "panels.ipynb")
    with watching(browser, lab) as watched:
        watched.open("panels.ipynb")
        run(watched.page, 0)
        panel_of(watched.page, RIVALS).wait_for(timeout=120_000)
        yield watched


@pytest.fixture
def page(opened: Watched, lab: Lab) -> Iterator[Page]:
    yield opened.page
    assert not opened.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()


def run(page: Page, cell: int) -> None:
    page.locator(".jp-Cell .cm-content").nth(cell).click()
    page.keyboard.press("Control+Enter")


def test_python_hears_is_heard_and_traits_are_linked(page: Page) -> None:
    lora, film, sweep = (panel_of(page, number) for number in (LORA, FILM, SWEEP))
    assert min(box_of(panel)["width"] for panel in (lora, film)) > 300  # in an HBox too
    lora.get_by_role("slider", name="rank r").press("ArrowRight")
    expect(page.locator("textarea")).to_have_value(re.compile("rank 9"))
    expect(film.get_by_role("slider", name="rank")).to_have_attribute("aria-valuetext", "rank 9")  # jslink
    film.get_by_role("slider", name="rank").press("ArrowRight")
    expect(lora.get_by_role("slider", name="rank r")).to_have_attribute("aria-valuetext", re.compile("^rank 10"))
    film.get_by_role("slider", name="batch size").press("ArrowRight")
    expect(page.locator("textarea")).to_have_value(re.compile("batch 3"))
    sweep.get_by_role("slider", name="rank").press("ArrowLeft")
    expect(page.locator("input[type=number]")).to_have_value("1")
    run(page, 1)
    expect(lora.locator(".big")).to_contain_text("16×")


def test_without_the_token_the_server_tells_nothing(browser: Browser, lab: Lab) -> None:
    with browser.new_page() as stranger:
        assert stranger.request.get(f"{lab.address.split('/lab/')[0]}/api/contents").status == 403


def test_every_panel_is_drawn(page: Page) -> None:
    run(page, 3)
    every_panel_is_drawn(page, first=8)


def test_a_notebook_that_was_not_run_shows_the_still(page: Page) -> None:
    picture = page.locator(".jp-CodeCell").last.locator(".jp-OutputArea img")
    expect(picture).to_be_visible()
    assert picture.evaluate("e => e.naturalWidth") > 1000


def test_a_slow_kernel_freezes_nothing_and_is_seen_to_be_slow(page: Page) -> None:
    film, slider = panel_of(page, FILM), panel_of(page, FILM).get_by_role("slider", name="batch size")
    run(page, 2)  # who hears of a batch takes seconds
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").nth(2)).to_have_text(re.compile(r"\d"))
    before = film.locator(".big").inner_text()
    for _ in range(3):
        slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "6 sequences", timeout=1_000)
    expect(film.locator(".big")).not_to_have_text(before, timeout=1_000)
    film.get_by_role("button", name="measure it here").click()
    expect(film.locator(".kernel")).to_contain_text("Waiting for the kernel", timeout=3_000)
    expect(film.get_by_role("button", name="measure it here")).to_be_disabled()
    slider.press("ArrowLeft")  # still free
    expect(slider).to_have_attribute("aria-valuetext", "5 sequences", timeout=1_000)
    expect(film.locator(".standing")).to_contain_text("measuring")
    expect(film.locator(".kernel")).to_be_empty()
    expect(page.locator("textarea")).to_have_value(re.compile("batch 5"))
    expect(slider).to_have_attribute("aria-valuetext", "5 sequences")  # nothing that Python heard late comes back
    expect(film.locator(".standing")).to_contain_text("the prediction, to the byte", timeout=120_000)
    expect(film.locator(".measured")).to_have_count(1)


def test_it_trains_stops_in_mid_run_and_goes_on_beside_another_panel(page: Page, lab: Lab) -> None:
    panel, other = panel_of(page, SWEEP), panel_of(page, OTHER)
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


def test_all_voices_answer_side_by_side_and_stop_ends_them(page: Page) -> None:
    panel = panel_of(page, VOICES)
    ask, doing = panel.get_by_role("button", name="Ask"), panel.locator(".doing")
    ask.click()
    expect(doing).to_contain_text(re.compile(r"Answering: [1-9]\d* tokens each"), timeout=180_000)
    expect(ask).to_be_disabled()
    panel.get_by_role("button", name="Stop").click()
    expect(doing).to_contain_text("Stopped:", timeout=60_000)
    panel.get_by_role("textbox", name="or yours").fill("How do I cook rice?")
    panel.get_by_role("slider", name="strength").press("ArrowLeft")
    panel.get_by_role("button", name="Ask").click()
    expect(doing).to_contain_text("Done:", timeout=180_000)
    expect(panel.locator("[data-voice=captain]")).to_contain_text("adapter × 0.5")
    assert len(set(panel.locator(".voice p").all_inner_texts())) == 4
    panel.get_by_role("combobox", name="question").select_option("Why is the sky blue?")
    expect(panel.locator("[data-voice=json]")).to_contain_text("Press Ask to hear it")  # at this strength


def test_a_run_starts_stops_goes_on_and_answers_one_s_own_sentence(page: Page, lab: Lab) -> None:
    panel = panel_of(page, TRAIN)
    panel.get_by_role("slider", name="rank").press("ArrowRight")
    expect(panel.locator(".count")).to_contain_text("147,456")
    panel.get_by_role("slider", name="your guess").press("ArrowRight")
    panel.get_by_role("button", name="Start").click()
    expect(panel.locator(".doing")).to_contain_text(re.compile(r"Step [1-9]\d* of 200"), timeout=180_000)
    step, curve = panel.locator(".doing").inner_text().partition(" of ")[0], panel.locator(".picture svg").inner_html()
    expect(panel.locator(".doing")).not_to_contain_text(f"{step} of ")
    assert panel.locator(".picture svg").inner_html() != curve  # it moves while the kernel is free
    panel.get_by_role("button", name="Stop").click()
    expect(panel.locator(".doing")).to_contain_text("Stopped at step", timeout=60_000)
    expect(panel.locator(".big")).to_contain_text("test rows right")
    panel.get_by_role("button", name="go on").click()
    expect(panel.locator(".doing")).to_contain_text("Done", timeout=240_000)
    expect(panel.locator(".title")).to_contain_text("after 200 steps, give or take")
    assert len(list((lab.folder / "trained").rglob("adapter_model.safetensors"))) == 1
    panel.get_by_role("textbox", name="Your own sentence").fill("a fine and <b>moving</b> film")
    expect(panel.locator(".said")).to_contain_text("%", timeout=60_000)
    expect(panel.locator(".quoted")).to_contain_text("<b>moving</b>")  # text, never markup
    before = panel.locator(".said").inner_text()
    panel.get_by_role("slider", name="strength").press("Home")
    expect(panel.locator(".said")).not_to_have_text(before, timeout=1_000)  # no kernel is asked


def test_methods_are_compared_and_studies_drawn_anew(page: Page) -> None:
    panel = panel_of(page, RIVALS)
    expect(panel.locator(".title")).to_have_text("Nothing has been compared yet")
    panel.get_by_role("button", name="Start: 2 methods").click()
    expect(panel.locator(".doing")).to_contain_text("Done: 2 of 2 methods", timeout=240_000)
    expect(panel.locator(".title")).to_contain_text("LoRA r8 q,v trains 96.8 times the numbers of head only")
    assert panel.locator(".picture circle.dot").count() == 2 * 2
    panel.get_by_role("button", name="draw 100 studies").click()
    expect(panel.locator(".misses")).to_contain_text("of 100 intervals miss the truth", timeout=60_000)


def test_when_the_kernel_is_gone_each_panel_says_so_and_keeps_what_it_shows(page: Page) -> None:
    panels = [panel_of(page, number) for number in range(8)]
    headlines = [panel.locator(".big").text_content() for panel in panels]
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    for panel, headline in zip(panels, headlines, strict=True):
        expect(panel.locator(".kernel")).to_contain_text("The kernel was restarted or has ended", timeout=60_000)
        assert panel.locator(".big").text_content() == headline
    slider = panels[FILM].get_by_role("slider", name="batch size")
    before = slider.get_attribute("aria-valuetext") or ""
    slider.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuetext", before)
    expect(panels[FILM].locator(".big")).not_to_have_text(headlines[FILM])
    expect(panels[FILM].get_by_role("button", name="measure it here")).to_be_disabled()
    expect(panels[OTHER].get_by_role("button", name=re.compile("^run these"))).to_be_disabled()
    expect(panels[RIVALS].get_by_role("button", name=re.compile("^Start"))).to_be_disabled()
