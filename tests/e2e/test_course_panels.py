"""The course's panels on a page without a kernel: voices, a claim, the mixer, and a class on a projector."""

from pathlib import Path

from playwright.sync_api import expect

from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.class_panel import ClassPanel
from lora_course.panels.voices_panel import VoicesPanel, read_stored
from tests.e2e.pages import Pages, box_of, class_in, move, panel_of
from tests.e2e.test_drawn_panels import mixer


def test_each_question_and_strength_has_its_stored_answers(pages: Pages) -> None:
    stored = read_stored()
    panel = panel_of(pages.open(VoicesPanel()))
    captain = panel.locator("[data-voice=captain]")
    panel.get_by_role("combobox", name="question").select_option(stored["questions"][3])
    expect(captain).to_contain_text(stored["answers"]["captain"]["1"][3])
    expect(panel.locator("[data-voice=told]")).to_contain_text(stored["answers"]["told"]["0"][3].split("\n")[0])
    panel.get_by_role("slider", name="strength").press("Home")
    expect(captain).to_contain_text(stored["answers"]["base"]["0"][3].split("\n")[0])
    expect(panel.locator(".picture svg")).to_have_attribute(
        "aria-label", "Bars to scale: the base 538 MB, captain 2.5 MB, json 2.5 MB, preacher 2.5 MB."
    )
    expect(panel.locator(".doing")).to_contain_text("Run the notebook")
    expect(panel.get_by_role("button")).to_have_count(0)  # nobody can answer


def test_a_premise_turns_the_word_by_slider_menu_and_line(pages: Pages) -> None:
    panel = panel_of(pages.open(ClaimPanel("4", claims=["3", "4", "11"])))
    word = panel.locator(".big b")
    expect(word).to_have_text("✗ false")
    slider = panel.get_by_role("slider", name="memory of the card")
    for _ in range(3):
        slider.press("ArrowRight")
    expect(word).to_have_text("✓ true")
    expect(panel.locator(".changed")).to_contain_text("24 → 48")
    expect(panel.get_by_role("status")).to_contain_text("true")
    panel.get_by_role("button", name="as claimed").click()
    expect(word).to_have_text("✗ false")
    line, box = panel.locator(".handle").bounding_box(), panel.locator(".picture svg").bounding_box()
    panel.page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 20)
    panel.page.mouse.down()
    panel.page.mouse.move(box["x"] + box["width"] - 5, line["y"] + 20, steps=5)
    panel.page.mouse.up()
    expect(word).to_have_text("✓ true")
    panel.get_by_role("combobox", name="claim").select_option("no_quality_drop")
    expect(panel.locator(".title")).to_contain_text("on par with")
    expect(word).to_have_text("? undecided")
    panel.get_by_role("combobox", name="where").select_option("1")
    panel.get_by_role("slider", name="largest drop").press("End")
    expect(word).to_have_text("✓ true")
    panel.get_by_text("all cases as a table").click()
    expect(panel.locator("table.all tbody tr")).to_have_count(2)


def test_dots_and_quotes_follow_the_share(pages: Pages) -> None:
    python = mixer()
    panel = panel_of(pages.open(python))
    for position in (0, 10, 14, 20):
        move(panel, "share", position)
        right = round(2 * python.right[position])
        assert panel.locator(".picture circle.train").count() == right
        assert panel.locator(".picture circle.no").count() == 200 - right
    move(panel, "share", 13)
    turned = round(2 * (python.right[12] - python.right[13]))
    expect(panel.locator(".question")).to_have_text(f"{turned} answers change between 0.6 and 0.65")
    assert panel.locator("li").count() == 3
    panel.get_by_text("every share in numbers").click()
    expect(panel.locator("tr.now")).to_contain_text("0.65")


def test_guesses_stand_beside_what_was_measured_and_the_map_is_pulled_where_it_is_touched(
    pages: Pages, tmp_path: Path
) -> None:
    python = ClassPanel(class_in(tmp_path / "class"))
    view = pages.open(python, width=1200, kernel=True)
    panel = panel_of(view)
    assert panel.locator(".guesses circle").count() == 3
    assert len({box_of(dot)["x"] for dot in panel.locator(".guesses circle").all()}) == 2  # equal ones are stacked
    expect(panel.locator(".near")).to_have_text("ada is nearest with 81%.")
    expect(panel.locator(".guessed")).to_contain_text(f"measured, {python.classroom['measured']:.1f}%")
    expect(panel.get_by_role("button", name="run these")).to_have_count(0)
    map_box, chosen = box_of(panel.locator(".picture svg")), panel.locator(".chosen")
    assert map_box["width"] > 1.3 * (panel.locator(".picture").evaluate("e => e.clientWidth"))
    before = box_of(chosen)
    view.mouse.click(before["x"] + 1.5 * before["width"], before["y"] + before["height"] / 2)
    assert abs(box_of(chosen)["x"] - before["x"] - before["width"]) < 4
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.locator(".kernel")).to_contain_text("Waiting for the kernel")
