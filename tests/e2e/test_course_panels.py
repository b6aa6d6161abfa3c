from matplotlib import pyplot as plt
from playwright.sync_api import Browser, expect

from lora_course import lesson
from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.class_panel import ClassPanel
from lora_course.panels.voices_panel import VoicesPanel, read_stored
from tests.e2e.pages import Pages, box_of, class_in, drag, move
from tests.e2e.panels import mixer


def test_each_question_and_strength_shows_its_stored_answers(pages: Pages) -> None:
    stored = read_stored()
    question, answers = stored["questions"][3], stored["answers"]
    panel = pages.panel(VoicesPanel())
    captain = panel.locator("[data-voice=captain]")
    panel.get_by_role("combobox", name="question").select_option(question)
    expect(captain).to_contain_text(answers["captain"]["1"][3])
    expect(panel.locator("[data-voice=told]")).to_contain_text(answers["told"]["0"][3].split("\n")[0])
    panel.get_by_role("slider", name="strength").press("Home")
    expect(captain).to_contain_text(answers["base"]["0"][3].split("\n")[0])
    sizes = "Bars to scale: the base 538 MB, captain 2.5 MB, json 2.5 MB, preacher 2.5 MB."
    expect(panel.locator(".picture svg")).to_have_attribute("aria-label", sizes)
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    expect(panel.get_by_role("button")).to_have_count(0)


def test_enter_asks_but_not_while_letters_are_composed(pages: Pages) -> None:
    python = VoicesPanel()
    python.asks = True
    panel = pages.panel(python, kernel=True)
    own, ask = panel.get_by_role("textbox", name="or yours"), panel.get_by_role("button", name="Ask")
    own.fill("なぜ <b>空</b>?")
    own.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    expect(ask).to_be_enabled()
    own.press("Enter")
    expect(ask).to_be_disabled()
    expect(panel.get_by_role("combobox", name="question")).to_have_value("なぜ <b>空</b>?")


def test_a_verdict_follows_slider_menu_and_line(pages: Pages) -> None:
    panel = pages.panel(ClaimPanel("4", claims=["3", "4", "11"]))
    verdict = panel.locator(".big b")
    expect(verdict).to_have_text("✗ false")
    for _ in range(3):
        panel.get_by_role("slider", name="memory of the card").press("ArrowRight")
    expect(verdict).to_have_text("✓ true")
    expect(panel.locator(".changed")).to_contain_text("24 → 48")
    expect(panel.get_by_role("status")).to_contain_text("true")
    panel.get_by_role("button", name="as claimed").click()
    expect(verdict).to_have_text("✗ false")
    line, picture = box_of(panel.locator(".handle")), box_of(panel.locator(".picture svg"))
    y = line["y"] + 20
    drag(panel, (line["x"] + line["width"] / 2, y), (picture["x"] + picture["width"] - 5, y))
    expect(verdict).to_have_text("✓ true")
    panel.get_by_role("combobox", name="claim").select_option("no_quality_drop")
    expect(panel.locator(".title")).to_contain_text("on par with")
    expect(verdict).to_have_text("? undecided")
    panel.get_by_role("combobox", name="tasks").select_option("1")
    panel.get_by_role("slider", name="largest drop").press("End")
    expect(verdict).to_have_text("✓ true")
    panel.get_by_text("all cases as a table").click()
    expect(panel.locator("table.all tbody tr")).to_have_count(2)


def test_the_share_changes_dots_and_quotes(pages: Pages) -> None:
    python = mixer()
    panel = pages.panel(python)
    for position in (0, 10, 14, 20):
        move(panel, "share", position)
        right = round(2 * python.right[position])
        expect(panel.locator(".picture circle.train")).to_have_count(right)
        expect(panel.locator(".picture circle.no")).to_have_count(200 - right)
    move(panel, "share", 13)
    changed = round(2 * (python.right[12] - python.right[13]))
    expect(panel.locator(".question")).to_have_text(f"{changed} answers change between 0.6 and 0.65")
    expect(panel.locator("li")).to_have_count(3)
    panel.get_by_text("every share in numbers").click()
    expect(panel.locator("tr.now")).to_contain_text("0.65")


def test_a_class_shows_guesses_and_a_cell_is_chosen_by_click(pages, tmp_path):
    python = ClassPanel(class_in(tmp_path / "class"))
    panel = pages.panel(python, width=1200, kernel=True)
    chosen = panel.locator(".chosen")
    dots = panel.locator(".guesses circle")
    expect(dots).to_have_count(3)
    assert len({box_of(dot)["x"] for dot in dots.all()}) == 2  # equal guesses are stacked
    expect(panel.locator(".near")).to_have_text("ada is nearest with 81%.")
    expect(panel.locator(".guessed")).to_contain_text(f"measured, {python.classroom['measured']:.1f}%")
    expect(panel.get_by_role("button", name="run these")).to_have_count(0)
    width = panel.locator(".picture").evaluate("e => e.clientWidth")
    assert box_of(panel.locator(".picture svg"))["width"] > 1.3 * width  # scaled for a projector
    before = box_of(chosen)
    panel.page.mouse.click(before["x"] + 1.5 * before["width"], before["y"] + before["height"] / 2)
    assert abs(box_of(chosen)["x"] - before["x"] - before["width"]) < 4
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.locator(".kernel")).to_contain_text("Waiting for the kernel")


def test_a_slider_of_a_lesson_steps_through_figures(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(
        lesson.slider("flips", {title: (plt.subplots()[0], f"of {title}") for title in ("128", "512", "2,048")}).data
    )
    assert not plt.get_fignums()
    for title in ("128", "512", "2,048"):
        expect(page.locator("p:visible")).to_have_text(title)
        expect(page.get_by_role("img")).to_have_accessible_name(f"of {title}")
        page.get_by_role("slider", name="flips").press("ArrowRight")
    page.close()
