"""Every lesson runs, solved and unsolved, and the built notebooks are those of the sources."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from lora_course.classroom.room import number
from lora_course.lesson import estimate
from lora_lab.kernels import forked_kernels
from tests.notebooks import build

SOURCES = build.lessons()
both_ways = pytest.mark.parametrize(
    "solved", [pytest.param(False, marks=pytest.mark.slow, id="unsolved"), pytest.param(True, id="solved")]
)


def words_of(notebook: nbformat.NotebookNode) -> list[str]:
    """The plain-text results of all cells."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"].get("text/plain", "") for output in outputs if "data" in output]


def test_what_is_printed_in_a_row_is_one_block_and_a_picture_keeps_its_place(tmp_path):
    said = "import sys\nfor n in 1, 2:\n    print(n, flush=True); print('x', file=sys.stderr, flush=True)\n"
    cell = nbformat.v4.new_code_cell(said + "display('a picture')\nprint(3)")
    (done,) = build.execute(nbformat.v4.new_notebook(cells=[cell]), str(tmp_path)).cells
    assert [one.get("text") for one in done.outputs] == ["1\n2\n", None, "3\n"]


def test_a_beginning_that_no_lesson_has_is_said_and_builds_nothing():
    assert [number(source.stem) for source in build.chosen(["--no-run", "11", "10"])] == ["11", "10"]
    assert build.chosen(["--no-run"]) == SOURCES
    with pytest.raises(SystemExit, match=r"no lesson begins with '99'; there are .*10_why_low_rank"):
        build.chosen(["11", "99"])


@pytest.fixture(scope="module")
def kernels() -> Iterator[str]:
    """The value of JUPYTER_PATH for kernels that start at once, as in the lab."""
    with forked_kernels() as environment:
        yield environment.get("JUPYTER_PATH", "")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@both_ways
def test_a_lesson_runs_from_top_to_bottom(source: Path, solved: bool, kernels: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    monkeypatch.setenv("JUPYTER_PATH", kernels)
    notebook = build.execute(build.built(source, solved=solved, claims=solved), str(tmp_path))
    verdicts = [w for w in words_of(notebook) if re.match(r"(right|not right|not yet): ", w)]
    assert len(verdicts) == sum("check_" in cell.source.splitlines()[-1] for cell in notebook.cells if cell.source)
    assert all(v.startswith("right: " if solved else "not yet: ") for v in verdicts)


@pytest.mark.parametrize("solved", [False, True], ids=["unsolved", "solved"])
def test_the_built_notebooks_are_those_of_their_sources(solved: bool):
    for source in SOURCES:
        file, fresh = build.target(source, solved=solved), build.built(source, solved=solved)
        on_disk, text = nbformat.read(file, 4), file.read_text(encoding="utf-8")
        assert [(c.cell_type, c.source) for c in on_disk.cells] == [(c.cell_type, c.source) for c in fresh.cells]
        nbformat.validate(on_disk)
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), f"{file} shows a place on the machine that made it"
        filled = any(cell.get("outputs") for cell in on_disk.cells)
        assert filled is solved, f"{file}: run make notebooks: solved notebooks have outputs, exercises have none"
        outputs = [output.get("data", {}) for cell in on_disk.cells for output in cell.get("outputs", [])]
        figures = [data for data in outputs if "Figure" in data.get("text/plain", "")]
        assert all("image/png" in data for data in figures), f"{file}: a picture is not shown"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_lesson_keeps_its_time_and_its_answers_to_itself(source: Path):
    """A core lesson, 00 to 09, takes 25 minutes, an elective 45."""
    cells = build.built(source, solved=True).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    exercises = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    assert len(text.split()) <= 900
    assert len(cells) <= 18
    assert 1 <= len(exercises) <= 2
    assert 1 <= sum(cell.count("lesson.predict(") for cell in code) <= 3
    assert max(len([line for line in cell.splitlines() if line.strip()]) for cell in code) <= 15
    folded = re.findall(r"<details>\s*<summary>(.*?)</summary>.*?</details>", text, re.DOTALL)
    assert len(folded) == text.count("<details>") >= 2
    assert folded[-1] == "Answer box"
    assert "```python" in text.partition("<summary>Answer box</summary>")[2]  # the same in PEFT
    assert not any("assert " in cell for cell in code)  # a claim would give away what a reader is asked to predict
    asserted = build.built(source, solved=True, claims=True).cells
    assert sum(cell.source.count("assert ") for cell in asserted if cell.cell_type == "code") >= 3
    assert f'lesson.start("{number(source.stem)}")' in code[0]
    assert code[-1].strip().endswith("lesson.receipt()")
    _, minutes, machine = estimate(build.target(source, solved=False))
    assert machine is not None  # else: python notebooks/measure.py
    assert minutes <= (25 if source.stem < "10" else 45)
