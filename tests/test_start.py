"""start.sh, for those without make: what it would do, in its dry mode, and that it stops with a sentence."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="start.ps1 is for Windows")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the script alone, and a Python that is new enough, by its own word."""
    folder = tmp_path / "Mein Labor für LoRA"
    folder.mkdir()
    shutil.copy(ROOT / "start.sh", folder)
    fake(tmp_path, "python3.12", code=0)
    return folder


def fake(folder: Path, name: str, code: int) -> None:
    """A program that ends with a code, whatever it is told."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\nexit {code}\n")
    (folder / "bin" / name).chmod(0o755)


def start(clone: Path, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = clone.parent / "bin"
    for tool in ("sh", "dirname", "touch", "uname"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(shutil.which(tool) or tool)
    command, environment = ["sh", str(clone / "start.sh"), *words], {"PATH": str(tools), **environment}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def test_without_a_wheelhouse_pips_index_is_asked(clone: Path):
    assert start(clone, "--dry-run", "demo", "--steps", "9").stdout.splitlines() == [
        "would run: python3.12 -m venv --clear .venv",
        "would run: .venv/bin/python -m pip install --disable-pip-version-check -q -e .",
        "would run: touch .venv/.lab",
        "would run: .venv/bin/python -m lora_course fetch",
        "would run: .venv/bin/python -m lora_course demo --steps 9",
    ]
    assert [path.name for path in clone.iterdir()] == ["start.sh"]  # dry is dry


def wheelhouse(folder: Path, *locks: str) -> Path:
    folder.mkdir()
    for name in ("install.py", *locks):
        (folder / name).write_text("")
    return folder


def installed_from(place: str | Path, python: str = "python3.12") -> list[str]:
    return [
        f"would run: {python} {place}/install.py --to . --no-assets",
        f"would run: .venv/bin/python -m lora_course fetch --from {place}/assets",
        "would run: .venv/bin/python -m lora_course",
    ]


def test_a_wheelhouse_within_or_beside_is_installed_from(clone: Path):
    for place in ("../wheelhouse", "wheelhouse"):
        wheelhouse(clone / place)
        assert start(clone, "--dry-run").stdout.splitlines() == installed_from(place)


def test_a_wheelhouse_is_named_as_seen_from_where_it_is_typed(clone: Path, tmp_path: Path):
    house = wheelhouse(tmp_path / "Räder für alle")
    for named in (str(house), house.name):
        done = start(clone, "--dry-run", cwd=tmp_path, LORA_LAB_WHEELHOUSE=named)
        assert done.stdout.splitlines() == installed_from(house)


def test_a_named_folder_that_is_no_wheelhouse_is_said_and_no_network_asked(clone: Path, tmp_path: Path):
    wheelhouse(clone / "wheelhouse")
    done = start(clone, "--dry-run", cwd=tmp_path, LORA_LAB_WHEELHOUSE="stick")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"LORA_LAB_WHEELHOUSE is {tmp_path}/stick, which holds no install.py" in done.stderr


def test_the_python_is_one_that_the_wheelhouse_is_for(clone: Path):
    kind, other = ("macos-arm64", "linux") if os.uname().sysname == "Darwin" else ("linux", "macos-arm64")
    wheelhouse(clone / "wheelhouse", f"{kind}-3.12.txt", f"{other}-3.13.txt", "windows-3.11.txt")
    for there in ("python3.11", "python3.13"):
        fake(clone.parent, there, code=0)
        assert start(clone, "--dry-run").stdout.splitlines() == installed_from("wheelhouse")
        assert start(clone, "--dry-run", PYTHON=there).stdout.splitlines() == installed_from("wheelhouse", there)


def test_an_environment_that_works_is_kept_one_without_pip_gets_it_and_else_one_is_made_anew(clone: Path):
    (clone / ".venv" / "bin").mkdir(parents=True)
    for code in (0, 1):
        fake(clone / ".venv", "python", code)
        assert ("would run: python3.12 -m venv --clear .venv" in start(clone, "--dry-run").stdout) == bool(code)
    (clone / ".venv/bin/python").write_text('#!/bin/sh\ncase "$*" in *", pip;"*) exit 1 ;; esac')
    made = start(clone, "--dry-run").stdout
    assert made.startswith("would run: .venv/bin/python -m ensurepip\n")
    assert "--clear" not in made


def test_a_python_that_is_too_old_is_passed_over_and_none_at_all_is_said(clone: Path):
    fake(clone.parent, "python3.11", code=1)
    assert "python3.12 -m venv" in start(clone, "--dry-run").stdout
    (clone.parent / "bin" / "python3.12").unlink()
    done = start(clone, "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs Python 3.11 to 3.14" in done.stderr


def test_a_step_that_fails_ends_it(clone: Path):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / ".lab").write_text("")
    fake(clone / ".venv", "python", code=7)
    assert start(clone).returncode == 7
