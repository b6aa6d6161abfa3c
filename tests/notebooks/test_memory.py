import re
import subprocess
import sys

import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from lora_course.classroom import room
from tests.notebooks import ROOT, build, memory

SOURCES = build.lessons()


def test_recorded_peaks_are_within_the_limit_that_the_install_page_states():
    assert sorted(room.peaks()) == [source.stem for source in SOURCES]
    for lesson, peak in room.peaks().items():
        assert 10**8 < peak.bytes <= room.KERNEL, lesson
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", peak.date), lesson
        assert peak.hardware, lesson
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    parts = (room.MACHINE, room.SYSTEM, room.BROWSER, room.KERNEL)
    assert "{:.1f} - {:.1f} - {:.1f} = {:.1f} GB".format(*(part / 1e9 for part in parts)) in page


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS reports only the current memory of other processes")
def test_watch_finds_a_peak_between_two_looks():
    code = "block = bytearray(b'x') * (3 * 10**8)\ndel block\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with memory.Watch(process.pid) as watch:
            process.kill()
    assert watch.peak > 3 * 10**8


TOO_MUCH = new_code_cell("a = [bytearray(b'x') * 10**8 for _ in range(40)]")


def test_watch_ends_a_kernel_above_the_limit(monkeypatch: pytest.MonkeyPatch):
    """The watch must do this without help, because some systems can't limit the memory of a process."""
    monkeypatch.setattr(memory, "wall", lambda pid, limit: None)
    with pytest.raises(DeadKernelError):
        memory.watched(new_notebook(cells=[TOO_MUCH]), limit=5 * 10**8)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_linux_limit_raises_memory_error():
    notebook = new_notebook(cells=[TOO_MUCH])
    watch = memory.watched(notebook, limit=5 * 10**8)
    assert 10**8 < watch.peak <= 5 * 10**8
    assert not watch.exceeded
    assert memory.errors_of(notebook)[-1] == "MemoryError"  # the traceback itself may run out of memory first


@pytest.mark.memory
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_lesson_runs_within_the_limit(source, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    notebook = build.built(source, solved=True)
    watch = memory.watched(notebook, limit=room.KERNEL)
    print(f"{source.stem}: {watch.peak / 1e9:.2f} GB")
    assert not watch.exceeded
    assert not memory.errors_of(notebook)
