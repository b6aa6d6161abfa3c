"""The teaching page and its sheets add up: three plans, a quiz in three forms, forty cards, and the arithmetic."""

import json
import re
from itertools import pairwise

import pytest

from lora_lab import FullFineTuning, LoRA, memory, params
from lora_lab.experiments.results import from_store
from tests.docs import ROOT

PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
SHEETS = (ROOT / "docs" / "sheets.md").read_text(encoding="utf-8")
ANSWERS, RANGES = (ROOT / "docs" / "quiz_answers.md").read_text(encoding="utf-8").split("\n## The ranges\n")
TIMES = json.loads((ROOT / "data" / "results" / "lesson_times.json").read_text(encoding="utf-8"))
FORMS = "ABC"


def section(title: str, page: str = PAGE) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a table."""
    return [re.split(r" *\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]


def questions(form: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\d)\. (.*)$", section(f"Quiz, form {form}", SHEETS).replace("\\\n  ", ""), re.MULTILINE)


def minutes(clock: str) -> int:
    return 60 * int(clock.split(":")[0]) + int(clock.split(":")[1])


def blocks(title: str) -> list[tuple[int, int, str]]:
    """Start, length and lesson of each block of a plan; each begins where the one before ends."""
    found = [(minutes(row[0]), int(row[1]), row[3]) for row in rows(section(title)) if ":" in row[0]]
    for (start, length, _), (after, *_) in pairwise(found):
        assert start + length == after
    return found


def test_plans_follow_the_clock_ninety_minutes_are_full_and_a_day_leaves_out_lesson_08_alone():
    boxes = blocks("Ninety minutes")
    assert (boxes[0][0], boxes[-1][0] + boxes[-1][1]) == (0, 90)
    assert {lesson for *_, lesson in boxes if lesson} == {f"{number:02}" for number in range(6)}
    headings = re.findall(r"^### (\d:\d\d) · .*\((\d+)\)$", section("Ninety minutes"), re.MULTILINE)
    assert [(minutes(clock), int(length)) for clock, length in headings] == [box[:2] for box in boxes]
    day = sorted(lesson for *_, lesson in blocks("A day") if lesson)
    assert day == ["00", "01", "02", "03", "04", "05", "06", "07", "09"]


def test_six_weeks_of_ninety_minutes_have_every_core_lesson_and_elective():
    weeks = [row for row in rows(section("Six weeks")) if row[0].isdigit()]
    assert [row[0] for row in weeks] == list("123456")
    assert all(sum(map(int, re.findall(r"\((\d+)\)", row[1]))) <= 90 for row in weeks)
    named = {name[:2] for name in re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", section("Six weeks"))}
    assert named >= {f"{number:02}" for number in range(10)}


def test_a_form_of_the_quiz_has_eight_questions_with_four_answers_of_which_the_wrong_ones_are_explained():
    for form in FORMS:
        assert [number for number, _ in questions(form)] == list("12345678"), form
        assert all(re.findall(r"\((.)\) [^(]", words) == list("abcd") for _, words in questions(form)), form
    answers = rows(ANSWERS)[1:]
    assert [row[0] for row in answers] == list("12345678")
    strip = (f"**{form}:** {' '.join(row[at] for row in answers)}" for at, form in enumerate(FORMS, 1))
    assert " · ".join(strip) in ANSWERS
    for number, *right, _, wrong in answers:
        for form, letter in zip(FORMS, right, strict=True):
            named = " ".join(re.findall(rf"\b{form} ([a-d]\b(?:(?:, | and )[a-d]\b)*)", wrong))
            assert set(re.findall(r"\b[a-d]\b", named)) == set("abcd") - {letter}, (number, form)


@pytest.mark.parametrize(("form", "model"), [("A", "qwen2.5-7b"), ("B", "mistral-7b"), ("C", "llama-3.2-3b")])
def test_the_answers_follow_from_the_numbers_of_the_questions(form: str, model: str):
    asked = {}
    for number, words in questions(form):
        stem, *options = re.split(r" \([a-d]\) ", words)
        figures = [float(one.replace(",", "")) for one in re.findall(r"(?<!\w)-?\d[\d,]*(?:\.\d+)?", stem)]
        asked[int(number)] = figures, dict(zip(options, "abcd", strict=True))
    column = FORMS.index(form) + 1
    right = {int(row[0]): row[column] for row in rows(ANSWERS)[1:]}

    (base, adapter), options = asked[1]
    assert options[f"{base + adapter:,.0f} MB"] == right[1]
    (width, _, rank), options = asked[2]
    assert options[f"{width / (2 * rank):.0f}"] == right[2]
    (sentences, share, *scores), options = asked[4]
    half = 196 * (share / 100 / sentences) ** 0.5
    told = abs(scores[0] - scores[1]) > half, abs(scores[2] - scores[3]) > half
    assert options[{(True, False): "only in P", (False, True): "only in Q"}[told]] == right[4]
    options = asked[7][1]
    full, lora = FullFineTuning(), LoRA(rank=8, targets=("q", "v"))
    counted = params(model, lora)
    assert f"{counted.total / counted.trainable:,.0f} times less" in options
    peaks = [memory(model, method, seq=512).peak for method in (full, lora)]
    assert options[f"{peaks[0] / peaks[1]:.0f} times less"] == right[7]
    *_, margin = re.findall(r"margin was set to ([\d.]+)", dict(questions(form))["8"])
    ends = re.findall(r"interval (-?[\d.]+) to ([\d.]+\d)", dict(questions(form))["8"])
    inside = tuple(-float(margin) < float(low) and float(high) < float(margin) for low, high in ends)
    assert asked[8][1][{(True, False): "only P", (False, True): "only Q"}[inside]] == right[8]


def test_the_answers_are_on_a_page_that_students_need_not_get():
    assert "](quiz_answers.md)" in PAGE
    assert "Answers" not in PAGE + SHEETS


def test_the_arithmetic_of_the_page_is_right():
    sums = re.findall(r"`([\d_.*/+() x-]+)` = ([\d.]+)", PAGE + ANSWERS)
    assert len(sums) >= 10
    for expression, said in sums:
        digits = len(said.partition(".")[2].rstrip("."))
        assert f"{eval(expression):.{digits}f}" == said.rstrip("."), expression


def test_a_card_has_the_score_of_its_seed():
    cards = {int(seed): float(score) for seed, score in re.findall(r"seed (\d+)<br>\*\*([\d.]+)%", SHEETS)}
    forty = from_store(ROOT / "data" / "results" / "sweeps" / "seeds.zip")
    assert cards == {run.recipe.seed: pytest.approx(100 * run.metrics["accuracy"], abs=0.051) for run in forty.runs}


UNGRADED = {"01_write_it": 2, "03_which_knob_first": 1}  # they hand over a class, a model or a panel; the page says so


def test_every_lesson_that_was_measured_was_graded_right_and_did_nothing_that_is_refused():
    for name, record in TIMES.items():
        right, of = record["right"].split(" of ")
        assert int(right) + UNGRADED.get(name, 0) == int(of) > 0, name
        assert (record["status"], record["errors"], record["refused"]) == ("ran", [], []), name


def test_the_ranges_are_those_that_the_solved_lessons_found():
    found = []
    for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            said = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ()))
            asked = re.findall(r'lesson\.reveal\("([^"]+)"', "".join(cell["source"]))
            found += [[path.name[:2], one, re.search(rf"{re.escape(one)}: it is (.*)\.\n", said)[1]] for one in asked]
    assert rows(RANGES)[1:] == found
    slip = [row[:2] for row in rows(section("Result slip", SHEETS))[1:]]
    assert (10, slip) == (len(slip), [one[:2] for one in found if one[:2] in slip])
