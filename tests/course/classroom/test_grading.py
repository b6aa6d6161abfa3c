import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lora_course.classroom import grading
from lora_course.classroom.grading import Lesson, Limits, grade
from lora_course.classroom.kernel import FUNCTIONS, pack, unpack
from lora_course.cli import commands
from lora_course.predictions import FILE
from lora_course.receipts import draw
from lora_lab.errors import LabWarning, NotFound
from lora_lab.training.assets import shipped
from tests.conftest import assert_raises, needs_bwrap

TEXT = "# A small lesson\n\nHalf an interval, the rank of a file, and one pair of matrices."
SETUP = "from lora_course import checks\n\nthe_width_of_a_layer = 384"
OPEN = [
    "def half_width(p, n):\n    ...\n\n\nchecks.check_half_width(half_width)",
    "checks.check_rank_of_file(...)",
    "pair = ...\nchecks.check_pair_numbers(pair)",
    "checks.check_stranger(..., 0)",
]
ANSWERS = ["return 1.96 * (p * (1 - p) / n) ** 0.5", "10", "2 * (576 + 1536)", '"A and B"']
SOLVED = [cell.replace("...", answer) for cell, answer in zip(OPEN, ANSWERS, strict=True)]
LEAVES = "import os\nassert 'LORA_LAB_STUDENT' not in os.environ\nos._exit(0)"  # the teacher's name stays out


def hand_in(folder, name: str, exercises, tags=()):
    solved = [new_code_cell(source, metadata={"tags": list(tags)}) for source in exercises]
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell(TEXT), new_code_cell(SETUP), *solved]), path)
    return path


def handed_out(folder):
    return hand_in(folder, "99_small", OPEN, ["exercise"])


