"""What the lessons share."""

from pathlib import Path
from shutil import make_archive

import pytest

from lora_course import lesson
from lora_course.receipts import Receipt
from lora_lab import LoRA, Recipe, Store, load_task, sweep
from lora_lab.errors import NotFound
from lora_lab.files import write_json
from tests.conftest import made_run


def test_a_lesson_begins_with_its_title_its_minutes_and_whose_seed_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# 03 · Which knob?\n", "word " * 497]}
    task = {"cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": ["check()"]}
    write_json(tmp_path / "notebooks" / "03_which.ipynb", {"cells": [text, task, task]})
    write_json(tmp_path / "data" / "results" / "lesson_times.json", {"03_which": {"seconds": 121}})
    monkeypatch.setattr(lesson, "shipped", lambda path: tmp_path / path)
    monkeypatch.setattr(lesson, "CURRENT", mine := Receipt("02", notes={"accuracy": 0.8}))
    monkeypatch.setenv("LORA_LAB_STUDENT", "")
    monkeypatch.setattr(lesson, "room_for", lambda number: "")
    lesson.start("03")
    assert capsys.readouterr().out == "03 · Which knob?\nAbout 15 minutes (estimated); your computer needs 2 of them.\n"
    assert (mine.lesson, mine.notes) == ("03", {})
    mine.notes["accuracy"] = 0.9
    monkeypatch.setattr(lesson, "room_for", lambda number: "memory: too little")
    lesson.start("03", student="Ada Lovelace")
    assert mine.notes == {"accuracy": 0.9}  # a first cell that is run again forgets nothing
    assert capsys.readouterr().out.endswith("memory: too little\nAda Lovelace, seed 629644\n")
    write_json(tmp_path / "data" / "results" / "lesson_times.json", {})
    assert lesson.estimate(tmp_path / "notebooks" / "03_which.ipynb")[1:] == (pytest.approx(13.02), None)
    with pytest.raises(NotFound, match="there is no lesson '3'; available: 03"):
        lesson.start("3")


def test_fast_shortens_and_never_lengthens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for fast, steps in ((False, 400), (True, 40)):
        monkeypatch.setattr(lesson, "FAST", fast)
        assert (lesson.steps(400), lesson.steps(20)) == (steps, 20)
    little, whole = load_task(lesson.small("rt", tmp_path, rows=50)), load_task("rt")
    assert (len(little.train), len(little.validation), len(little.test)) == (35, 5, 10)
    label_of = dict(zip(whole.train.texts, whole.train.labels, strict=True))
    assert [label_of[text] for text in little.test.texts] == list(little.test.labels)
    assert lesson.workplace("06") == lesson.workplace("06") != lesson.workplace("07")
    assert lesson.workplace("06").is_absolute()  # where the runner of the lessons finds them
    monkeypatch.setattr(lesson, "FAST", False)
    assert lesson.workplace("06") == Path("runs/06")
    assert lesson.small("rt", Path("nowhere")) == "rt"


def test_what_ships_is_whole_says_where_and_when_and_an_unknown_name_is_an_error():
    for name in ("nothing", "lesson_times"):  # what else lies there is no run
        with pytest.raises(NotFound, match=f"there is no reference run '{name}'; available: minilm-rt-r8$"):
            lesson.reference(name)
    with pytest.raises(NotFound, match="there is no reference comparison 'other'; available: minilm_rt, "):
        lesson.reference_comparison("other")
    assert lesson.reference_comparison("minilm_rt")["environment"]["hardware"]


def test_one_catches_up_by_runs_that_a_sweep_then_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    recipe = Recipe("minilm", "rt", LoRA(rank=8), steps=2, batch=8)
    made = {"date": "2026-01-02", "hardware": "a laptop"}
    Store(tmp_path / "made").add(made_run(recipe, None, made, accuracy=0.5))
    make_archive(str(tmp_path / "rates"), "zip", tmp_path / "made")
    monkeypatch.setattr(lesson, "shipped", lambda path: tmp_path)
    words = lesson.catch_up("rates", tmp_path / "own")
    assert words == "1 run of ours, made on a laptop from 2026-01-02 to 2026-01-02; a sweep finds them done"
    swept = sweep([recipe], tmp_path / "own")
    assert (swept.skipped, swept.packs) == (1, ())
    with pytest.raises(NotFound, match="there is no reference sweep 'ranks'; available: rates"):
        lesson.catch_up("ranks", tmp_path / "own")
