import re

import nbformat
import pytest

from lora_course.classroom.room import number
from lora_course.lesson import estimate
from lora_lab.kernels import forked_kernels
from tests.notebooks import build, measure, memory

SOURCES = build.lessons()


def test_consecutive_prints_are_joined_into_one_output(tmp_path):
    code = "import sys\nfor n in 1, 2:\n    print(n, flush=True); print('x', file=sys.stderr, flush=True)\n"
    cell = nbformat.v4.new_code_cell(code + "display('a picture')\nprint(3)")
    (executed,) = build.execute(nbformat.v4.new_notebook(cells=[cell]), str(tmp_path)).cells
    assert [output.get("text") for output in executed.outputs] == ["1\n2\n", None, "3\n"]


def test_build_refuses_an_unknown_lesson():
    assert [number(source.stem) for source in build.chosen(["11", "10"])] == ["11", "10"]
    assert build.chosen([]) == SOURCES
    with pytest.raises(SystemExit, match=r"no lesson begins with '99'; there are .*10_why_low_rank"):
        build.chosen(["11", "99"])


@pytest.mark.parametrize("script", [build, measure, memory], ids=lambda script: script.__name__)
def test_scripts_explain_themselves_and_refuse_unknown_options(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "chosen", lambda prefixes: pytest.fail("lessons would run"))
    for option, code in (("--help", 0), ("--no-rum", 2), ("--f", 2)):
        with pytest.raises(SystemExit) as end:
            script.main(["01", option])
        assert end.value.code == code
    output = capsys.readouterr()
    assert script.__doc__.splitlines()[0] in output.out
    assert "unrecognized arguments: --no-rum" in output.err


@pytest.fixture(scope="module")
def kernels():
    """JUPYTER_PATH for forked kernels, which the lab uses too."""
    with forked_kernels() as environment:
        yield environment.get("JUPYTER_PATH", "")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("solved", [pytest.param(False, marks=pytest.mark.slow), True], ids=["unsolved", "solved"])
def test_lesson_runs(source, solved, kernels, tmp_path, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    monkeypatch.setenv("JUPYTER_PATH", kernels)
    notebook = build.execute(build.built(source, solved=solved, claims=solved), str(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output["data"].get("text/plain", "") for output in outputs if "data" in output]
    verdicts = [text for text in texts if re.match(r"(right|not right|not yet): ", text)]
    assert len(verdicts) == sum("check_" in cell.source.splitlines()[-1] for cell in notebook.cells if cell.source)
    assert all(verdict.startswith("right: " if solved else "not yet: ") for verdict in verdicts)


@pytest.mark.parametrize("solved", [False, True], ids=["unsolved", "solved"])
def test_notebooks_match_their_sources(solved: bool):
    for source in SOURCES:
        file, fresh = build.target(source, solved=solved), build.built(source, solved=solved)
        on_disk, text = nbformat.read(file, 4), file.read_text(encoding="utf-8")
        assert [(c.cell_type, c.source) for c in on_disk.cells] == [(c.cell_type, c.source) for c in fresh.cells]
        nbformat.validate(on_disk)
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), f"{file} shows a path of the machine that built it"
        filled = any(cell.get("outputs") for cell in on_disk.cells)
        assert filled is solved, f"{file}: run `make notebooks`; only solved notebooks have outputs"
        outputs = [output.get("data", {}) for cell in on_disk.cells for output in cell.get("outputs", [])]
        figures = [data for data in outputs if "<Figure" in data.get("text/plain", "")]
        assert all("image/png" in data for data in figures), f"{file}: a figure is missing"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_lesson_keeps_its_limits(source):
    """Check length, exercises, folded answers, and minutes: 25 for a core lesson (00 to 09), or 45 for an elective."""
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
    assert "```python" in text.partition("<summary>Answer box</summary>")[2]  # the lesson in PEFT
    calls = " ".join(call for cell in exercises for call in re.findall(r"check_\w+(\(.*\))", cell.source))
    others = "\n".join(cell.source for cell in cells if cell.cell_type == "code" and cell not in exercises)
    judged = [name for name in set(re.findall(r"\w+", calls)) if re.search(rf"^{name} = .*_or_ours\(", others, re.M)]
    assert not judged, "the grader would take our solution for the student's"
    assert not any("assert " in cell for cell in code)  # an `assert` would give away the answer
    with_claims = build.built(source, solved=True, claims=True).cells
    assert sum(cell.source.count("assert ") for cell in with_claims if cell.cell_type == "code") >= 3
    assert f'lesson.start("{number(source.stem)}")' in code[0]
    assert code[-1].strip().endswith("lesson.receipt()")
    _, minutes, machine = estimate(build.target(source, solved=False))
    assert machine is not None, "run python notebooks/measure.py"
    assert minutes <= (25 if source.stem < "10" else 45)
