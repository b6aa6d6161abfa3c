"""Tests of the environment that `make` creates, with shell scripts in place of Python."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_start import ROOT, write_program

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and a Python that creates a working environment."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    environment = "mkdir -p .venv/bin\nprintf '#!/bin/sh\\nexit 0\\n' > .venv/bin/python\nchmod +x .venv/bin/python\n"
    write_program(tmp_path / "python", f'echo "$@" >> calls\n{environment}')
    return tmp_path


def make(clone: Path) -> str:
    """Run make and return the calls of the Python outside the environment."""
    done = subprocess.run(["make", ".venv/.lab", "PYTHON=./python"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".lab").is_file()
    return (clone / "calls").read_text() if (clone / "calls").exists() else ""


@pytest.mark.parametrize("broken", [True, False])
def test_broken_or_missing_environment_is_created(clone: Path, broken: bool):
    if broken:
        write_program(clone / ".venv/bin/python", "exit 1")
    assert make(clone) == "-m venv --clear .venv\n"


def test_environment_without_pip_gets_it(clone: Path):
    write_program(clone / ".venv/bin/python", 'case "$*" in *", pip;"*) exit 1 ;; "-m ensurepip") touch pip ;; esac')
    assert make(clone) == ""
    assert (clone / "pip").exists()
