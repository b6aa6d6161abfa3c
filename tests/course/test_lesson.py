import os
import sys
from pathlib import Path
from shutil import make_archive
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lora_course import lesson, receipts
from lora_course.classroom import room
from lora_course.receipts import Receipt, read
from lora_lab import LoRA, NotFound, Recipe, Store, load_task, sweep
from lora_lab.files import write_json
from lora_lab.training import assets
from tests.conftest import assert_raises, made_run


def test_start_prints_title_minutes_memory_and_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# 03 · Which knob?\n", "word " * 497]}
    exercise = {"cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": ["check()"]}
    notebook, times = tmp_path / "notebooks" / "03_which.ipynb", tmp_path / "data" / "results" / "lesson_times.json"
    write_json(notebook, {"cells": [text, exercise, exercise]})
    write_json(times, {"03_which": {"seconds": 121}})
    receipt = Receipt("02", notes={"accuracy": 0.8})
    monkeypatch.setattr(lesson, "shipped", lambda path: tmp_path / path)
    for module in (lesson, receipts):
        monkeypatch.setattr(module, "CURRENT", receipt)
    monkeypatch.setattr(lesson, "room_for", lambda number: "")
    monkeypatch.setenv("LORA_LAB_STUDENT", "")
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # or it changes the style of all plots
    lesson.start("03")
    assert capsys.readouterr().out == "03 · Which knob?\nAbout 15 minutes (estimated), of which the computer needs 2.\n"
    assert (receipt.lesson, receipt.notes) == ("03", {})
    receipt.notes["accuracy"] = 0.9
    monkeypatch.setattr(lesson, "room_for", lambda number: "memory: too little")
    lesson.start("03", student="Ada Lovelace")
    assert receipt.notes == {"accuracy": 0.9}  # rerunning the first cell keeps everything
    assert capsys.readouterr().out.endswith("memory: too little\nAda Lovelace, seed 629644\n")
    lesson.start("03", student=7)
    assert receipt.notes == {}  # another student starts anew
    assert capsys.readouterr().out.endswith(f"\n7, seed {lesson.seed_of('7')}\n")
    for name, kept in (("Ada\0 L", "Ada  L"), ("  Zo\ud83d ", "  Zo? "), ("Jos\udce9", "Jos?")):
        receipt.notes["accuracy"] = 0.9
        lesson.start("03", student=name)
        assert (receipt.notes, receipt.student, os.environ["LORA_LAB_STUDENT"]) == ({}, kept, kept)
        lesson.receipt()
        assert read(capsys.readouterr().out)[0][0].student == kept.strip()
    receipt.notes["accuracy"] = 0.9
    monkeypatch.setenv("LORA_LAB_STUDENT", "jos? ")  # the same student
    lesson.start("03")
    assert receipt.notes == {"accuracy": 0.9}
    monkeypatch.setenv("LORA_LAB_STUDENT", "Bob")  # in the running kernel
    lesson.start("03")
    assert (receipt.notes, receipt.student) == ({}, "Bob")
    write_json(times, {})
    assert lesson.estimate(notebook)[1:] == (pytest.approx(13.02), None)
    assert_raises("there is no lesson '3'; available: 03", lesson.start, "3", error=NotFound)


def test_fast_shortens_a_lesson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(lesson, "FAST", False)
    assert (lesson.steps(400), lesson.steps(20)) == (400, 20)
    assert lesson.workplace("06") == Path("runs/06")
    assert lesson.small("rt", tmp_path) == "rt"
    monkeypatch.setattr(lesson, "FAST", True)
    assert (lesson.steps(400), lesson.steps(20)) == (40, 20)
    assert lesson.workplace("06") == lesson.workplace("06") != lesson.workplace("07")
    assert lesson.workplace("06").is_absolute()
    with monkeypatch.context() as patch:  # in two containers, labs may have the same process ID and starting second
        patch.setattr(lesson.psutil.Process, "create_time", iter([5.1, 5.4]).__next__)
        assert lesson.workplace("06") != lesson.workplace("06")
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


def test_warning_says_what_a_lesson_needs_and_what_to_close(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: SimpleNamespace(rss=10**8))
    monkeypatch.setattr(room, "memory", lambda: (8 * 10**9, 5 * 10**9))
    assert room.room_for("05") == ""
    monkeypatch.setattr(room, "memory", lambda: (8 * 10**9, 10**7))
    words, peak = room.room_for("05"), room.peaks()["05_as_good_as_full"]
    assert f"up to {peak.bytes / 1e9:.1f} GB when measured ({peak.date}, {peak.hardware})" in words
    assert "this machine has 8.0 GB, of which only 0.1 GB is free for the lesson: shut down other notebooks" in words
    monkeypatch.setattr(room, "memory", lambda: (None, None))
    assert room.room_for("05") == room.room_for("99") == ""


@pytest.mark.parametrize(
    ("gpu", "setting", "dtype"), [((7, 5), None, "fp16"), ((8, 9), None, None), ((7, 5), "fp32", "fp32")]
)
def test_colab_gets_widgets_assets_and_fp16_on_a_t4(gpu, setting, dtype, monkeypatch):
    monkeypatch.setenv("LORA_LAB_DTYPE", setting or "")
    if setting is None:
        monkeypatch.delenv("LORA_LAB_DTYPE")
    calls: list[str] = []
    monkeypatch.setattr(assets, "fetch", lambda names, say: calls.extend(names))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    lesson.prepare_colab()
    assert not calls
    output = ModuleType("google.colab.output")
    vars(output)["enable_custom_widget_manager"] = lambda: calls.append("widgets")
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    lesson.prepare_colab()
    assert calls == ["widgets", "minilm", "smollm2", "reviews", "kjv", "shakespeare"]
    assert os.environ.get("LORA_LAB_DTYPE") == dtype
