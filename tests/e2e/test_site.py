"""The site, built without a network and opened as files: it asks nobody for anything, and its panels live."""

import html
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lora_course import checks
from tests.e2e.conftest import ROOT, guarded
from tests.e2e.pages import MOVE, Pages, axe_finds, panel_of

MOST_BYTES = 10_000_000
LESSON, PUZZLE = "lessons/03_which_knob_first.html", "lessons/01_write_it.html"
FOR_EVERYONE = ("index.html", "docs/teaching.html", LESSON, PUZZLE)  # checked by axe, wide and light, narrow and dark
FOCUSED_LINE = """() => {
    const { do: action, line } = document.activeElement.dataset;
    return [action, line === undefined ? "" : document.activeElement.closest("li").querySelector("code").textContent];
}"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder, made by a process that can reach nobody."""
    guard, folder = tmp_path_factory.mktemp("guard"), tmp_path_factory.mktemp("site") / "html"
    build = [sys.executable, str(ROOT / "site" / "build.py"), str(folder)]
    subprocess.run(build, env=guarded(guard), timeout=600, check=True)
    assert not (guard / "blocked").exists()
    return folder


@pytest.fixture(scope="session")
def site(built: Path) -> str:
    return built.as_uri()


@pytest.fixture
def visit(browser: Browser, pages: Pages) -> Callable[..., Page]:
    """Opens a page of the site and brings its panels to life. What it asks of others or complains of is a failure."""

    def opened(
        own: str, path: str = "index.html", width: int = 1280, theme: Any = "light", skipped: bool = True
    ) -> Page:
        if not pages.opened:
            size: Any = {"width": width, "height": 900}
            pages.watch(browser.new_page(viewport=size, color_scheme=theme, reduced_motion="reduce"), own, "data:")
        (page,) = pages.opened
        page.goto(f"{own}/{path}")
        while skipped and (skips := page.get_by_role("button", name="Skip", exact=True)).count():
            skips.first.click()  # it shows what waits for ranges
        page.evaluate("document.querySelectorAll('details:has([data-panel])').forEach((one) => (one.open = true))")
        for number, place in enumerate(page.locator("[data-panel]").all() if skipped else ()):
            place.scroll_into_view_if_needed()
            panel_of(page, number).wait_for()
        return page

    return opened


def test_every_page_opens_in_silence_and_every_lesson_is_one(built: Path, site: str, visit: Callable[..., Page]):
    pages = {str(file.relative_to(built)) for file in built.rglob("*.html")}
    lessons = {f"lessons/{file.stem}.html" for file in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {page for page in pages if page.startswith("lessons/")} == lessons
    assert sum(file.stat().st_size for file in built.rglob("*") if file.is_file()) < MOST_BYTES
    for path in sorted(pages):
        page = visit(site, path)
        expect(page.locator("h1").first).to_be_visible()
        if path in FOR_EVERYONE:
            for width, theme in ((380, "dark"), (1280, "light")):  # the next page is wide and light again
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                assert axe_finds(page, "html") == [], (path, theme)
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)


def test_every_link_leads_somewhere(built: Path):
    texts = {file: file.read_text(encoding="utf-8") for file in built.rglob("*.html")}
    lost = []
    for file, text in texts.items():
        for link in map(html.unescape, re.findall(r'(?:href|src)="([^"]+)"', text)):
            address = urlsplit(link)
            at = (file.parent / unquote(address.path)).resolve() if address.path else file
            missing = address.fragment and f'id="{unquote(address.fragment)}"' not in texts.get(at, "")
            if not address.scheme and (missing or not at.is_file()):
                lost.append(f"{file.name}: {link}")
    assert lost == []


