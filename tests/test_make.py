"""The environment that `make` sets up, with programs in the place of Python that only say how they end."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what make reads, and a Python that makes an environment which works."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    environment = "mkdir -p .venv/bin\nprintf '#!/bin/sh\\nexit 0\\n' > .venv/bin/python\nchmod +x .venv/bin/python\n"
    program(tmp_path / "python", f'echo "$@" >> made\n{environment}')
    return tmp_path


def program(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}")
    path.chmod(0o755)


def make(clone: Path) -> str:
    """Set it up, and how the environment was made: "" where it was there."""
    done = subprocess.run(["make", ".venv/.lab", "PYTHON=./python"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".lab").is_file()
    return (clone / "made").read_text() if (clone / "made").exists() else ""


@pytest.mark.parametrize("there", [True, False])
def test_one_that_cannot_get_pip_or_of_an_old_python_is_made_anew_as_is_one_that_is_not_there(clone: Path, there: bool):
    if there:
        program(clone / ".venv/bin/python", "exit 1")  # as `import pip` does, and everything else
    assert make(clone) == "-m venv --clear .venv\n"


def test_one_without_pip_gets_it_and_keeps_what_is_in_it(clone: Path):
    program(clone / ".venv/bin/python", 'case "$*" in *", pip;"*) exit 1 ;; "-m ensurepip") touch pip ;; esac')
    assert make(clone) == ""
    assert (clone / "pip").exists()
