"""Installing from a wheelhouse: the right machine, whole files, no index; and once, marked slow, the real thing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lora_course.classroom.wheelhouse import contents, gather, install, targets
from lora_course.classroom.wheelhouse.targets import Target, this_platform, this_python
from lora_lab.errors import BadValue, Failed
from tests.course.classroom.wheelhouse.conftest import wheel

ROOT = Path(__file__).parents[4]


def test_the_machine_finds_its_lock(gathered: Path):
    assert install.fitting(gathered, "windows", "3.12") == Target("windows", "3.12")


def test_another_python_is_told_which_one_to_use(gathered: Path):
    with pytest.raises(BadValue, match=r"this is Python 3\.13.*run install\.py with Python 3\.11.*--python 3\.13"):
        install.fitting(gathered, "linux", "3.13")


def test_another_machine_is_told_what_the_folder_is_for(gathered: Path):
    with pytest.raises(
        BadValue, match=r"for Linux \(x86-64\), Python 3\.11; Windows \(x86-64\), Python 3\.12, and this"
    ):
        install.fitting(gathered, "macos-arm64", "3.11")


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [("Windows", "AMD64", "windows"), ("Linux", "x86_64", "linux"), ("Darwin", "arm64", "macos-arm64")],
)
def test_systems_are_known_by_the_names_that_they_give_themselves(system: str, machine: str, name: str):
    assert targets.this_platform(system, machine) == name
    assert targets.this_platform(system, "riscv64") is None


@pytest.fixture
def here(shop: Path, only_source: Path, tmp_path: Path) -> Path:
    """A wheelhouse for this very machine, of the toy lab; its pip is the one of these tests."""
    if this_platform() is None:
        pytest.skip("no wheelhouse is made for this kind of machine")
    house, target = tmp_path / "Räder für alle", Target(this_platform() or "", this_python())
    for name in ("wheels", "assets"):
        (house / name).mkdir(parents=True)
    own = wheel(house / "wheels", "lora_lab", ("plain",), version="0.1.0")
    shutil.copy(shop / "plain-1.0-py3-none-any.whl", house / "wheels")
    locked = [("lora-lab", "0.1.0", own), ("plain", "1.0", house / "wheels" / "plain-1.0-py3-none-any.whl")]
    lines = [f"{name}=={version} --hash=sha256:{contents.facts_of(path)['sha256']}\n" for name, version, path in locked]
    (house / f"{target.name}.txt").write_text("".join(lines))
    with zipfile.ZipFile(house / "wheels" / "pip-0-py3-none-any.whl", "w") as archive:
        site = str(Path(sys.modules["pytest"].__file__).parents[1])
        run = f"import sys, runpy\nsys.path[:0] = [{site!r}]\nrunpy.run_module('pip', run_name='__main__')\n"
        archive.writestr("pip/__main__.py", run)
    gather._write_manifest(house)
    return house


def test_it_installs_into_a_folder_with_blanks_and_without_an_index(here: Path, tmp_path: Path, capsys):
    folder = tmp_path / "Mein Labor für LoRA"
    install.install(here, folder, assets=False)
    python = install.make_venv(folder)
    found = subprocess.run([python, "-c", "import plain; print(plain.TAG)"], capture_output=True, text=True)
    assert found.stdout == "py3-none-any\n"
    assert "start" in capsys.readouterr().out.splitlines()[-1]
    assert (folder / ("start.cmd" if os.name == "nt" else "start.sh")).is_file()
    install.install(here, folder, assets=False)  # once more does no harm


@pytest.mark.skipif(os.name == "nt", reason="a program of lines for sh")
def test_an_environment_of_another_python_is_made_anew_and_one_of_this_is_kept(tmp_path: Path):
    old = tmp_path / ".venv" / "bin" / "python"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 3.10\n")
    old.chmod(0o755)
    python = install.make_venv(tmp_path)
    found = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert found.stdout == f"{tmp_path / '.venv'}\n"
    (tmp_path / ".venv" / "kept").write_text("")
    assert install.make_venv(tmp_path) == python
    assert (tmp_path / ".venv" / "kept").exists()


def test_a_damaged_copy_is_refused_before_anything_is_made(here: Path, tmp_path: Path):
    (here / "wheels" / "plain-1.0-py3-none-any.whl").write_bytes(b"half")
    with pytest.raises(Failed, match=r"plain-1\.0.*has 4 bytes.*copy the folder once more"):
        install.install(here, tmp_path / "lab", assets=False)
    assert not (tmp_path / "lab").exists()


def test_pip_itself_refuses_a_wheel_that_was_exchanged_later(
    here: Path, tmp_path: Path, shop: Path, monkeypatch, capfd
):
    monkeypatch.setattr(install, "_verify", lambda *a: None)
    shutil.copy(shop / "shell-1.0-py3-none-any.whl", here / "wheels" / "plain-1.0-py3-none-any.whl")
    with pytest.raises(Failed, match="could not install the packages"):
        install.install(here, tmp_path / "lab", assets=False)
    assert "HASH" in capfd.readouterr().err.upper()


def test_a_full_disk_is_said_before_anything_is_made(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install.machine.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(SystemExit, match=r"install: 0\.0 GiB free.*free 4\.0 GiB more"):
        install.main(here, ["--to", str(tmp_path / "lab")])
    assert not (tmp_path / "lab").exists()


def test_an_environment_that_cannot_be_made_is_one_sentence(here: Path, tmp_path: Path, monkeypatch):
    """On Windows a Python that is running cannot be replaced."""

    def in_use(*_: object, **__: object) -> None:
        raise PermissionError(13, "in use", "python.exe")

    monkeypatch.setattr(install.venv, "create", in_use)
    with pytest.raises(SystemExit, match=r"install: .*in use.*python\.exe"):
        install.main(here, ["--to", str(tmp_path / "lab"), "--no-assets"])


def test_preflight_of_the_stick_installs_nothing(here: Path, tmp_path: Path, capsys):
    install.main(here, ["--preflight", "--to", str(tmp_path / "lab")])
    assert "ok   python" in capsys.readouterr().out
    assert not (tmp_path / "lab").exists()


def test_an_older_python_can_read_the_installer_to_be_told_that_it_is_too_old():
    script = (ROOT / "lora_course" / "classroom" / "wheelhouse" / "stick" / "install.py").read_text()
    ast.parse(script, feature_version=(3, 5))
    first = [node for node in ast.parse(script).body if not isinstance(node, ast.Expr)][2]
    assert isinstance(first, ast.If)  # before anything of the lab is imported
    assert "version_info < (3, 11)" in ast.unparse(first.test)


@pytest.mark.slow
def test_a_real_wheelhouse_installs_and_runs_the_demo_without_network(tmp_path: Path):
    """Gathered with pip's own index (some 560 MB), then installed and run where there is no network at all."""
    cut = ["unshare", "-n"]
    if not shutil.which("unshare") or subprocess.run([*cut, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody cut the network of a process")
    house, home = tmp_path / "Räder für alle", tmp_path / "Zuhause Jürgen"
    home.mkdir()
    make = [sys.executable, "-m", "lora_course", "wheelhouse", "--out", str(house)]
    subprocess.run(make, check=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    subprocess.run([*cut, "sh", str(house / "install.sh")], check=True, env=env, cwd=tmp_path)
    start = ["sh", str(home / "lora-lab" / "start.sh"), "demo", "--steps", "10"]
    done = subprocess.run([*cut, *start], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.33%" in done.stdout
    assert (home / "lora-lab" / "demo" / "demo.png").is_file()