def test_findings_stay_closed_until_ranges_are_given_or_skipped(site: str, visit: Callable[..., Page]):
    page = visit(site, "lessons/04_will_it_fit.html", skipped=False)
    forms, sealed = page.locator(".lab-predict"), page.locator("details.sealed")
    results = page.locator(".tag_reveal .cell_output")
    asked, all_sealed = forms.count(), sealed.count()
    assert (asked, all_sealed) == (2, 4)
    sealed.first.locator("summary").click()
    expect(sealed).to_have_count(all_sealed)  # still closed, and the form has the focus
    expect(forms.first.locator("input").first).to_be_focused()
    expect(results.first).to_be_hidden()
    expect(page.locator("[data-panel]")).to_be_hidden()  # it would show the answer
    for values, said in ((("",) * 4, "No range yet"), ((40, 10, 50, 80), "Swap them"), ((10, 40, 50, ""), "give both"),
                         ((10, 40, "", ""), "skipped")):  # fmt: skip
        for number, value in enumerate(values):
            forms.first.locator("input").nth(number).fill(str(value))
        forms.first.get_by_role("button", name="Seal my ranges").click()
        expect(forms.first.get_by_role("status")).to_contain_text(said)
    expect(results.first).to_contain_text("29.11%: inside your range, 10 to 40")
    expect(results.nth(1)).to_be_hidden()
    panel_of(page).scroll_into_view_if_needed()
    assert (panel_of(page).locator(".picture svg").bounding_box() or {"width": 0})["width"] > 300  # drawn at its width
    forms.nth(1).get_by_role("button", name="Skip").click()
    expect(results.nth(1)).to_contain_text("115.8 MiB.")
    expect(sealed).to_have_count(0)
    page.reload()
    expect(sealed).to_have_count(0)  # this browser remembers
    page.get_by_role("button", name="Clear").first.click()
    expect(sealed).to_have_count(all_sealed)


def test_without_javascript_a_panel_is_a_picture(browser: Browser, site: str):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{site}/index.html")
    box = page.locator("[data-panel] img").first.bounding_box()
    assert box
    assert box["height"] > 300
    page.close()


def test_the_ten_lines_are_put_in_order_by_keyboard(site: str, visit: Callable[..., Page]):
    page = visit(site, PUZZLE, 380, "dark")
    solution = page.locator(".hide pre", has_text="class LoRALinear").first.text_content() or ""
    ten = [line.strip() for line in solution.splitlines() if line.strip()][:10]
    page.locator("[data-do=take]").first.focus()

    def press(button: str, line: str) -> None:
        for _ in range(60):
            if page.evaluate(FOCUSED_LINE) == [button, line]:
                return page.keyboard.press("Enter")
            page.keyboard.press("Tab")
        raise AssertionError(f"{button} of {line!r} is never reached")

    status = page.locator("[data-puzzle] [role=status]")
    for line in ten[:-1]:
        page.locator("[data-do=take]").first.focus()
        press("take", line)
    press("check", "")
    expect(status).to_contain_text("1 more line to go")
    for button, line, words in (
        ("up", ten[3], "now line 3"),
        ("check", "", "before super().__init__()"),
        ("down", ten[3], "now line 4"),
        ("drop", ten[7], "taken out"),
        ("take", ten[7].replace("zeros", "randn"), "taken as line 9"),
        ("check", "", "A zero B does not learn slowly"),
        ("drop", ten[7].replace("zeros", "randn"), "taken out"),
        ("take", ten[7], "taken as line 9"),
        ("up", ten[7], "now line 8"),
        ("take", ten[9], "taken as line 10"),
        ("check", "", "starts as the one it wraps"),
    ):
        page.locator("[data-do=take]").first.focus()
        press(button, line)
        expect(status).to_contain_text(words)
    assert axe_finds(page, "[data-puzzle]") == []
    page.reload()
    assert page.locator(".puzzle ol code").all_inner_texts() == ten  # this browser remembers
    expect(status).to_contain_text("starts as the one it wraps")


def tried(form: Locator, *answers: str) -> str:
    """What a form replies when its open fields are given these answers."""
    fields = form.locator("input:not([type]):enabled, select:enabled")
    for number, answer in enumerate(answers):
        field = fields.nth(number)
        field.select_option(answer) if field.evaluate("e => e.tagName") == "SELECT" else field.fill(answer)
    form.get_by_role("button", name="Check").click()
    return form.get_by_role("status").inner_text()


@pytest.mark.parametrize(
    ("lesson", "compared"),
    [
        ("00_whats_in_this_small_file", checks.check_pair_numbers(...).right),
        ("04_will_it_fit", checks.check_peak(lambda tokens: None).right.at(2048, within=0.015)),
    ],
)
def test_a_number_is_judged_as_the_check_judges_it(site: str, visit: Callable[..., Page], lesson: str, compared: Any):
    page = visit(site, f"lessons/{lesson}.html")
    right = compared.right
    numbers = [right, *compared.misconceptions, 1.01 * right, 0.99 * right, 1.31 * right, right / 1234, -right, 0]
    for number in [*numbers, float(f"{right:.3g}"), round(right, 2)]:
        said = compared.judge(number)
        words = f"{'Right' if said.passed else 'Not right'}: {said.words}"
        assert tried(page.locator(".lab-answer").first, repr(number)).split("\n")[0] == words


