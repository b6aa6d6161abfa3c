"""The course runs on a machine of 8 GB with a browser open: recorded, said in each lesson, and run under the limit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from lora_course.classroom import room
from tests.notebooks import ROOT, build, memory

SOURCES = build.lessons()
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_every_lessons_peak_is_recorded_and_leaves_room_on_8_gb():
    assert sorted(room.peaks()) == [source.stem for source in SOURCES]
    for lesson, peak in room.peaks().items():
        assert 10**8 < peak.bytes <= room.KERNEL, lesson
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", peak.date), lesson
        assert peak.hardware, lesson


def test_the_page_states_the_rule_of_the_code():
    parts = (room.MACHINE, room.SYSTEM, room.BROWSER, room.KERNEL)
    assert "{:.1f} - {:.1f} - {:.1f} = {:.1f} GB".format(*(part / 1e9 for part in parts)) in PAGE


def test_a_kernel_within_the_limit_is_measured():
    watch = memory.watched(new_notebook(cells=[new_code_cell("a = bytearray(b'x') * 10**8")]), limit=5 * 10**8)
    assert 10**8 < watch.peak < 4 * 10**8
    assert not watch.exceeded


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS tells of another process only what it has now")
def test_a_peak_that_nobody_looked_at_is_found():
    code = "block = bytearray(b'x') * (3 * 10**8)\ndel block\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with memory.Watch(process.pid) as watch:
            process.kill()
    assert watch.peak > 3 * 10**8


TOO_MUCH = new_code_cell("a = [bytearray(b'x') * 10**8 for _ in range(40)]")


def test_a_lesson_that_takes_too_much_is_ended(monkeypatch: pytest.MonkeyPatch):
    """By the watch alone, as where the system refuses nothing."""
    monkeypatch.setattr(memory, "wall", lambda pid, limit: None)
    with pytest.raises(DeadKernelError):
        memory.watched(new_notebook(cells=[TOO_MUCH]), limit=5 * 10**8)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_linux_refuses_a_lesson_what_is_too_much():
    notebook = new_notebook(cells=[TOO_MUCH])
    assert not memory.watched(notebook, limit=5 * 10**8).exceeded
    assert memory.errors_of(notebook)[-1] == "MemoryError"  # showing it may fail first, for the same reason


@pytest.mark.memory
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_lesson_runs_within_what_8_gb_leave_it(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "1")
    notebook = build.built(source, solved=True)
    watch = memory.watched(notebook, limit=room.KERNEL)
    print(f"{source.stem}: {watch.peak / 1e9:.2f} GB")
    assert not watch.exceeded
    assert not memory.errors_of(notebook)
