"""What a notebook can and cannot do to its own grade, and to the machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lora_course.classroom.grading.folder import Grade, Limits, as_csv
from tests.course.classroom.grading.conftest import OPEN, SETUP, SOLVED

ONE = [SOLVED[1]]


def verdicts(row: Grade) -> list[str]:
    return [check["verdict"] for check in row.checks]


def test_checks_are_judged_outside_of_what_the_notebook_has_changed(graded: Callable[..., Grade]):
    """Where the checks run, neither a patched library nor a patched check of the lab is to be found."""
    patched = (
        "import math, lora_course.checks.verdict as v\nmath.isclose = lambda *a, **k: True\n"
        "v.close = v.number = lambda *a, **k: True\nv.Verdict.__init__ = lambda self, *a: None"
    )
    wrong = [OPEN[0].replace("...", "return 1"), 'checks.check_update_shows("a")', "checks.check_qv_count(3)", OPEN[3]]
    assert verdicts(graded(wrong, [SETUP, patched])) == ["not right", "not right", "not right", "not yet"]


def test_a_notebook_that_rebinds_the_checks_is_asked_by_the_judge(graded: Callable[..., Grade]):
    """The answer that has a name is asked for; the one that stood in the call is not there to be asked for."""
    own = "class checks:\n    def __getattr__(self, name):\n        return print\nchecks = checks()"
    assert verdicts(graded(SOLVED, [SETUP, own])) == ["right", "absent", "right", "absent"]


def test_cells_may_be_moved_and_the_checks_imported_by_another_name(graded: Callable[..., Grade]):
    moved = ["from lora_course.checks.ranks import check_update_shows as same\nsame('b')", SOLVED[3], SOLVED[0]]
    assert verdicts(graded(moved)) == ["right", "right", "absent", "right"]


def test_a_call_that_asks_something_else_does_not_count(graded: Callable[..., Grade]):
    easier = [
        'checks.check_diagnosis({"A": "empty file"})',
        "checks.check_update_shows('b', 1)",
        "checks.check_nothing(1)",
    ]
    assert verdicts(graded(easier)) == ["absent"] * 4


def test_the_last_answer_counts_and_how_often_it_was_tried_is_said(graded: Callable[..., Grade]):
    row = graded(["for letter in 'bca':\n    checks.check_update_shows(letter)"])
    assert (row.checks[1]["verdict"], row.checks[1]["calls"]) == ("not right", 3)


def test_a_verdict_is_shown_to_the_notebook_as_ever(graded: Callable[..., Grade]):
    cell = "verdict = checks.check_update_shows('b')\nassert repr(verdict).startswith('right: at most 8'), verdict"
    assert graded([cell]).errors == []


def test_a_function_that_fails_or_leaves_is_a_wrong_answer(graded: Callable[..., Grade]):
    raising = graded([OPEN[0].replace("...", "return d_in ^ 2.5")]).checks[0]
    assert raising["verdict"] == "not right"
    assert "TypeError" in raising["words"]
    assert "a power is written **" in raising["words"]
    leaving = graded([OPEN[0].replace("...", "raise SystemExit"), *SOLVED[1:]])
    assert verdicts(leaving) == ["not right", "right", "right", "right"]


def test_an_answer_that_is_too_large_is_a_wrong_one_and_the_rest_is_graded(graded: Callable[..., Grade]):
    large = "import numpy as np\nlarge = np.zeros((3300, 1000))"
    by_name = "checks.check_diagnosis(diagnosis={'A': large, 'D': 'truncated file'})"
    returned = OPEN[0].replace("...", "return large")
    row = graded([large, returned, SOLVED[1], "checks.check_qv_count(large)", by_name])
    assert (row.status, row.errors) == ("ran", [])
    assert [(check["verdict"], check["calls"]) for check in row.checks] == [
        ("not right", 1), ("right", 1), ("not right", 1), ("absent", 0),
    ]  # fmt: skip
    assert "too large" in row.checks[2]["words"]


def test_a_function_that_calls_checks_is_answered(graded: Callable[..., Grade]):
    assert (
        verdicts(graded([OPEN[0].replace("...", "return checks.check_break_even_rank(break_even_rank)")]))[0]
        == "not right"
    )


LINE = (
    "held = [cell.cell_contents for cell in checks.check_update_shows.__closure__]\n"
    "line = next(one for one in held if hasattr(one, 'send'))\n"
)


@pytest.mark.parametrize(
    "message",
    ["{'cell': 'x'}", "{'cell': 10**4299}", "{'cell': float('inf')}", "{'error': 3}", "{'error': {'cell': 'x'}}"],
)
def test_a_message_of_another_shape_ends_its_own_notebook_alone(message: str, graded: Callable[..., Grade]):
    row = graded([SOLVED[0], f"{LINE}line.send({message})", SOLVED[1]])
    assert (row.status, row.count("right"), row.count("absent")) == ("garbled", 1, 3)
    assert "garbled" in as_csv([row])


def test_a_call_that_lacks_its_answer_is_no_answer(graded: Callable[..., Grade]):
    calls = ["{'check': 'check_update_shows'}", "{'check': 3, 'arguments': {'': 'function', 'place': float('inf')}}"]
    row = graded([f"{LINE}line.send({call})\nline.receive()" for call in calls] + SOLVED)
    assert (row.status, row.count("right")) == ("ran", 4)


@pytest.mark.parametrize(
    ("cell", "status"),
    [
        ("import os\nos._exit(0)", "left"),
        ("import sys\nsys.exit()", "ran"),
        ("import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'\\0\\0\\0\\5right')\n"
         "    except OSError:\n        pass", "garbled"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()", "ran"),
        ("def again():\n    again()\nagain()", "ran"),
        ("import signal, os\nsignal.raise_signal(signal.SIGKILL)", "left"),
    ],
    ids=["exits", "asks to exit", "writes into the line", "leaves a thread", "recursion", "kills itself"],
)  # fmt: skip
def test_what_was_judged_before_an_end_counts(cell: str, status: str, graded: Callable[..., Grade]):
    row = graded([SOLVED[0], cell, SOLVED[1]], limits=Limits(seconds=10, memory_gib=1))
    assert row.status == status, row
    assert verdicts(row) == ["right", "right" if status == "ran" else "absent", "absent", "absent"]


def test_time_is_up_for_a_function_too(graded: Callable[..., Grade]):
    row = graded([*SOLVED[1:], OPEN[0].replace("...", "while True: pass")], limits=Limits(seconds=2, memory_gib=1))
    assert (row.status, verdicts(row)) == ("time", ["absent", "right", "right", "right"])
    assert "code cell 5" in row.words


def test_a_notebook_cannot_grant_itself_more_time(graded: Callable[..., Grade]):
    again = "import time\nfor _ in range(8):\n    time.sleep(0.5)\n    line.send({'walls': {'files': True}})"
    row = graded([SOLVED[0], LINE + again], limits=Limits(seconds=1.5, memory_gib=1))
    assert (row.status, row.count("right")) == ("time", 1)


REFUSED = {
    "write": "open({outside!r}, 'w')",
    "through a link": "import os\nos.symlink({folder!r}, 'link')\nopen('link/new', 'w')",
    "database": "import sqlite3\nsqlite3.connect({outside!r} + '.db')",
    "database by address": "import sqlite3\nsqlite3.connect('file:' + {outside!r} + '%20.db?mode=rwc', uri=True)",
    "remove": "import os\nos.remove({kept!r})",
    "remove from a folder": "import os\nos.remove('kept', dir_fd=os.open({folder!r}, os.O_RDONLY))",
    "rename": "import os\nos.rename({kept!r}, {outside!r})",
    "program": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1)'])",
    "shell": "!touch {outside}",
    "program without an event": "import multiprocessing.util as u\n"
    "u.spawnv_passfds(b'/bin/touch', [b'/bin/touch', {outside!r}.encode()], [])",
    "fork": "import os\nos.fork()",
    "process": "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5)",
    "names": "import urllib.request\nurllib.request.urlopen('http://example.org', timeout=5)",
    "grader": "import os\nos.kill(os.getppid(), 9)",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
}


@pytest.mark.skipif(sys.platform == "win32", reason="the cells are written for POSIX")
def test_what_leaves_the_folder_is_refused_and_reported_and_the_rest_is_graded(
    tmp_path: Path, graded: Callable[..., Grade]
):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        places = {"outside": str(folder / "new"), "kept": str(folder / "kept"), "folder": str(folder)}
        cells = [cell.format(port=server.getsockname()[1], **places) for cell in REFUSED.values()]
        row = graded([*cells, *SOLVED])
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert row.count("right") == 4
    failed = {error["cell"] - 1 for error in row.errors}
    assert [name for number, name in enumerate(REFUSED) if number not in failed] in ([], ["shell"])
    assert len(row.refused) >= len(REFUSED) - 1
    assert not [p for p in psutil.process_iter() if p.ppid() == os.getpid() and p.status() == psutil.STATUS_ZOMBIE]


def test_a_database_of_its_own_is_a_notebooks_to_keep(graded: Callable[..., Grade]):
    places = ["'mine.db'", "':memory:'", "'file:too.db', uri=True", "'file::memory:?cache=shared', uri=True"]
    cells = [f"import sqlite3\nsqlite3.connect({place}).execute('create table t (x)')" for place in places]
    row = graded([*cells, *ONE])
    assert (row.errors, row.refused, row.count("right")) == ([], [], 1)


@pytest.mark.skipif(sys.platform != "linux", reason="a wall of Linux")
def test_where_linux_has_walls_code_below_python_does_not_get_out_either(tmp_path: Path, graded: Callable[..., Grade]):
    outside = tmp_path / "new"
    row = graded([f"import ctypes\nlibc = ctypes.CDLL(None)\nlibc.creat({str(outside).encode()!r}, 0o600)", *ONE])
    assert row.walls.keys() == {"network", "files"}
    assert outside.exists() != row.walls["files"]
    assert row.count("right") == 1


def test_memory_that_the_system_does_not_count_is_seen_by_the_watch(graded: Callable[..., Grade]):
    shared = "import mmap\nkept = [mmap.mmap(-1, 2**30)]\nfor place in range(0, 2**30, 4096):\n    kept[0][place] = 1"
    row = graded([*ONE, shared, SOLVED[0]], limits=Limits(seconds=20, memory_gib=0.25))
    assert (row.status, row.count("right")) == ("memory", 1)
    assert "in code cell 3" in row.words


def test_a_disk_that_fills_is_seen_by_the_watch(graded: Callable[..., Grade], monkeypatch: pytest.MonkeyPatch):
    free = iter([4 * 2**30] * 8)
    monkeypatch.setattr(psutil, "disk_usage", lambda place: SimpleNamespace(free=next(free, 10**6)))
    row = graded([*ONE, "import time\ntime.sleep(60)"])
    assert (row.status, row.count("right")) == ("disk", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_fork_bomb_below_python_is_ended(graded: Callable[..., Grade]):
    bomb = "import ctypes, time\nlibc = ctypes.CDLL(None)\nfor _ in range(20):\n    if libc.fork() == 0:\n        time.sleep(60)\ntime.sleep(60)"  # noqa: E501
    row = graded([*ONE, bomb])
    assert (row.status, row.count("right")) == ("programs", 1)
    assert row.seconds < 15


@pytest.mark.skipif(sys.platform != "linux", reason="who inherits an orphan is Linux's to say")
@pytest.mark.parametrize("wait", [0, 0.3], ids=["at once", "when it was seen"])
def test_what_leaves_its_group_and_outlives_the_notebook_is_ended(wait: float, graded: Callable[..., Grade]):
    name = f"left{os.getpid()}"
    leaving = (
        "import ctypes, os, time\nlibc = ctypes.CDLL(None)\nif libc.fork() == 0:\n"
        f"    libc.setsid()\n    libc.prctl(15, {name.encode()!r})\n    time.sleep(60)\n"
        f"time.sleep({wait})\nos._exit(0)"
    )
    row = graded([*ONE, leaving])
    assert (row.status, row.count("right")) == ("left", 1)
    there = [process for process in psutil.process_iter(["name"]) if process.info["name"] == name]
    assert not psutil.wait_procs(there, timeout=5)[1]