def test_a_formula_is_an_answer_hints_come_one_by_one_and_the_browser_remembers(site: str, visit: Callable[..., Page]):
    page = visit(site, "lessons/00_whats_in_this_small_file.html", 380, "dark")
    expect(page.locator("article")).to_contain_text("rank 2")  # drawn for a reader without a name, as in the form
    form = page.locator(".lab-answer").first
    for answer, hint in (("2 * 576", "Hint 1"), ("1_536 * 2", "Hint 2"), ("576 * 1,536", "Hint 3")):
        assert hint in tried(form, answer)
    for refused in ("alert(1)", "", "3 4", "2(3)", "1/0", "sqrt(-1)"):
        assert tried(form, refused) == "Write a number or a formula: + - * / ** ( ) and sqrt."
    assert axe_finds(page, ".lab-answer") == []
    for formula in (  # as people write it
        "4_224", "4 224", "4224,0", "2 × 2112", "2 x (576 + 1,536)", "8448 // 2", "8449 // 2", "4224 % 10_000",
        "2^12 + 128", "2**12 + 2**7", "sqrt(4224^2)", "√(4224 ** 2)", "-(-4224)", "-2**2 + 4228", "4.224e3",
        "2 ** 2 ** 3 * 16,5", "math.sqrt(16) * 1056", "8 448,0 ÷ 2", "2 * (576 + 1536)",
    ):  # fmt: skip
        form.get_by_role("button", name="Clear").click()
        assert "Right: 2 x (576 + 1,536)" in tried(form, formula), formula
    page.reload()
    expect(form.get_by_role("status")).to_contain_text("Right: 2 x (576 + 1,536)")
    form.get_by_role("button", name="Clear").click()
    page.reload()
    expect(form.get_by_role("status")).to_be_empty()
    expect(form.locator("input")).to_have_value("")


def test_a_report_waits_for_the_ranges_and_is_read_from_the_top(site: str, visit: Callable[..., Page]):
    page = visit(site, "lessons/02_how_sure_are_you.html", skipped=False)
    form = page.locator(".lab-answer").nth(1)
    expect(form).to_be_hidden()  # it says how many answers differ
    page.get_by_role("button", name="Skip").first.click()
    expect(panel_of(page).locator(".title")).to_contain_text("It starts at 5")  # no result before the replay
    expect(panel_of(page).locator(".changes")).to_be_hidden()
    panel_of(page).get_by_role("button", name="replay").click()
    expect(panel_of(page).locator(".title")).to_contain_text("after 200 steps, give or take")
    assert "half: that is in points" in tried(form, "1.69", "better", "1")
    assert "Hint: is 0 inside" in tried(form, "1.96 * sqrt(0,1495 / 2000)", "better", "1")
    assert "one point must be 2.8 of them" in tried(form, "0.0169", "undecided", "2.8 * 0.1495 / 0.01**2")
    assert "Right: undecided, and about 11,721 rows" in tried(form, "0.0169", "undecided", "11,700")


def test_what_a_rank_misses_and_three_rates_are_found_on_the_page(site: str, visit: Callable[..., Page]):
    page = visit(site, LESSON)
    missed, rates = page.locator(".lab-answer").all()
    assert "a size is its square root" in tried(missed, "5/8")
    assert "expect 0.91, 0.82, 0.71" in tried(missed, "sqrt(5/8)")
    assert "differ only by luck" in tried(rates, "5e-4", "7e-4", "1e-3")
    assert "step over the peak" in tried(rates, "1e-4", "7e-4", "2e-3")
    assert "rates for alpha 16 are too high" in tried(rates, "1e-3", "2e-3", "4e-3")
    assert "0.0014 apart; your smallest rate isn't worse" in tried(rates, "3e-4", "6e-4", "1.5e-3")
    assert "peak may be lower; your largest rate isn't worse" in tried(rates, "3e-4", "6e-4", "1.2e-3")
    assert "the peak is between 0.00018 and 0.0028" in tried(rates, "2e-3 * (16 / 128)^0.5 / 4", "7.07e-4", "2.83e-3")


