"""What a lesson says of memory: what it takes, what is here, and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lora_course.classroom import room
from lora_lab.errors import NotFound

GB = 10**9


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other notebook is open."""
    monkeypatch.setattr(room, "_other_kernels", lambda: iter(()))


def here(monkeypatch: pytest.MonkeyPatch, total: int | None, free: int | None) -> str:
    """What is said of old_09 on a machine with so many bytes."""
    monkeypatch.setattr("lora_course.classroom.preflight.memory", lambda: (total, free))
    return room.room_for("old_09")


def test_what_is_left_of_8_gb_is_the_sum_of_what_takes_it():
    assert room.KERNEL + room.SYSTEM + room.BROWSER == 8 * GB


def test_where_there_is_room_a_lesson_says_what_it_takes_and_what_is_there(
    alone: None, monkeypatch: pytest.MonkeyPatch
):
    words = here(monkeypatch, 8 * GB, 5 * GB)
    peak = room.peak("old_09_merge_and_swap")
    assert f"at most {peak.bytes / 1e9:.1f} GB when measured" in words
    assert peak.date in words
    assert peak.hardware in words
    assert "here: 8.0 GB" in words
    assert words.endswith("enough")


def test_where_there_is_too_little_it_says_so_and_what_to_do(alone: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: type("M", (), {"rss": 10**8}))
    words = here(monkeypatch, 8 * GB, 10**8)
    assert "of which 0.2 GB can be had: too little" in words
    assert "close browser tabs" in words
    hungriest = max(room.lessons(), key=lambda name: room.peak(name).bytes)
    assert f"lessons {room.number(hungriest)} (" in words


def test_where_nobody_tells_what_there_is_only_the_need_is_said(alone: None, monkeypatch: pytest.MonkeyPatch):
    assert "\n" not in here(monkeypatch, None, None)


def test_notebooks_left_open_are_counted_with_what_they_would_give_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_HEADLESS", "")
    others = [0.7 * GB, 0.8 * GB]
    monkeypatch.setattr(room, "_other_kernels", lambda: iter(others))
    assert "2 other notebooks are open and would give back 1.5 GB: close those" in here(monkeypatch, 8 * GB, 5 * GB)
    others.pop()
    assert "1 other notebook is open and would give back 0.7 GB: close it" in here(monkeypatch, 8 * GB, 5 * GB)


def test_another_notebooks_kernel_is_found_and_this_one_is_not_another(tmp_path: Path):
    """A process that is called like a kernel, and holds a tenth of a GB."""
    before = sorted(room._other_kernels())
    program = tmp_path / "ipykernel_launcher.py"
    program.write_text("block = bytearray(b'x') * 10**8\nprint(flush=True)\ninput()")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(program)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        process.stdout.readline()
        found = [size for size in room._other_kernels() if size not in before]
        process.kill()
    assert any(10**8 < size < 2 * 10**8 for size in found)


def test_a_lesson_that_does_not_exist_names_those_that_do():
    with pytest.raises(NotFound, match="old_09_merge_and_swap"):
        room.peak("99")
