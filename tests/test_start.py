import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="start.ps1 is for Windows")


@pytest.fixture
def clone(tmp_path):
    """A folder with the script, next to a folder of programs that includes python3.12."""
    folder = tmp_path / "Mein Labor für LoRA"
    folder.mkdir()
    shutil.copy(ROOT / "start.sh", folder)
    write_program(tmp_path / "bin" / "python3.12")
    for tool in ("sh", "dirname", "touch", "uname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return folder


def write_program(path, script: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def start(clone, *arguments: str, cwd=None, **env: str) -> subprocess.CompletedProcess[str]:
    script, env = os.path.relpath(clone / "start.sh", cwd), {"PATH": str(clone.parent / "bin"), **env}
    return subprocess.run(["sh", script, *arguments], env=env, cwd=cwd, capture_output=True, text=True)


def write_wheelhouse(folder, *locks: str):
    folder.mkdir()
    for name in ("install.py", *locks):
        (folder / name).write_text("")
    return folder


def offline_steps(wheelhouse, python: str = "python3.12") -> list[str]:
    return [
        f"would run: {python} {wheelhouse}/install.py --to . --no-assets",
        f"would run: .venv/bin/python -m lora_course fetch --from {wheelhouse}/assets",
        "would run: .venv/bin/python -m lora_course",
    ]


def test_without_a_wheelhouse_pip_is_used_in_the_folder_of_the_script(clone, tmp_path):
    assert start(clone, "--dry-run", "demo", "--steps", "9").stdout.splitlines() == [
        "would run: python3.12 -m venv --clear .venv",
        "would run: .venv/bin/python -m pip install --disable-pip-version-check -q -e .",
        "would run: touch .venv/.lab",
        "would run: .venv/bin/python -m lora_course fetch",
        "would run: .venv/bin/python -m lora_course demo --steps 9",
    ]
    assert [path.name for path in clone.iterdir()] == ["start.sh"]
    (tmp_path / "other" / clone.name).mkdir(parents=True)
    done = start(clone, "--dry-run", cwd=tmp_path, CDPATH="other")
    assert done.stdout.startswith("would run: ")  # not after changing to the other folder


def test_wheelhouse_is_named_or_inside_or_beside_and_another_folder_is_refused(clone, tmp_path):
    wheelhouse = write_wheelhouse(tmp_path / "Räder für alle")
    for name in (str(wheelhouse), wheelhouse.name):  # relative to the current folder
        done = start(clone, "--dry-run", cwd=tmp_path, LORA_LAB_WHEELHOUSE=name)
        assert done.stdout.splitlines() == offline_steps(wheelhouse)
    for folder in ("../wheelhouse", "wheelhouse"):
        write_wheelhouse(clone / folder)
        assert start(clone, "--dry-run").stdout.splitlines() == offline_steps(folder)
    done = start(clone, "--dry-run", cwd=tmp_path, LORA_LAB_WHEELHOUSE="stick")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"LORA_LAB_WHEELHOUSE is {tmp_path}/stick, which has no install.py" in done.stderr


def test_python_of_the_wheelhouse_is_preferred(clone):
    kind, other = ("macos-arm64", "linux") if os.uname().sysname == "Darwin" else ("linux", "macos-arm64")
    write_wheelhouse(clone / "wheelhouse", f"{kind}-3.12.txt", f"{other}-3.13.txt", "windows-3.11.txt")
    for python in ("python3.11", "python3.13"):
        write_program(clone.parent / "bin" / python)
        assert start(clone, "--dry-run").stdout.splitlines() == offline_steps("wheelhouse")
        assert start(clone, "--dry-run", PYTHON=python).stdout.splitlines() == offline_steps("wheelhouse", python)


def test_environment_is_kept_unless_it_is_broken(clone):
    for python, first_step in (
        ("exit 0", ".venv/bin/python -m pip install"),
        ("exit 1", "python3.12 -m venv --clear .venv"),
        (WITHOUT_PIP, ".venv/bin/python -m ensurepip"),
    ):
        write_program(clone / ".venv/bin/python", python)
        steps = start(clone, "--dry-run").stdout
        assert steps.startswith(f"would run: {first_step}")
        assert ("--clear" in steps) == ("--clear" in first_step)
    (clone / ".venv/.lab").touch()
    (clone / ".venv/bin/python").unlink()
    (clone / ".venv/bin/python").symlink_to("/removed/python3.12")  # by an update of Python
    assert "--clear" in start(clone, "--dry-run").stdout


def test_old_python_is_skipped_and_none_or_a_failing_step_is_an_error(clone):
    write_program(clone.parent / "bin" / "python3.11", "exit 1")
    assert "python3.12 -m venv" in start(clone, "--dry-run").stdout
    (clone.parent / "bin" / "python3.12").unlink()
    done = start(clone, "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs Python 3.11 to 3.14" in done.stderr
    write_program(clone / ".venv/bin/python", '[ "$1" = -c ] || exit 7')
    (clone / ".venv" / ".lab").write_text("")
    assert start(clone).returncode == 7


WITHOUT_PIP = 'case "$*" in *", pip;"*) exit 1 ;; "-m ensurepip") touch pip ;; esac'
ENVIRONMENT = "rm -rf .venv; mkdir -p .venv/bin\nprintf '#!/bin/sh\\n' > .venv/bin/python\nchmod +x .venv/bin/python\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("python", "creates"), [(None, True), ("exit 1", True), (WITHOUT_PIP, False)])
def test_make_creates_a_missing_or_broken_environment_and_adds_pip(tmp_path, python, creates):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    write_program(tmp_path / "bin" / "python3.11", "exit 127")  # like pyenv's shim for a version that isn't selected
    write_program(tmp_path / "bin" / "python3.12", f'[ "$1" = -c ] && exit\necho "$@" > calls\n{ENVIRONMENT}')
    if python:
        write_program(tmp_path / ".venv/bin/python", python)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["make", "demo"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / ".lab").is_file()
    assert [(tmp_path / name).exists() for name in ("calls", "pip")] == [creates, python == WITHOUT_PIP]
    assert not creates or (tmp_path / "calls").read_text() == "-m venv --clear .venv\n"
    (tmp_path / ".venv/bin/python").unlink()
    (tmp_path / ".venv/bin/python").symlink_to("/removed/python3.12")  # by an update of Python
    subprocess.run(["make", "demo"], cwd=tmp_path, env=env, check=True, capture_output=True)
    assert (tmp_path / "calls").read_text() == "-m venv --clear .venv\n"
