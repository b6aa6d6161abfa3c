import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lora_course.classroom import grading
from lora_course.classroom.grading import Lesson, Limits, grade, in_words
from lora_course.classroom.kernel import FUNCTIONS, pack, unpack
from lora_course.predictions import FILE
from lora_course.receipts import draw
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.assets import shipped
from tests.conftest import needs_bwrap

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
LIMITS = Limits(seconds=120, memory_gib=1)


def hand_in(folder: Path, name: str, exercises: Sequence[str], tags: Sequence[str] = ()) -> Path:
    """Write a student's notebook: a text, a given cell, and exercises."""
    solved = [new_code_cell(source, metadata={"tags": list(tags)}) for source in exercises]
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell(TEXT), new_code_cell(SETUP), *solved]), path)
    return path


def handed_out(folder: Path) -> Path:
    return hand_in(folder, "99_small", OPEN, ["exercise"])


HOSTILE_CELLS = {  # each with the error that it ends in
    "checks.check_rank_of_file = lambda answer: 'right: yes'\nprint('right: yes')": None,
    "import lora_course.checks.verdict as v\nv.Number.judge = lambda *a: v.Verdict(True, '')": None,
    "this is no Python": "SyntaxError",
    "1 / 0": "ZeroDivisionError",
    "import sys\nsys.exit()": "SystemExit",
    "def again():\n    again()\nagain()": "RecursionError",
    "raise type('=1+1\\x1b[2J', (Exception,), {})": "=1+1\x1b[2J",
    "import os\nos.environ['HF_TOKEN']": "KeyError",
    "assert open('mine.txt').read() == 'b'": None,
    "open('other.ipynb')": "FileNotFoundError",
    "from lora_course.lesson import draw, predict, reveal\npredict('fewer', 10, 300)\nreveal('fewer', 256)": None,
    "assert draw('rank', *range(1000)) == DRAWN": None,
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
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Grade a class and return its rows by student."""
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
    for name in ("random.py", "json.py", ".home"):  # a helper's unlucky name breaks no kernel
        (folder / "ada" / name).write_text("raise SystemExit")
    (folder / "ada" / FILE).write_text(json.dumps({"student": "Ada"}))
    wrong = OPEN[0].replace("...", "return p").partition("\n\n\n")[0]  # without the call to its check
    hand_in(folder, "ada/other", [wrong, OPEN[1], "pair = 4224", 'checks.check_stranger("A", 1)'])
    hand_in(folder, "max/mine", [SOLVED[0], "import os\nos._exit(0)", SOLVED[1]])
    large = "import mmap\nkept = mmap.mmap(-1, 2**31)\nfor place in range(0, 2**31, 4096):\n    kept[place] = 1"
    hand_in(folder, "mia/mine", [SOLVED[0], "kept = [bytes(2**27) for _ in range(40)]", SOLVED[1], large, SOLVED[3]])
    fork = "import ctypes, time\nfor _ in range(4):\n    ctypes.PyDLL(None).fork()\ntime.sleep(60)"  # bypasses the hook
    hand_in(folder, "tim/mine", [SOLVED[0], fork])
    for name, content in (("zoe", "no JSON {"), ("zoe2", '{"cells": 3}'), ("zoe3", '{"cells": [], "nbformat": 4}')):
        (folder / f"{name}.ipynb").write_text(content)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "secret")
        graded = list(grade(folder, limits=LIMITS, known=[Lesson(handed_out(top))], jobs=2))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]
    assert kept.read_text() == "kept"
    return {row["file"].removesuffix(".ipynb").removesuffix("/mine"): row for row in graded}


def verdicts(row: dict[str, Any]) -> list[str]:
    return [check["verdict"] for check in row["checks"]]


def test_each_notebook_is_graded_on_its_own(rows: dict[str, dict[str, Any]]):
    assert {name: (row["status"], verdicts(row)) for name, row in rows.items()} == {
        "ada": ("ran", ["right"] * 4),
        "ada/other": ("ran", ["not right", "not yet", "right", "absent"]),  # the grader makes missing calls itself
        "max": ("left", ["right", "absent", "absent", "absent"]),
        "mia": ("memory", ["right", "right", "absent", "absent"]),
        "tim": ("programs", ["right", "absent", "absent", "absent"]),
        "zoe": ("unreadable", []),
        "zoe2": ("unreadable", []),
        "zoe3": ("unknown", []),
    }
    assert [check["calls"] for check in rows["ada"]["checks"]] == [1, 2, 1, 1]
    assert rows["max"]["words"] == "its process exited by itself in code cell 3"
    assert "in code cell 5: it used more than 1 GiB" in rows["mia"]["words"]
    assert [error["type"] for error in rows["mia"]["errors"]] == ["MemoryError"]


@pytest.mark.skipif(sys.platform == "win32", reason="the cells are written for POSIX")
def test_failing_and_refused_cells_are_reported_and_the_rest_is_graded(rows: dict[str, dict[str, Any]]):
    row = rows["ada"]
    first = 1 + len(SOLVED)
    expected = {first + number: error for number, error in enumerate(HOSTILE_CELLS.values()) if error}
    assert {error["cell"]: error["type"] for error in row["errors"]} == expected
    assert len(row["refused"]) == 6
    assert row["refused"][0].startswith("write ")
    (prediction,) = row["predictions"]
    assert [prediction[name] for name in ("student", "lesson", "low", "fast")] == ["Ada", "mine", 10, True]


def test_student_texts_are_no_formulas_or_terminal_commands(rows: dict[str, dict[str, Any]]):
    row = {**rows["ada"], "file": "=HYPERLINK('x').ipynb", "refused": ["write \x1b[2J"]}
    line = grading.table([row]).splitlines()[1]
    assert line.startswith("'=HYPERLINK")
    assert "\x1b" not in line + in_words(row)


def test_notebooks_are_stopped_after_their_time(tmp_path: Path):
    wait = "__import__('time').sleep(60)"
    hand_in(tmp_path / "class", "cell", [SOLVED[1], wait])
    hand_in(tmp_path / "class", "function", [SOLVED[1], OPEN[0].replace("...", wait)])  # called by the grader
    known = [Lesson(handed_out(tmp_path))]
    for row in grade(tmp_path / "class", limits=Limits(seconds=4, memory_gib=1), known=known, jobs=2):
        assert (row["status"], verdicts(row)) == ("time", ["absent", "right", "absent", "absent"])
        assert row["words"] == "stopped in code cell 3 after 4 s"


@needs_bwrap
def test_bubblewrap_stops_code_that_bypasses_python(tmp_path: Path):
    create = f"import ctypes\nctypes.CDLL(None).creat({str(tmp_path / 'new').encode()!r}, 0o600)"
    path = hand_in(tmp_path, "eve", [create, SOLVED[1]])
    (row,) = grade(path, limits=LIMITS, known=[Lesson(handed_out(tmp_path / "out"))])
    assert row["walls"] == {"network": True, "files": True}
    assert (row["status"], row["right"]) == ("ran", 1)
    assert not (tmp_path / "new").exists()


def test_notebook_that_crashes_the_grader_gets_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("ada", "bob", "eve"):
        hand_in(tmp_path, name, [])

    def fail_on_bob(notebook: Path, *_: object) -> None:
        if notebook.stem == "bob":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(grading, "_grade", fail_on_bob)
    rows = {row["file"][:3]: row for row in grade(tmp_path, known=[])}
    assert rows.keys() == {"ada", "bob", "eve"}
    assert "No space left" in rows["bob"]["words"]
    with pytest.raises(NotFound, match="there is no notebook"):
        next(grade(tmp_path / "nowhere", known=[]))


def test_lessons_are_recognized_by_their_cells_and_have_known_checks(tmp_path: Path):
    known = [Lesson(path) for path in sorted(shipped("notebooks").glob("*.ipynb"))]
    for lesson in known:
        cells = grading.cells_of(shipped(f"notebooks/solutions/{lesson.name}.ipynb"))
        assert grading.recognize("", cells, known) is lesson
        assert lesson.calls, lesson.name
    with pytest.raises(BadValue, match="has no check check_new"):
        Lesson(hand_in(tmp_path, "new", ["checks.check_new(...)"]))


# ---- values sent between the grader and a notebook

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(...)
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    plain, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner), max_leaves=12
)


def round_trip(value: Any) -> Any:
    return unpack(json.loads(json.dumps(pack(value))), lambda place: FUNCTIONS[place])


@given(values)
def test_plain_values_round_trip(value: Any):
    result = round_trip(value)
    assert result == value
    assert type(result) is type(value)


def test_arrays_tensors_frames_and_functions_round_trip():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.arange(6).reshape(2, 3).to(dtype).T.requires_grad_(dtype.is_floating_point)
        assert round_trip(tensor).dtype == dtype
        assert torch.equal(round_trip(tensor), tensor.detach())
    array, frame = np.arange(6.0).reshape(2, 3)[:, ::2], pd.DataFrame({"lr": [1e-3, 2e-3], "method": ["lora", None]})
    assert np.array_equal(round_trip(array), array)
    pd.testing.assert_frame_equal(round_trip(frame), frame)
    assert round_trip([frame["lr"], np.float32(0.5), np.int64(3), np.bool_(True)]) == [[1e-3, 2e-3], 0.5, 3, True]
    assert round_trip(len) is len
    assert type(round_trip(object())).__name__ == "object"
