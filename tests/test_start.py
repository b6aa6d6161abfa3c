"""start.sh, for those without make: what it would do, in its dry mode, and that it stops with a sentence."""

from __future__ import annotations

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


def start(clone: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = clone.parent / "bin"
    for tool in ("sh", "dirname", "touch"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(shutil.which(tool) or tool)
    return subprocess.run(
        ["sh", str(clone / "start.sh"), *words], env={"PATH": str(tools), **environment}, capture_output=True, text=True
    )


def test_without_a_wheelhouse_pips_index_is_asked(clone: Path):
    assert start(clone, "--dry-run", "demo", "--steps", "9").stdout.splitlines() == [
        "would run: python3.12 -m venv .venv",
        "would run: .venv/bin/python -m pip install --disable-pip-version-check -q -e .",
        "would run: touch .venv/.lab",
        "would run: .venv/bin/python -m lora_lab fetch",
        "would run: .venv/bin/python -m lora_lab demo --steps 9",
    ]
    assert [path.name for path in clone.iterdir()] == ["start.sh"]  # dry is dry


@pytest.mark.parametrize("place", ["wheelhouse", "../wheelhouse", "../Räder für alle"])
def test_a_wheelhouse_within_beside_or_named_is_installed_from(clone: Path, place: str):
    house = clone / place
    house.mkdir()
    (house / "install.py").write_text("")
    named = {} if "wheelhouse" in place else {"LORA_LAB_WHEELHOUSE": place}
    assert start(clone, "--dry-run", **named).stdout.splitlines() == [
        f"would run: python3.12 {place}/install.py --to . --no-assets",
        f"would run: .venv/bin/python -m lora_lab fetch --from {place}/assets",
        "would run: .venv/bin/python -m lora_lab",
    ]


def test_what_is_set_up_is_only_opened(clone: Path):
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".lab").write_text("")
    assert start(clone, "--dry-run").stdout.splitlines() == [
        "would run: .venv/bin/python -m lora_lab fetch",
        "would run: .venv/bin/python -m lora_lab",
    ]


def test_a_python_that_is_too_old_is_passed_over_and_none_at_all_is_said(clone: Path):
    fake(clone.parent, "python3.11", code=1)
    assert "python3.12 -m venv" in start(clone, "--dry-run").stdout
    (clone.parent / "bin" / "python3.12").unlink()
    done = start(clone, "--dry-run")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "needs Python 3.11 or newer" in done.stderr


def test_a_step_that_fails_ends_it(clone: Path):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / ".lab").write_text("")
    fake(clone / ".venv", "python", code=7)
    assert start(clone).returncode == 7
