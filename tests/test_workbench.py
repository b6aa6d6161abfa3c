"""The lessons in the user's folder, the server on this machine alone, and a wheel that brings all of it along."""

import json
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

from lora_lab import workbench
from lora_lab.errors import BadValue, Failed
from lora_lab.machine import free_port
from lora_lab.training import assets

ROOT = Path(__file__).parents[1]


def lesson(words: str) -> str:
    """A notebook of one cell that has been run."""
    cell = {"cell_type": "code", "source": [words], "outputs": [{"text": "42"}], "execution_count": 1}
    return json.dumps({"cells": [cell], "nbformat": 4})


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of lessons as it would ship."""
    folder = tmp_path / "shipped"
    (folder / "solutions").mkdir(parents=True)
    (folder / "00_start_here.ipynb").write_text(lesson("version 1"))
    (folder / "solutions" / "00_start_here.ipynb").write_text("solved 1")
    monkeypatch.setattr(workbench, "shipped", lambda path: folder)
    return folder


def test_lessons_come_without_results_and_solutions_with_them_and_a_second_time_nothing_happens(source, tmp_path):
    (source / "solutions" / "00_start_here.ipynb").write_text(lesson("solved"))
    mine = tmp_path / "mine"
    assert workbench.copy_lessons(mine) == []
    (cell,) = json.loads((mine / "00_start_here.ipynb").read_text())["cells"]
    assert (cell["source"], cell["outputs"], cell["execution_count"]) == (["version 1"], [], None)
    assert "42" in (mine / "solutions" / "00_start_here.ipynb").read_text()
    before = (mine / "00_start_here.ipynb").stat().st_mtime_ns
    assert workbench.copy_lessons(mine) == []
    assert (mine / "00_start_here.ipynb").stat().st_mtime_ns == before


def test_a_students_work_is_never_overwritten(source: Path, tmp_path: Path):
    mine = tmp_path / "mine"
    workbench.copy_lessons(mine)
    (mine / "00_start_here.ipynb").write_text("version 1 with my answers")
    (source / "00_start_here.ipynb").write_text(lesson("version 2"))
    (source / "solutions" / "00_start_here.ipynb").write_text("solved 2")
    words = workbench.copy_lessons(mine)
    assert (mine / "00_start_here.ipynb").read_text() == "version 1 with my answers"
    assert (mine / "solutions" / "00_start_here.ipynb").read_text() == "solved 2"  # untouched, so brought up to date
    assert len(words) == 1
    assert "kept with your changes" in words[0]
    (mine / workbench.COPIED).unlink()  # a file that was there before is the user's too
    workbench.copy_lessons(mine)
    assert (mine / "00_start_here.ipynb").read_text() == "version 1 with my answers"


def test_a_taken_port_is_passed_over_and_many_taken_ports_are_said(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert free_port(port) > port
    monkeypatch.setattr(socket.socket, "bind", lambda *a: (_ for _ in ()).throw(OSError()))
    with pytest.raises(BadValue, match="all in use"):
        free_port(8888)


def test_the_server_listens_on_this_machine_alone_behind_a_token(source, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "forked_kernels", lambda: nullcontext({}))
    monkeypatch.setattr(subprocess, "Popen", started := Mock(side_effect=Failed("not here")))
    with pytest.raises(Failed, match="not here"):
        workbench.open_lab(str(tmp_path / "mine"), port=8888, browser=False, check=False, say=print)
    command, token = " ".join(started.call_args.args[0]), started.call_args.kwargs["env"]["JUPYTER_TOKEN"]
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "token" not in command  # every user of a machine can read command lines
    assert len(token) == 32
    assert token not in command
    assert "--no-browser" in command


def test_doctor_says_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workbench, "problem_with", lambda name: "is missing" if name == "tweets" else "")
    monkeypatch.setattr(Path, "home", lambda: Path("/"))  # as in a container, for a user without one
    facts = workbench.examine()
    assert facts["home"] == f"~{assets.home()}"
    assert facts["assets"]["minilm"]["ok"] is True
    assert facts["assets"]["tweets"]["ok"] is False
    assert re.search(r"tweets +is missing; run: lora-lab fetch --tweets", workbench.describe(facts))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel, built from the source archive of this clone and unpacked elsewhere, without network."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return site


def test_a_wheel_holds_lessons_and_lock_and_nothing_private(installed: Path):
    (wheel,) = installed.parent.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "lora_lab/shipped/data/assets.txt" in names
    assert "lora_lab/shipped/notebooks/10_why_low_rank.ipynb" in names
    assert "lora_course/classroom/stick/install.sh" in names
    assert not [n for n in names if "runs/" in n or "checkpoints" in n or n.startswith("tests/")]


def test_the_installed_wheel_opens_the_lessons(installed: Path, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import lora_lab; print(lora_lab.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert str(installed) in found.stdout  # the wheel's, not the clone's
    command = [sys.executable, "-m", "lora_lab", "lab", "--check", "--dir", "my lessons"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "it answers and serves the first lesson" in done.stderr
    assert (tmp_path / "my lessons" / "10_why_low_rank.ipynb").is_file()


def test_the_installed_lab_finds_the_course_by_its_entry_points(installed: Path, tmp_path: Path):
    """GLUE's files are the course's to read, and so are claims to judge."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    code = "from lora_lab import load_task; load_task('glue:nothing:.')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "NotFound: GLUE has no task 'nothing'" in done.stderr
    script = [sys.executable, str(next(installed.glob("[bS]*/lora-lab*"))), "claims", "gpt3_memory", "--help"]
    assert "verdict" in subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
