"""A limit of memory ends what goes beyond it, and no peak escapes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lora_course.classroom.grading.family import Watch, high_water, taken

MB = 10**6
TAKE = "block = bytearray(b'x') * {bytes}"  # written to, so resident
SAY, WAIT = "print('ready', flush=True)", "input()"


@contextmanager
def python(*lines: str) -> Iterator[subprocess.Popen]:
    """A process that runs these lines, and is there until the block ends."""
    words, pipe = [sys.executable, "-c", "\n".join(lines)], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen) -> None:
    assert process.stdout
    assert process.stdout.readline() == "ready\n"


def go_on(process: subprocess.Popen) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def without_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that sets no limits: the watch is alone."""
    monkeypatch.setattr("lora_course.classroom.grading.family.wall", lambda pid, limit: False)


def test_a_process_that_takes_too_much_is_ended(without_wall: None):
    with python(WAIT, TAKE.format(bytes=200 * MB), SAY, "import time; time.sleep(60)") as process:
        with Watch(process.pid, 100 * MB) as watch:
            go_on(process)
            assert process.wait(20) != 0
        assert watch.exceeded


def test_what_a_process_has_started_counts_and_is_ended_with_it(without_wall: None):
    child = f"{TAKE.format(bytes=200 * MB)}; {SAY}; {WAIT}"
    with python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])") as process:
        with Watch(process.pid, 100 * MB) as watch:
            assert process.wait(20) != 0
        assert watch.exceeded
        assert watch.most_programs == 1


def test_a_process_within_its_limit_is_left_alone():
    with python(TAKE.format(bytes=100 * MB), SAY, WAIT, "print('done')") as process:
        ready(process)
        with Watch(process.pid, 400 * MB) as watch:
            go_on(process)
            assert process.wait(20) == 0
        assert not watch.exceeded
        assert 100 * MB < watch.peak < 200 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_linux_refuses_what_the_watch_would_come_too_late_for():
    with (
        python(WAIT, TAKE.format(bytes=400 * MB), SAY, WAIT) as process,
        Watch(process.pid, 200 * MB, pause=60) as watch,
    ):
        assert watch.walled
        go_on(process)
        assert process.wait(20) != 0
        assert process.stderr
        assert "MemoryError" in process.stderr.read()
    assert not watch.exceeded


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS tells of another process only what it has now")
def test_a_peak_that_nobody_looked_at_is_found(without_wall: None):
    with python(TAKE.format(bytes=300 * MB), "del block", SAY, WAIT) as process:
        ready(process)
        assert taken(process.pid)[0] < 100 * MB
        assert high_water(process.pid) > 300 * MB
        with Watch(process.pid, 200 * MB):
            time.sleep(0.2)
        assert process.wait(20) != 0


def test_a_process_that_is_gone_takes_nothing():
    with python("pass") as process:
        process.wait(20)
    assert taken(process.pid) == (0, 0)
    assert high_water(process.pid) == 0