HOSTILE_CELLS = {  # each with the error that it ends in
    "checks.check_rank_of_file = lambda answer: 'right: yes'\nprint('right: yes')": None,
    "import lora_course.checks.verdict as v\nv.Number.judge = lambda *a: v.Verdict(True, '')": None,
    "this is no Python": "SyntaxError",
    "1 / 0": "ZeroDivisionError",
    "import sys\nsys.exit()": "SystemExit",
    "exit()": "SystemExit",
    "sys.stdout = sys.stderr = None": None,
    "def again():\n    again()\nagain()": "RecursionError",
    "raise type('=1+1\\x1b[2J', (Exception,), {})": "=1+1\x1b[2J",
    "import os\nos.environ['HF_TOKEN']": "KeyError",
    "import os\nassert open('mine.txt').read() == 'b' and os.stat('mine.txt').st_mode & 0o200": None,
    "open('other.ipynb')": "FileNotFoundError",
    "from lora_course.lesson import draw, predict, reveal\npredict('fewer', 10, 300)\nreveal('fewer', 256)": None,
    "assert draw('rank', *range(1000)) == DRAWN": None,
    "open('KEPT\\x1b[2J', 'w')": "PermissionError",
    "open('KEPT', 'a')": "PermissionError",
    "import os\nos.symlink('FOLDER', 'link')\nopen('link/new', 'w')": "PermissionError",
    "import shutil\nshutil.rmtree('FOLDER')": "PermissionError",
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1)'])": "PermissionError",
    "!touch FOLDER/new": "PermissionError",
    "import urllib.request\nurllib.request.urlopen('http://example.org', timeout=5)": "URLError",
    "import os\nos.kill(os.getppid(), 9)": "PermissionError",
    "open('large', 'wb').truncate(2**31)": "OSError",
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Grade a class, and return the rows by student, the lines of the table, and the words."""
    top = tmp_path_factory.mktemp("class")
    folder, kept = top / "handed in", top / "elsewhere" / "kept"
    kept.parent.mkdir()
    kept.write_text("kept")
    cells = list(HOSTILE_CELLS)
    drawn = str(draw("rank", *range(1000), name="Ada"))
    for placeholder, value in {"KEPT": str(kept), "FOLDER": str(kept.parent), "DRAWN": drawn}.items():
        cells = [cell.replace(placeholder, value) for cell in cells]
    hand_in(folder, "ada/mine", [*SOLVED[:3], f"checks.check_stranger?\n%time {SOLVED[3]}", *cells, SOLVED[1]])
    (folder / "ada" / "mine.txt").write_text("b")
    (folder / "ada" / "mine.txt").chmod(0o444)
    for name in ("random.py", "json.py", ".home"):  # a helper's unlucky name breaks no kernel
        (folder / "ada" / name).write_text("raise SystemExit")
    (folder / "ada" / FILE).write_text(json.dumps({"student": "Ada"}))
    wrong = OPEN[0].replace("...", "return p").partition("\n\n\n")[0]  # without the call to its check
    hand_in(folder, "ada/other", [wrong, OPEN[1], "pair = 4224", 'checks.check_stranger("A", 1)'])
    hand_in(folder, "max/mine", [SOLVED[0], LEAVES, SOLVED[1]])
    large = "import mmap\nkept = mmap.mmap(-1, 2**31)\nfor place in range(0, 2**31, 4096):\n    kept[place] = 1"
    hand_in(folder, "mia/mine", [SOLVED[0], "kept = [bytes(2**27) for _ in range(40)]", SOLVED[1], large, SOLVED[3]])
    # bypasses the hook; a child may hang at once, because Python doesn't know of the fork
    fork = "all(ctypes.PyDLL(None).fork() for _ in range(9))"
    hand_in(folder, "tim/mine", [SOLVED[0], f"import ctypes, time\n{fork}\ntime.sleep(60)"])
    hand_in(folder, "uma/mine", [SOLVED[0], "import torch\ntorch.ones(2**30)"])
    (folder / "ada" / "._mine.ipynb").write_text("added by macOS")
    (folder / "zoe.ipynb").write_text("no JSON {")
    for suffix in ("txt", "json"):  # as some browsers save a notebook
        (folder / f"zoe2.ipynb.{suffix}").write_text('{"cells": 3}')
    (folder / "=zoe.ipynb").write_text('{"cells": [], "nbformat": 4}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = ["--lesson", str(handed_out(top)), "--csv", str(top / "class.csv"), "--json", "--seconds", "120"]
    json_out, words = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(json_out), redirect_stderr(words):
        patch.setenv("HF_TOKEN", "secret")
        patch.setenv("LORA_LAB_STUDENT", "teacher")
        commands(["grade", str(folder), *options, "--memory", "1", "--jobs", "2"], standalone_mode=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]
    assert kept.read_text() == "kept"
    notebooks = json.loads(json_out.getvalue())["notebooks"]
    rows = {row["file"].removesuffix(".ipynb").removesuffix("/mine"): row for row in notebooks}
    return SimpleNamespace(rows=rows, table=rows_of(top / "class.csv"), words=words.getvalue())


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))


def verdicts(row) -> list[str]:
    return [check["verdict"] for check in row["checks"]]


def test_each_notebook_is_graded_on_its_own(graded: SimpleNamespace):
    rows = graded.rows
    assert {name: (row["status"], verdicts(row)) for name, row in rows.items()} == {
        "=zoe": ("unknown", []),
        "ada": ("ran", ["right"] * 4),
        "ada/other": ("ran", ["not right", "not yet", "right", "absent"]),  # the grader makes missing calls itself
        "max": ("left", ["right", "absent", "absent", "absent"]),
        "mia": ("memory", ["right", "right", "absent", "absent"]),
        "tim": ("programs", ["right", "absent", "absent", "absent"]),
        "uma": ("memory", ["right", "absent", "absent", "absent"]),
        "zoe": ("unreadable", []),
        **dict.fromkeys(("zoe2.ipynb.txt", "zoe2.ipynb.json"), ("unreadable", [])),
    }
    assert [check["calls"] for check in rows["ada"]["checks"]] == [1, 2, 1, 1]
    assert rows["max"]["words"] == "its process exited by itself in code cell 3"
    assert "in code cell 5: it used more than 1 GiB" in rows["mia"]["words"]
    assert [error["type"] for error in rows["mia"]["errors"]] == ["MemoryError"]
    assert "ada/other.ipynb: 1 of 4 right; 1 not right; 1 not yet; 1 absent; ran" in graded.words
    zoe, *_, other = (line for line in graded.table if line["file"] in ("'=zoe.ipynb", "ada/other.ipynb"))
    assert (other["right"], other["99_small: checks.check_rank_of_file(...)"]) == ("1", "not yet")
    assert zoe["file"].startswith("'=")  # no formula
    assert "\x1b" not in graded.words + str(graded.table)  # no terminal commands


@pytest.mark.skipif(sys.platform == "win32", reason="the cells are written for POSIX")
def test_failing_and_refused_cells_are_reported_and_the_rest_is_graded(graded: SimpleNamespace):
    row = graded.rows["ada"]
    first = 1 + len(SOLVED)
    expected = {first + number: error for number, error in enumerate(HOSTILE_CELLS.values()) if error}
    assert {error["cell"]: error["type"] for error in row["errors"]} == expected
    assert len(row["refused"]) == sum(error in ("PermissionError", "URLError") for error in expected.values())
    assert row["refused"][0].startswith("write ")
    assert "\x1b" in row["refused"][0]
    (prediction,) = row["predictions"]
    assert [prediction[name] for name in ("student", "lesson", "low", "fast")] == ["Ada", "mine", 10, True]


def test_notebooks_are_stopped_after_their_time(tmp_path, monkeypatch):
    (folder := tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # too long for a socket
    wait = "__import__('time').sleep(60)"
    hand_in(tmp_path / "class", "cell", [SOLVED[1], wait])
    hand_in(tmp_path / "class", "function", [SOLVED[1], OPEN[0].replace("...", wait)])  # called by the grader
    known = [Lesson(handed_out(tmp_path))]
    for row in grade(tmp_path / "class", limits=Limits(seconds=4, memory_gib=math.inf), known=known, jobs=2):
        assert (row["status"], verdicts(row)) == ("time", ["absent", "right", "absent", "absent"])
        assert row["words"] == "stopped in code cell 3 after 4 s"


@needs_bwrap
def test_bubblewrap_stops_code_that_bypasses_python(tmp_path):
    create = f"import ctypes\nctypes.CDLL(None).creat({str(tmp_path / 'new').encode()!r}, 0o600)"
    path = hand_in(tmp_path, "eve", [create, SOLVED[1]])
    (row,) = grade(path, limits=Limits(seconds=120, memory_gib=1), known=[Lesson(handed_out(tmp_path / "out"))])
    assert row["walls"] == {"network": True, "files": True}
    assert (row["status"], row["right"]) == ("ran", 1)
    assert not (tmp_path / "new").exists()


def test_notebook_that_crashes_the_grader_gets_a_row(tmp_path, monkeypatch):
    hand_in(tmp_path, "ada", [])
    hand_in(tmp_path, "bob", [])
    monkeypatch.setattr(grading, "_grade", Mock(side_effect=[OSError(28, "No space left on device"), None]))
    full, graded = sorted(grade(tmp_path, known=[]), key=lambda row: row["words"], reverse=True)
    assert "No space left" in full["words"]
    assert {full["file"], graded["file"]} == {"ada.ipynb", "bob.ipynb"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_interrupted_grade_ends_the_running_notebook_and_prints_the_others(tmp_path):
    (tmp_path / "ada.ipynb").write_text("no JSON {")
    hand_in(tmp_path, "bob", ["import time\ntime.sleep(600)"])
    options = ["--lesson", handed_out(tmp_path / "solutions"), "--csv", tmp_path / "class.csv", "--json"]
    command, pipe = [sys.executable, "-m", "lora_course", "grade", tmp_path, *options], subprocess.PIPE
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        assert process.stderr.readline().startswith("ada.ipynb: not graded")
        process.send_signal(signal.SIGINT)  # while bob's notebook runs
        output, _ = process.communicate(timeout=30)
        assert [row["file"] for row in json.loads(output)["notebooks"]] == ["ada.ipynb"]
    assert process.returncode == 130
    assert [line["file"] for line in rows_of(tmp_path / "class.csv")] == ["ada.ipynb"]


def test_lessons_are_recognized_by_their_cells_and_have_known_checks(tmp_path):
    known = [Lesson(path) for path in sorted(shipped("notebooks").glob("*.ipynb"))]
    for lesson in known:
        cells = grading.cells_of(shipped(f"notebooks/solutions/{lesson.name}.ipynb"))
        assert grading.recognize("", cells, known) is lesson
        assert lesson.calls, lesson.name
    assert_raises("has no check check_new", Lesson, hand_in(tmp_path, "new", ["checks.check_new(...)"]))


def test_classes_are_judged_by_the_labs_own_check_next_to_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    exercise = "from lora_course.checks.writing import LoRALinear\nLayer = ...\nchecks.check_lora_linear(Layer)"
    lesson = Lesson(hand_in(tmp_path, "99_layer", [exercise], ["exercise"]))
    redefined = "checks.check_lora_linear = lambda layer: print('right')"
    for name, layer in (("right", "LoRALinear"), ("wrong", "lambda base, rank, alpha: LoRALinear(base, rank, rank)")):
        cells = [redefined, "import os\nassert os.environ['FAST'] == ''", exercise.replace("...", layer)]
        hand_in(tmp_path / "handed in", name, cells)
    (tmp_path / "handed in" / "~$class.xlsx").touch()  # Excel locks it on Windows
    monkeypatch.setattr(grading.shutil, "copyfile", Mock(side_effect=PermissionError(13, "Permission denied")))
    rows = grade(tmp_path / "handed in", limits=Limits(full=True), known=[lesson])
    graded = {row["file"]: (verdicts(row), row["errors"]) for row in rows}
    assert graded == {"right.ipynb": (["right"], []), "wrong.ipynb": (["not right"], [])}


@pytest.mark.slow
def test_solved_lessons_are_graded_right():
    rows = list(grade(shipped("notebooks/solutions")))
    assert len(rows) == 20
    assert [row for row in rows if (row["status"], row["right"]) != ("ran", row["of"])] == []


def test_limits_are_numbers_and_empty_path_and_zip_files_are_not_passed_over_in_silence(tmp_path):
    for limits in (Limits(seconds=math.nan), Limits(memory_gib=math.nan)):
        assert_raises("limits", next, grade(tmp_path, limits=limits))
    assert_raises("pass the path of a notebook or folder to grade, not ''", next, grade(""))
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.zip").touch()
    with pytest.warns(LabWarning, match="ada.zip: unzip"), pytest.raises(NotFound, match="no notebook"):
        next(grade(tmp_path))


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(...)
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    plain, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner), max_leaves=12
)


def round_trip(value):
    return unpack(json.loads(json.dumps(pack(value))), lambda place: FUNCTIONS[place])


@given(values)
def test_plain_values_round_trip(value):
    result = round_trip(value)
    assert result == value
    assert type(result) is type(value)


def test_arrays_tensors_frames_and_functions_round_trip():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.arange(6).reshape(2, 3).to(dtype).T.requires_grad_(dtype.is_floating_point)
        assert round_trip(tensor).dtype == dtype
        assert torch.equal(round_trip(tensor), tensor)
        assert round_trip(tensor).requires_grad is tensor.requires_grad
    array, frame = np.arange(6.0).reshape(2, 3)[:, ::2], pd.DataFrame({"lr": [1e-3, 2e-3], "method": ["lora", None]})
    assert np.array_equal(round_trip(array), array)
    pd.testing.assert_frame_equal(round_trip(frame), frame)
    plain = [frame["lr"], np.float32(0.5), np.int64(3), np.bool_(True), Decimal("0.5")]
    assert round_trip(plain) == [[1e-3, 2e-3], 0.5, 3, True, 0.5]
    assert round_trip(len) is len
    assert type(round_trip(object())).__name__ == "object"
