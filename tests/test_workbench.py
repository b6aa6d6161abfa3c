import os
import re
import socket
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_course.classroom.preflight import run_python
from lora_lab import workbench
from lora_lab.errors import Failed
from lora_lab.machine import free_port, jupyter_app
from lora_lab.training import assets
from tests.conftest import ROOT, assert_raises


def test_files_of_a_user_do_not_hide_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "types.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path)
    assert run_python("import types; print('found')") == "found\n"
    command = [*jupyter_app("jupyterlab.labapp"), "--version"]
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lesson and its solution, in place of those that ship."""
    folder = tmp_path / "shipped" / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    (folder.parent / "docs").mkdir()
    (folder.parent / "docs" / "glossary.md").write_text("words")
    (folder / "00_start_here.ipynb").write_text("version 1")
    (folder / "solutions" / "00_start_here.ipynb").write_text("solved 1")
    monkeypatch.setattr(workbench, "shipped", lambda path: folder)
    return folder


def test_lessons_are_copied_once_and_changed_ones_not_overwritten(shipped: Path, tmp_path: Path):
    copy = tmp_path / "mine" / "00_start_here.ipynb"
    assert workbench.copy_lessons(copy.parent) == []
    assert "version 1" in copy.read_text()
    assert "solved 1" in (copy.parent / "solutions" / copy.name).read_text()
    assert (copy.parent / "docs" / "glossary.md").read_text() == "words"  # JupyterLab finds ../docs of its root there
    modified = copy.stat().st_mtime_ns
    assert workbench.copy_lessons(copy.parent) == []
    assert copy.stat().st_mtime_ns == modified
    copy.write_text("version 1 with my answers")
    (shipped / copy.name).write_text("version 2")
    (shipped / "solutions" / copy.name).write_text("solved 2")
    (notice,) = workbench.copy_lessons(copy.parent)
    assert "kept with your changes" in notice
    assert copy.read_text() == "version 1 with my answers"
    assert (copy.parent / "solutions" / copy.name).read_text() == "solved 2"  # an unchanged copy is updated
    (copy.parent / workbench.COPIED).unlink()  # without the record, every file counts as the user's
    workbench.copy_lessons(copy.parent)
    assert copy.read_text() == "version 1 with my answers"


def test_used_port_is_skipped(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port = used.getsockname()[1]
        assert free_port(port) > port
    monkeypatch.setattr(socket.socket, "bind", Mock(side_effect=OSError))
    assert_raises("all in use", free_port, 8888)


def test_server_is_local_and_needs_a_token(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "forked_kernels", lambda: nullcontext({}))
    monkeypatch.setattr(subprocess, "Popen", popen := Mock(side_effect=Failed("not here")))
    with pytest.raises(Failed, match="not here"):
        workbench.open_lab(str(tmp_path / "mine"), port=8888, browser=False, check=False, say=print)
    command, token = " ".join(popen.call_args.args[0]), popen.call_args.kwargs["env"]["JUPYTER_TOKEN"]
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--no-browser" in command
    assert "token" not in command  # all users of a machine can read command lines
    assert len(token) == 32
    assert token not in command


def test_interrupt_before_the_server_answers_stops_it(monkeypatch):
    monkeypatch.setattr(workbench.time, "sleep", Mock(side_effect=KeyboardInterrupt))
    server = Mock()
    server.poll.return_value = None
    monkeypatch.setattr(subprocess, "Popen", Mock(return_value=server))
    with pytest.raises(KeyboardInterrupt), workbench.serving("Voila", [], {}, free_port(0), print, "", quiet=True):
        pass
    server.terminate.assert_called_once()


def test_doctor_names_what_is_missing_and_the_fix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workbench, "problem_with", lambda name: "is missing" if name == "tweets" else "")
    monkeypatch.setattr(Path, "home", lambda: Path("/"))  # as in a container that has no user account
    facts = workbench.examine()
    assert facts["home"] == f"~{assets.home()}"
    assert facts["assets"]["minilm"]["ok"] is True
    assert facts["assets"]["tweets"]["ok"] is False
    assert re.search(r"tweets +is missing; run: lora-lab fetch --tweets", workbench.describe(facts))


def test_installed_wheel_serves_the_lessons_and_finds_the_course(tmp_path: Path):
    """The wheel is built from the source archive. The course, found by its entry points, adds tasks and commands."""

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        env, arguments = {**os.environ, "PYTHONPATH": str(installed)}, [sys.executable, *map(str, command)]
        return subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)

    built, installed = tmp_path / "built", tmp_path / "installed"
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", installed, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "lora_lab/shipped/data/assets.txt", "lora_lab/shipped/notebooks/10_why_low_rank.ipynb",
        "lora_course/classroom/stick/install.sh",
    } <= set(names)  # fmt: skip
    assert not [n for n in names if "runs/" in n or "checkpoints" in n or n.startswith("tests/")]
    done = run("-m", "lora_lab", "lab", "--check", "--dir", "my lessons")
    assert done.returncode == 0, done.stderr
    assert "the server responds and serves the first lesson" in done.stderr
    assert (tmp_path / "my lessons" / "10_why_low_rank.ipynb").is_file()
    done = run("-c", "import lora_lab; print(lora_lab.__file__); lora_lab.load_task('glue:nothing:.')")
    assert str(installed) in done.stdout  # not the clone
    assert "NotFound: GLUE has no task 'nothing'" in done.stderr
    assert "verdict" in run(next(installed.glob("[bS]*/lora-lab*")), "claims", "gpt3_memory", "--help").stdout
