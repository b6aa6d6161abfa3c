import html
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Locator, expect

from lora_course import checks
from lora_course.experiments.broken import PATIENTS
from tests.e2e.conftest import ROOT, guarded
from tests.e2e.pages import box_of, panel_of, record_problems, violations

BUILD = ROOT / "site" / "build.py"
MAX_BYTES = 10_000_000
RATES, PUZZLE = "lessons/03_which_knob_first.html", "lessons/01_write_it.html"
CHECKED_BY_AXE = ("index.html", "docs/teaching.html", RATES, PUZZLE)
SKIP_RANGES_AND_UNFOLD_PANELS = """() => {
    const next = () => [...document.querySelectorAll('.lab-predict button')].find(
        (e) => e.textContent === 'Skip' && e.checkVisibility());
    for (let button = next(); button; button = next()) button.click();
    for (const e of document.querySelectorAll('details:has([data-panel])')) e.open = true;
}"""
ANSWER = """(form, answers) => {
    const fields = form.querySelectorAll('input:not([type]):enabled, select:enabled');
    for (const [number, answer] of answers.entries()) {
        fields[number].value = answer;
        fields[number].dispatchEvent(new Event('input', { bubbles: true }));
    }
    form.querySelector('button:not([type])').click();
    return form.querySelector('[role=status]').innerText;
}"""
FOCUSED_LINE = """() => {
    const { do: action, line } = document.activeElement.dataset;
    return [action, line === undefined ? "" : document.activeElement.closest("li").querySelector("code").textContent];
}"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    guard, folder = tmp_path_factory.mktemp("guard"), tmp_path_factory.mktemp("site") / "html"
    command, env = [sys.executable, str(BUILD), str(folder)], guarded(guard)
    built = subprocess.run(command, env=env, timeout=600, check=True, stderr=subprocess.PIPE, text=True)
    assert "ERROR" not in built.stderr
    assert not (guard / "blocked").exists()
    assert [*folder.parent.iterdir()] == [folder]  # no solved lessons beside it
    return folder


@pytest.fixture
def visit(browser, site):
    """Opens a page in a fresh browser profile and draws its panels; fails on errors and on requests to servers."""
    page, problems, own = browser.new_page(reduced_motion="reduce"), list[str](), ["data:"]
    record_problems(page, problems, own)

    def open_page(path="index.html", width=1280, theme="light", skip=True, base: str = site.as_uri()):
        own.append(base)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.goto(f"{base}/{path}")
        if skip:
            page.evaluate(SKIP_RANGES_AND_UNFOLD_PANELS)
            for number, element in enumerate(page.locator("[data-panel]").all()):
                element.scroll_into_view_if_needed()
                panel_of(page, number).wait_for()
        return page

    yield open_page
    page.context.close()
    assert not problems


def test_every_page_opens_without_requests_or_errors(site, visit):
    pages = {str(file.relative_to(site)) for file in site.rglob("*.html")}
    lessons = {f"lessons/{file.stem}.html" for file in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {page for page in pages if page.startswith("lessons/")} == lessons
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < MAX_BYTES
    for path in sorted(pages):
        page = visit(path)
        expect(page.locator("h1").first).to_be_visible()
        for width, theme in ((1280, "light"), (380, "dark")) if path in CHECKED_BY_AXE else ():
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            cards = page.locator(".lab-panel .card")  # on a busy machine, they switch a little later than the page
            expect(page.locator(".lab-panel .card.dark")).to_have_count(cards.count() if theme == "dark" else 0)
            assert violations(page, "html") == [], (path, theme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, theme)


def test_every_link_leads_somewhere(site):
    texts = {file: file.read_text(encoding="utf-8") for file in site.rglob("*.html")}
    broken = []
    for file, text in texts.items():
        for link in map(html.unescape, re.findall(r'(?:href|src)="([^"]+)"', text)):
            address = urlsplit(link)
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            no_id = address.fragment and f'id="{unquote(address.fragment)}"' not in texts.get(target, "")
            if not address.scheme and (no_id or not target.is_file()):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_in_a_wide_table_each_cell_names_its_column(site):
    row = re.search("<tbody>.*?</tr>", (site / "docs/claims.html").read_text(encoding="utf-8"), flags=re.S)
    assert row
    assert re.findall('data-column="(.*?)"', row[0])[:4] == ["", "claim", "who says it", "verdict"]


@pytest.mark.slow
def test_students_get_no_pages_for_teachers(tmp_path):
    subprocess.run([sys.executable, str(BUILD), "--students", str(tmp_path / "pages")], timeout=600, check=True)
    names = {file.stem for file in tmp_path.rglob("*.html")}
    assert names - {"teaching", "sheets", "quiz_answers"} == names > {"index", "install"}


def test_each_sheet_is_one_printed_page(visit):
    page = visit("docs/sheets.html")
    for paper in ("A4", "Letter"):
        pdf = page.pdf(format=paper, scale=1.1)  # as much room as with margins of 1 cm
        assert len(re.findall(rb"/Type /Page\b", pdf)) == 1 + page.locator(".sheet").count(), paper


def test_findings_stay_closed_until_ranges_are_given_or_skipped(visit):
    page = visit("lessons/04_will_it_fit.html", skip=False)
    forms, sealed = page.locator(".lab-predict"), page.locator("details.sealed")
    results = page.locator(".tag_reveal .cell_output")
    expect(forms).to_have_count(2)
    expect(page.locator(".tag_predict > .lab-sealed")).to_have_count(0)  # a form shows its question
    expect(sealed).to_have_count(5)
    page.locator(".lab-sealed").first.click()
    expect(forms.first.locator("input").first).to_be_focused()
    sealed.first.locator("summary").click()
    expect(sealed).to_have_count(5)
    expect(forms.first.locator("input").first).to_be_focused()
    expect(results.first).to_be_hidden()
    expect(page.locator("[data-panel]").first).to_be_hidden()  # it would show the answer
    with page.expect_popup() as popup:
        page.evaluate("open(location.href)")
    for values, reply in (
        (("", "", "", ""), "No range yet"),
        ((40, 10, 50, 80), "Swap them"),
        ((10, 40, 50, ""), "give both"),
        ((10, 40, "about", 60), "give numbers"),
        (("10,5%", 40, "", ""), "skipped"),
    ):
        for number, value in enumerate(values):
            forms.first.locator("input").nth(number).fill(str(value))
        forms.first.get_by_role("button", name="Seal my ranges").click()
        expect(forms.first.get_by_role("status")).to_contain_text(reply)
    expect(results.first).to_contain_text("29.1%: inside your range, 10.5 to 40")
    popup.value.get_by_role("button", name="Skip").first.click()  # in another tab, in which no range was given yet
    popup.value.close()
    expect(results.nth(1)).to_be_hidden()
    panel_of(page).scroll_into_view_if_needed()
    assert box_of(panel_of(page).locator(".picture svg"))["width"] > 300
    forms.nth(1).get_by_role("button", name="Skip").click()
    expect(results.nth(1)).to_contain_text("16,366 tokens.")
    expect(sealed).to_have_count(0)
    page.reload()
    expect(sealed).to_have_count(0)  # the browser has stored the ranges
    forms.nth(1).get_by_role("button", name="Clear").click()
    for number, value in enumerate(("1,000", "20'000")):
        forms.nth(1).locator("input").nth(number).fill(value)
    forms.nth(1).get_by_role("button", name="Seal my ranges").click()
    expect(results.nth(1)).to_contain_text("16,366 tokens: inside your range, 1000 to 20000.")
    page.get_by_role("button", name="Clear").first.click()
    expect(sealed).to_have_count(5)
    page.goto(page.url.replace("04_will_it_fit", "09_monday"))
    page.evaluate(SKIP_RANGES_AND_UNFOLD_PANELS)
    expect(page.locator(".lab-ranges p")).to_have_text(re.compile("^1 of your 1 ranges .* 0 and 1 to contain it.$"))
    expect(page.locator(".lab-ranges li")).to_contain_text("29.1, your range 10.5 to 40: inside.")  # not the later one


def test_without_javascript_a_panel_is_a_picture(browser, site):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{site.as_uri()}/index.html")
    assert box_of(page.locator("[data-panel] img").first)["height"] > 300
    page.close()


def test_the_puzzle_is_solved_by_keyboard(visit):
    page = visit(PUZZLE, 380, "dark")
    solution = page.locator(".hide pre", has_text="class LoRALinear").first.text_content() or ""
    ten = [line.strip() for line in solution.splitlines() if line.strip()][:10]

    def press(button: str, line: str = "") -> None:
        page.locator("[data-do=take]").first.focus()
        for _ in range(60):
            if page.evaluate(FOCUSED_LINE) == [button, line]:
                return page.keyboard.press("Enter")
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab doesn't reach {button} of {line!r}")

    status = page.locator("[data-puzzle] [role=status]")
    for line in ten[:-1]:
        press("take", line)
    wrong = ten[7].replace("zeros", "randn")
    for button, line, reply in (
        ("check", "", "1 more line to go"),
        ("up", ten[3], "now line 3"),
        ("check", "", "before super().__init__()"),
        ("down", ten[3], "now line 4"),
        ("drop", ten[7], "removed"),
        ("take", wrong, "taken as line 9"),
        ("check", "", "doesn't make learning slow"),
        ("drop", wrong, "removed"),
        ("take", ten[7], "taken as line 9"),
        ("up", ten[7], "now line 8"),
        ("take", ten[9], "taken as line 10"),
        ("check", "", "the same outputs as the layer it wraps"),
    ):
        press(button, line)
        expect(status).to_contain_text(reply)
    assert violations(page, "[data-puzzle]") == []
    page.reload()
    assert page.locator(".puzzle ol code").all_inner_texts() == ten  # the browser has stored the lines
    expect(status).to_contain_text("the same outputs as the layer it wraps")


def reply_to(form: Locator, *answers: str) -> str:
    return form.evaluate(ANSWER, list(answers))


def assert_judged_alike(form: Locator, compared) -> None:
    right = compared.right
    numbers = [right, *compared.misconceptions, 1.01 * right, 0.99 * right, 1.31 * right, right / 1234, -right, 0]
    for number in [*numbers, float(f"{right:.3g}"), round(right, 2)]:
        verdict = compared.judge(number)
        expected = f"{'Right' if verdict.passed else 'Not right'}: {verdict.words}"
        assert reply_to(form, repr(number)).split("\n")[0] == expected


def test_a_formula_is_an_answer(visit):
    page = visit("lessons/00_whats_in_this_small_file.html", 380, "dark")
    expect(page.locator("article")).to_contain_text("rank 2")  # the draw of a reader without a name, as in the form
    form = page.locator(".lab-answer").first
    for answer, hint in (("2 * 576", "Hint 1"), ("1_536 * 2", "Hint 2"), ("576 * 1,536", "Hint 3")):
        form.locator("input").fill(answer)
        form.locator("input").press("Enter")
        expect(form.get_by_role("status")).to_contain_text(hint)
    assert_judged_alike(form, checks.check_pair_numbers(...).right)
    for refused in ("alert(1)", "", "3 4", "2(3)", "1/0", "sqrt(-1)"):
        assert reply_to(form, refused) == "Write a number or a formula: + - * / ** ( ), sqrt, log and log2."
    assert violations(page, ".lab-answer") == []
    for formula in (
        "422_400 %", "4 224", "4224,0", "2 × 2112", "2 x (576 + 1,536)", "8448 // 2", "8449 // 2", "4224 % 10_000",
        "2^12 + 128", "352 * log2(4096)", "sqrt(4224^2)", "√(4224 ** 2)", "-(-4224)", "-2**2 + 4228", "4.224e3",
        "2 ** 2 ** 3 * 16,5", "math.sqrt(16) * 1056", "4224 * log(2) / ln(2)", "8 448,0 ÷ 2", "2 * (576 + 1536)",
    ):  # fmt: skip
        reply_to(form, "")
        assert "Right: 2 x (576 + 1,536)" in reply_to(form, formula), formula
    with page.expect_popup() as popup:  # another tab stores another answer
        page.evaluate("open(location.href)")
    second = popup.value
    reply_to(second.locator(".lab-answer").nth(1), "1")
    page.wait_for_function("Object.values(localStorage).some((text) => text.includes('\"1\"'))")  # takes a moment
    reply_to(form, "4224")
    second.close()
    page.reload()
    expect(form.get_by_role("status")).to_contain_text("Right: 2 x (576 + 1,536)")  # the browser has stored it
    expect(page.locator(".lab-answer").nth(1).locator("input").first).to_have_value("1")
    form.get_by_role("button", name="Clear").click()
    page.reload()
    expect(form.get_by_role("status")).to_be_empty()
    expect(form.locator("input")).to_have_value("")


def test_a_report_opens_after_the_ranges_and_is_judged_field_by_field(visit):
    page = visit("lessons/02_how_sure_are_you.html", skip=False)
    form, panel = page.locator(".lab-answer").nth(1), panel_of(page)
    expect(form).to_be_hidden()
    page.get_by_role("button", name="Skip").first.click()
    expect(panel.locator(".title")).to_contain_text("The run starts at 5")  # no result before the replay
    expect(panel.locator(".changes")).to_be_hidden()
    panel.get_by_role("button", name="replay").click()
    solved = (ROOT / "notebooks" / "solutions" / "02_how_sure_are_you.ipynb").read_text("utf-8")
    (right,) = re.findall(r"this run: ([\d.]+)% right", solved)  # the same run, as the lesson's cell printed it
    expect(panel.locator(".title")).to_contain_text(f"{right}% ± 1.8 points after 200 steps")
    assert "half: that is in points" in reply_to(form, "1.69", "better")
    assert "Hint: is 0 between" in reply_to(form, "1.96 * sqrt(0,1495 / 2000)", "better")
    assert "Right: undecided: the gap is 1.55 points" in reply_to(form, "0.0169", "undecided")


def test_rates_are_judged_by_the_measured_peak(visit):
    missed, rates = visit(RATES).locator(".lab-answer").all()
    assert "needs no root" in reply_to(missed, "sqrt(5/8)")
    assert "R - r are missing" in reply_to(missed, "5/8")
    assert "differ only by luck" in reply_to(rates, "5e-4", "7e-4", "1e-3")
    assert "lowest rate first" in reply_to(rates, "2e-3", "5e-4", "1e-4")
    assert "may miss the peak" in reply_to(rates, "1e-4", "7e-4", "2e-3")
    assert "rates for alpha 16 are too high" in reply_to(rates, "1e-3", "2e-3", "4e-3")
    assert "Not right: your middle rate doesn't beat the smallest" in reply_to(rates, "3e-4", "6e-4", "1.5e-3")
    assert "at a lower rate; your middle rate doesn't beat the largest" in reply_to(rates, "3e-4", "6e-4", "1.2e-3")
    formula = "2e-3 * (16 / 128)^0.5 / 4"
    assert "the peak is between 0.00018 and 0.0028" in reply_to(rates, formula, "7.07e-4", "2.83e-3")


def test_memory_answers_are_judged_as_by_the_checks(visit):
    peak, row = visit("lessons/04_will_it_fit.html").locator(".lab-answer").all()[:2]
    assert_judged_alike(peak, checks.check_peak(lambda tokens: None).right.at(3000, within=0.01, slack=0.002))
    cases = [("QLoRA", True, n) for n in (600, 4616, 4617, 4682, 30_000)]
    cases += [("QLoRA", False, 1121), ("QLoRA", False, 3000), ("LoRA q, v", True, 512), ("full", True, 64)]
    for method, checkpointing, seq in cases:
        verdict = checks.check_longest_row(method, checkpointing, "adamw", 1, seq)
        expected = f"{'Right' if verdict.passed else 'Not right'}: {verdict.words}"
        assert reply_to(row, method, "on" if checkpointing else "off", str(seq)).split("\n")[0] == expected
    assert "Hint: what does checkpointing do" in reply_to(row, "QLoRA", "off", "600")


def test_a_panel_opens_at_the_margin_that_its_reader_sealed(visit):
    page = visit("lessons/05_as_good_as_full.html", skip=False)
    form, titles = page.locator(".lab-predict").first, page.locator("[data-panel] .title")
    for number, value in enumerate(("2,3", "-3", "1")):
        form.locator("input").nth(number).fill(value)
    form.get_by_role("button", name="Seal my ranges").click()
    expect(form.get_by_role("status")).to_contain_text(re.compile(r"margin in points: 2\.3; .*: -3 to 1\."))
    for _ in range(2):
        expect(titles.first).to_contain_text("At a margin of 2.3 points it is worse, but within the margin")
        page.reload()


def test_intervals_and_a_sentence_are_judged_step_by_step(visit):
    page = visit("lessons/05_as_good_as_full.html", 380)
    intervals, form = page.locator(".lab-answer").all()[:2]
    for marked, reply in (
        (("−1 to 1", "−2 to 1", "−1 to 2", "−10 to 10"), "no difference was found"),
        ((), "look again at −1 to 1: both ends lie inside"),
        (("−1 to 1", "0.05 to 1.2", "2 to 3"), "an end lies outside"),
        (("−1 to 1", "0.05 to 1.2"), "Right: both ends are inside"),
    ):
        for box in intervals.get_by_role("checkbox").all():
            box.uncheck()
        for interval in marked:
            intervals.get_by_label(interval, exact=True).check()
        assert reply in reply_to(intervals)
    for margin, reply in (("0", "exact equality"), ("0.015", "0.015 looks like a fraction"), ("8%", "the probe")):
        assert reply in reply_to(form, margin)
    assert "give tenths of a point" in reply_to(form, "1.35")
    assert "Hint" not in form.get_by_role("status").inner_text()  # the hints are about later fields
    assert "90% interval -1.38 to -0.24" in reply_to(form, "1,5")
    expect(form.get_by_role("textbox")).to_be_disabled()
    expect(form.get_by_role("combobox")).to_be_focused()
    reply = reply_to(form, "worse")
    assert "only half the answer" in reply
    assert "If both are yes, it is better or worse, but within the margin" in reply
    page.reload()
    assert "Which sentence can you write at the margin" in reply_to(form, "worse but within the margin")
    page.reload()
    replies = ["chosen to fit", "about all models", "by less than 1.5", "significant doesn't mean certain"]
    for sentence in (0, 1, 3, 2):  # the last is right
        form.get_by_role("radio").nth(sentence).check()
        assert replies[sentence] in reply_to(form)
    expect(form.locator("label").nth(4)).to_contain_text("did worse than LoRA on a 16-bit base, by less than 1.5")
    form.get_by_role("button", name="Clear").click()
    expect(form.get_by_role("textbox")).to_have_value("1,5")  # chosen before the intervals were shown
    expect(form.get_by_role("textbox")).to_be_disabled()
    assert violations(page, "article") == []


def test_a_plan_comes_before_the_intervals_and_the_word_before_the_sentences(visit):
    form = visit("lessons/13_where_to_put_it.html").locator(".lab-answer").nth(1)
    expect(form).not_to_contain_text("interval")
    assert "a part of a seed: round up" in reply_to(form, "8")
    assert "95% interval -5.14 to 0.22" in reply_to(form, "9")
    assert "no difference is shown" in reply_to(form, "worse")
    assert "Which sentence can you write at the margin" in reply_to(form, "undecided")
    for sentence, reply in ((0, "chosen to fit"), (2, "Right: undecided, for this model")):
        form.get_by_role("radio").nth(sentence).check()
        assert reply in reply_to(form)


def test_each_wrong_name_of_a_diagnosis_gets_its_hint(visit):
    page = visit("lessons/07_why_does_it_do_nothing.html")
    early, form = page.locator(".lab-answer").all()[:2]
    named = {letter: patient.fault for letter, patient in PATIENTS.items()}
    swapped = checks.check_diagnosis(wrong := named | {"F": named["I"], "I": named["F"]})
    lines = [line for line in reply_to(form, *wrong.values()).split("\n") if line]
    assert lines[:3] == ["Not right: 8 of 10 are right.", *swapped.words.split("; ")]
    assert form.locator("tr:has([data-mark='✗']) th").all_inner_texts() == ["F", "I"]
    form.get_by_role("button", name="Clear").click()
    assert reply_to(early, *wrong.values()).startswith("Sealed.")
    expect(early.locator("select:enabled")).to_have_count(0)
    for _ in range(2):
        assert form.get_by_role("combobox").evaluate_all("all => all.map((one) => one.value)") == [*wrong.values()]
        expect(form.get_by_role("status")).to_be_empty()  # only the button judges the answers
        page.reload()
    assert {"Right: all ten found", "8 of your first 10 were right."} <= {*reply_to(form, *named.values()).split("\n")}


def test_a_sentence_from_menus_has_a_number_for_each_word(visit):
    menus = visit("lessons/14_inside_delta_w.html", 380).locator("[data-words]")
    menus.get_by_role("combobox").first.select_option("not a")
    assert menus.get_by_role("status").locator("p").first.inner_text().split()[:4] == ["62%", "positive", "not", "+0.9"]
    assert violations(menus.page, "[data-words]") == []


def test_a_panel_follows_the_theme(visit):
    page = visit()
    page.locator(".theme-toggle:visible").click()
    expect(page.locator("body")).to_have_attribute("data-theme", "dark")
    expect(panel_of(page)).to_have_class(re.compile(r"\bdark\b"))
    page.locator(".theme-toggle:visible").click()
    expect(panel_of(page)).not_to_have_class(re.compile(r"\bdark\b"))
    page.evaluate("document.body.style.background = '#000'")  # as a high-contrast theme does
    expect(panel_of(page)).to_have_class(re.compile(r"\bdark\b"))


def test_plots_follow_the_theme_on_screen_and_print_as_they_are(visit):
    page = visit("lessons/13_where_to_put_it.html", theme="light")
    inverted = "getComputedStyle(document.querySelector('article .output img')).filter != 'none'"
    toggle = page.locator(".theme-toggle:visible").first
    assert not page.evaluate(inverted)
    page.emulate_media(color_scheme="dark")  # the page's own choice is "auto"
    assert page.evaluate(inverted)
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.evaluate(inverted)
    page.emulate_media(media="screen", color_scheme="light")
    while page.locator("body").get_attribute("data-theme") != "dark":
        toggle.click()
    assert page.evaluate(inverted)


def test_the_site_works_below_any_path_of_a_server(site, visit):
    handler = partial(SimpleHTTPRequestHandler, directory=site.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        visit(RATES, base=f"http://127.0.0.1:{server.server_port}/html")
        server.shutdown()