def test_a_row_fits_as_the_check_says(site: str, visit: Callable[..., Page]):
    form = visit(site, "lessons/04_will_it_fit.html").locator(".lab-answer").nth(1)
    choices = [("QLoRA", True, n) for n in (600, 4616, 4617, 4682, 30_000)]
    choices += [("QLoRA", False, 1121), ("QLoRA", False, 3000), ("LoRA q, v", True, 512), ("full", True, 64)]
    for method, checkpointing, seq in choices:
        said = checks.check_longest_row(method, checkpointing, "adamw", 1, seq)
        words = f"{'Right' if said.passed else 'Not right'}: {said.words}"
        assert tried(form, method, "on" if checkpointing else "off", str(seq)).split("\n")[0] == words
    assert "Hint: what does checkpointing do" in tried(form, "QLoRA", "off", "600")


def test_intervals_are_marked_by_the_rule_that_one_has_in_mind(site: str, visit: Callable[..., Page]):
    form = visit(site, "lessons/05_as_good_as_full.html").locator(".lab-answer").first

    def marked(*intervals: str) -> str:
        for box in form.get_by_role("checkbox").all():
            box.uncheck()
        for interval in intervals:
            form.get_by_label(interval, exact=True).check()
        return tried(form)

    assert "no difference was found" in marked("−0.01 to 0.01", "−0.02 to 0.01", "−0.01 to 0.02", "−0.1 to 0.1")
    assert "look again at −0.01 to 0.01: both ends lie inside" in marked()
    assert "an end lies outside" in marked("−0.01 to 0.01", "0.002 to 0.012", "0.02 to 0.03")
    assert "Right: both ends inside" in marked("−0.01 to 0.01", "0.002 to 0.012")


def test_a_pair_is_defended_step_by_step_and_the_first_margin_stays(site: str, visit: Callable[..., Page]):
    page = visit(site, "lessons/05_as_good_as_full.html", 380)
    form = page.locator(".lab-answer").nth(1)
    for margin, why in (("0", "exactly equal"), ("0.015", "0.015 looks like a share"), ("8", "The probe")):
        assert why in tried(form, margin)
    assert "Hint" not in form.get_by_role("status").inner_text()  # of the intervals, which are not there yet
    said = tried(form, "1,5")
    assert "90% interval -1.38 to -0.24" in said
    assert "To both: better or worse, but within the margin" in said
    expect(form.get_by_role("textbox")).to_be_disabled()
    expect(form.get_by_role("combobox")).to_be_focused()
    assert "only half of it" in tried(form, "worse")
    page.reload()
    assert "Which sentence can you write?" in tried(form, "worse but within the margin")
    for sentence, why in ((0, "made to fit"), (1, "speaks of all"), (3, "chance of a repeat"), (2, "by less than 1.5")):
        page.reload()
        form.get_by_role("radio").nth(sentence).check()
        assert why in tried(form)
    expect(form.locator("label").nth(4)).to_contain_text("did worse than LoRA on a 16-bit base, by less than 1.5")
    form.get_by_role("button", name="Clear").click()
    expect(form.get_by_role("textbox")).to_have_value("1,5")  # it was chosen before the intervals were shown
    expect(form.get_by_role("textbox")).to_be_disabled()
    assert axe_finds(page, "article") == []


def test_a_panel_follows_its_slider_and_the_page_into_the_dark(site: str, visit: Callable[..., Page]):
    page = visit(site)
    panel = panel_of(page)
    before = panel.inner_text()
    panel.locator("input[type=range]:visible").first.evaluate(MOVE, 3)
    expect(panel).not_to_have_text(before, use_inner_text=True)
    page.locator(".theme-toggle:visible").click()
    expect(page.locator("body")).to_have_attribute("data-theme", "dark")
    expect(panel).to_have_class(re.compile(r"\bdark\b"))


def test_it_works_below_any_path_of_a_server(built: Path, visit: Callable[..., Page]):
    handler = partial(SimpleHTTPRequestHandler, directory=built.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        visit(f"http://127.0.0.1:{server.server_port}/html", LESSON)
        server.shutdown()
