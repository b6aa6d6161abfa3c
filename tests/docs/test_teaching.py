import json
import re
from itertools import pairwise

import pytest

from lora_lab import FullFineTuning, LoRA, memory, params
from lora_lab.experiments.results import from_store
from lora_lab.files import read_json
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
SHEETS = (ROOT / "docs" / "sheets.md").read_text(encoding="utf-8")
ANSWERS, RANGES = (ROOT / "docs" / "quiz_answers.md").read_text(encoding="utf-8").split("\n## The ranges\n")
FORMS = "ABC"


def section(title: str, page: str = PAGE) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    return [re.split(r" *\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]


def questions(form: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\d)\. (.*)$", section(f"Quiz, form {form}", SHEETS).replace("\\\n  ", ""), re.MULTILINE)


def minutes(clock: str) -> int:
    hours, rest = clock.split(":")
    return 60 * int(hours) + int(rest)


def blocks(title: str, page: str = PAGE, lesson: int = 3) -> list[tuple[int, int, str]]:
    """Return the start, length and lesson of each block of a plan; each must start where the one before ends."""
    table = [row for row in rows(section(title, page)) if ":" in row[0]]
    plan = [(minutes(row[0]), int(row[1]), row[lesson]) for row in table]
    assert all(start + length == next_start for (start, length, _), (next_start, *_) in pairwise(plan))
    return plan


def test_ninety_minute_plans_have_the_first_six_lessons_at_the_times_of_the_headings():
    headings = re.findall(r"(?m)^### (\S+) · .*\((\d+)\)$", section("Ninety minutes"))
    plans = [blocks("Ninety minutes"), blocks("Running sheet", SHEETS, lesson=2)]
    assert [(minutes(clock), int(length)) for clock, length in headings] == [block[:2] for block in plans[0]]
    for plan in plans:
        assert (plan[0][0], plan[-1][0] + plan[-1][1]) == (0, 90)
        assert {lesson for *_, lesson in plan if lesson} == {f"{number:02}" for number in range(6)}
    clocks = re.findall(r" at (\d:\d\d)", SHEETS.partition("**With notebooks**")[2])
    assert [*map(minutes, clocks)] == [start for start, *_ in plans[0]][2:-1]


def test_texts_name_the_pages_on_which_sheets_are_printed():
    page = {title: str(number) for number, title in enumerate(re.findall(r"(?m)^## (.*)$", SHEETS), 2)}
    assert "Quiz A is page {}, B page {} and C page {}.".format(*(page[f"Quiz, form {f}"] for f in FORMS)) in SHEETS
    for text in (PAGE, SHEETS):
        named = {*re.findall(r"(slip|cards|sheet)\b[^.;]*?\bpage (\d)", text)}
        assert named == {(title.split()[1], page[title]) for title in ("Result slip", "Forty cards", "Running sheet")}
        assert f"pages {page['Opening slide']} and {page['Exit slide']}" in text.lower()


def test_longer_plans_have_every_core_lesson():
    assert sorted(lesson for *_, lesson in blocks("A day") if lesson) == [f"{n:02}" for n in range(10) if n != 8]
    weeks = [row for row in rows(section("Six weeks")) if row[0].isdigit()]
    assert [row[0] for row in weeks] == list("123456")
    assert all(sum(map(int, re.findall(r"\((\d+)\)", row[1]))) <= 90 for row in weeks)
    lessons = {name[:2] for name in re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", section("Six weeks"))}
    assert lessons >= {f"{number:02}" for number in range(10)}


def test_quiz_forms_have_eight_questions_and_explain_wrong_answers():
    for form in FORMS:
        assert [number for number, _ in questions(form)] == list("12345678"), form
        assert all(re.findall(r"\((.)\) [^(]", words) == list("abcd") for _, words in questions(form)), form
    answers = rows(ANSWERS)[1:]
    assert [row[0] for row in answers] == list("12345678")
    strips = (f"**{form}:** {' '.join(row[column] for row in answers)}" for column, form in enumerate(FORMS, 1))
    assert " · ".join(strips) in ANSWERS
    for number, *right, _, explanation in answers:
        for form, letter in zip(FORMS, right, strict=True):
            explained = " ".join(re.findall(rf"\b{form} ([a-d]\b(?:(?:, | and )[a-d]\b)*)", explanation))
            assert set(re.findall(r"\b[a-d]\b", explained)) == set("abcd") - {letter}, (number, form)


@pytest.mark.parametrize(("form", "model"), [("A", "qwen2.5-7b"), ("B", "mistral-7b"), ("C", "llama-3.2-3b")])
def test_quiz_answers_follow_from_the_questions(form: str, model: str):
    stems, numbers, letters = {}, {}, {}
    for key, words in questions(form):
        stem, *options = re.split(r" \([a-d]\) ", words)
        stems[key], letters[key] = stem, dict(zip(options, "abcd", strict=True))
        numbers[key] = [float(n.replace(",", "")) for n in re.findall(r"(?<!\w)-?\d[\d,]*(?:\.\d+)?", stem)]
    right = {row[0]: row[FORMS.index(form) + 1] for row in rows(ANSWERS)[1:]}

    base, adapter = numbers["1"]
    assert letters["1"][f"{base + adapter:,.0f} MB"] == right["1"]
    width, _, rank = numbers["2"]
    assert letters["2"][f"{width / (2 * rank):.0f}"] == right["2"]
    sentences, share, *scores = numbers["4"]
    half = 196 * (share / 100 / sentences) ** 0.5
    shown = abs(scores[0] - scores[1]) > half, abs(scores[2] - scores[3]) > half
    assert letters["4"][{(True, False): "only in P", (False, True): "only in Q"}[shown]] == right["4"]
    full, lora = FullFineTuning(), LoRA(rank=8, targets=("q", "v"))
    count = params(model, lora)
    assert f"by a factor of {count.total / count.trainable:,.0f}" in letters["7"]
    peaks = [memory(model, method, seq=512).peak for method in (full, lora)]
    assert letters["7"][f"by a factor of {peaks[0] / peaks[1]:.0f}"] == right["7"]
    *_, margin = re.findall(r"margin was set to ([\d.]+)", stems["8"])
    ends = re.findall(r"interval of (-?[\d.]+) to ([\d.]+\d)", stems["8"])
    inside = tuple(-float(margin) < float(low) and float(high) < float(margin) for low, high in ends)
    assert letters["8"][{(True, False): "only P", (False, True): "only Q"}[inside]] == right["8"]


def test_arithmetic_is_right():
    sums = re.findall(r"`([\d_.*/+() x-]+)` = (\d+(?:\.\d+)?)", PAGE + ANSWERS)
    assert len(sums) >= 10
    for expression, result in sums:
        digits = len(result.partition(".")[2])
        assert f"{eval(expression):.{digits}f}" == result, expression


def test_cards_show_the_score_of_their_seed():
    cards = {int(seed): float(score) for seed, score in re.findall(r"seed (\d+)<br>\*\*([\d.]+)%", SHEETS)}
    runs = from_store(ROOT / "data" / "results" / "sweeps" / "seeds.zip").runs
    assert cards == {run.recipe.seed: pytest.approx(100 * run.metrics["accuracy"], abs=0.051) for run in runs}


def test_every_measured_lesson_was_graded_right():
    for name, record in read_json(ROOT / "data" / "results" / "lesson_times.json").items():
        right, total = map(int, record["right"].split(" of "))
        assert right == total > 0, name
        assert (record["status"], record["errors"], record["refused"]) == ("ran", [], []), name


def test_ranges_are_those_of_the_solved_lessons():
    results = []
    for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            output = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ()))
            for name in re.findall(r'lesson\.reveal\("([^"]+)"', "".join(cell["source"])):
                match = re.search(rf"{re.escape(name)}: it is (.*)\.\n", output)
                assert match, (path, name)
                results.append([path.name[:2], name, match[1]])
    assert rows(RANGES)[1:] == results
    slip = [row[:2] for row in rows(section("Result slip", SHEETS))[1:]]
    assert len(slip) == 10
    assert slip == [row[:2] for row in results if row[:2] in slip]
