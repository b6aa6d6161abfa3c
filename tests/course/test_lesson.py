from pathlib import Path
from shutil import make_archive

import pytest

from lora_course import lesson
from lora_course.receipts import Receipt
from lora_lab import LoRA, NotFound, Recipe, Store, load_task, sweep
from lora_lab.files import write_json
from tests.conftest import made_run


def test_start_prints_title_minutes_memory_and_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# 03 · Which knob?\n", "word " * 497]}
    exercise = {"cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": ["check()"]}
    notebook, times = tmp_path / "notebooks" / "03_which.ipynb", tmp_path / "data" / "results" / "lesson_times.json"
    write_json(notebook, {"cells": [text, exercise, exercise]})
    write_json(times, {"03_which": {"seconds": 121}})
    receipt = Receipt("02", notes={"accuracy": 0.8})
    monkeypatch.setattr(lesson, "shipped", lambda path: tmp_path / path)
    monkeypatch.setattr(lesson, "CURRENT", receipt)
    monkeypatch.setattr(lesson, "room_for", lambda number: "")
    monkeypatch.setenv("LORA_LAB_STUDENT", "")
    lesson.start("03")
    assert capsys.readouterr().out == "03 · Which knob?\nAbout 15 minutes (estimated), of which the computer needs 2.\n"
    assert (receipt.lesson, receipt.notes) == ("03", {})
    receipt.notes["accuracy"] = 0.9
    monkeypatch.setattr(lesson, "room_for", lambda number: "memory: too little")
    lesson.start("03", student="Ada Lovelace")
    assert receipt.notes == {"accuracy": 0.9}  # rerunning the first cell keeps everything
    assert capsys.readouterr().out.endswith("memory: too little\nAda Lovelace, seed 629644\n")
    lesson.start("03", student=7)
    assert capsys.readouterr().out.endswith(f"\n7, seed {lesson.seed_of('7')}\n")
    write_json(times, {})
    assert lesson.estimate(notebook)[1:] == (pytest.approx(13.02), None)
    with pytest.raises(NotFound, match="there is no lesson '3'; available: 03"):
        lesson.start("3")


def test_fast_shortens_a_lesson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(lesson, "FAST", False)
    assert (lesson.steps(400), lesson.steps(20)) == (400, 20)
    assert lesson.workplace("06") == Path("runs/06")
    assert lesson.small("rt", tmp_path) == "rt"
    monkeypatch.setattr(lesson, "FAST", True)
    assert (lesson.steps(400), lesson.steps(20)) == (40, 20)
    assert lesson.workplace("06") == lesson.workplace("06") != lesson.workplace("07")
    assert lesson.workplace("06").is_absolute()
    small, full = load_task(lesson.small("rt", tmp_path, rows=50)), load_task("rt")
    assert (len(small.train), len(small.validation), len(small.test)) == (35, 5, 10)
    labels = dict(zip(full.train.texts, full.train.labels, strict=True))
    assert [labels[text] for text in small.test.texts] == list(small.test.labels)


def test_references_have_their_hardware_and_unknown_names_are_refused():
    for name in ("nothing", "lesson_times"):  # data/results has other files, too
        with pytest.raises(NotFound, match=f"there is no reference run '{name}'; available: minilm-rt-r8$"):
            lesson.reference(name)
    with pytest.raises(NotFound, match="there is no reference comparison 'other'; available: minilm_rt, "):
        lesson.reference_comparison("other")
    assert lesson.reference_comparison("minilm_rt")["environment"]["hardware"]


def test_catch_up_copies_runs_that_a_sweep_then_skips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    recipe = Recipe("minilm", "rt", LoRA(rank=8), steps=2, batch=8)
    environment = {"date": "2026-01-02", "hardware": "a laptop"}
    Store(tmp_path / "ours").add(made_run(recipe, None, environment, accuracy=0.5))
    make_archive(str(tmp_path / "rates"), "zip", tmp_path / "ours")
    monkeypatch.setattr(lesson, "shipped", lambda path: tmp_path)
    words = lesson.catch_up("rates", tmp_path / "own")
    assert words == "copied 1 run of ours, made on a laptop from 2026-01-02 to 2026-01-02; a sweep won't repeat them"
    result = sweep([recipe], tmp_path / "own")
    assert (result.skipped, result.packs) == (1, ())
    with pytest.raises(NotFound, match="there is no reference sweep 'ranks'; available: rates"):
        lesson.catch_up("ranks", tmp_path / "own")
