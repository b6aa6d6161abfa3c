import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from lora_course.classroom import wheelhouse
from lora_course.classroom.wheelhouse import Target, gather, manifest_of
from lora_lab.errors import BadValue, Failed
from lora_lab.files import facts_of
from lora_lab.training import assets
from lora_lab.training.assets import Asset
from tests.conftest import assert_raises
from tests.training.conftest import wheel

WINDOWS, LINUX = Target("windows", "3.12"), Target("linux", "3.11")
REQUIREMENTS = (
    "plain", "speed", "bound", "asks", "asked<2", 'shell; sys_platform != "win32"', 'console; os_name == "nt"',
    'old; python_version < "3.12"', 'late; python_version >= "3.12"', 'intel; platform_machine == "x86_64"',
)  # fmt: skip
LAB, PLAIN = "own/lora_lab-0.1.0-py3-none-any.whl", "plain-1.0-py3-none-any.whl"


@pytest.fixture(scope="module", autouse=True)
def index(tmp_path_factory):
    """A folder of wheels that is pip's only source, as configured in pip.conf; the lab's own wheel is in `own`."""
    folder = tmp_path_factory.mktemp("Räder für alle")
    for name in ("plain", "shell", "console", "old", "intel"):
        wheel(folder, name)
    wheel(folder, "late", python=">=3.12")  # even if an older Python runs the tests
    wheel(folder, "asks", "asked>=2", version="2.0")
    wheel(folder, "asks", "asked>=1", version="1.0")
    for name, version in (("asked", "2.0"), ("asked", "1.0"), ("bound", "0.5"), ("bound", "1.0"), ("bound", "2.0")):
        wheel(folder, name, version=version)
    wheel(folder, "speed", tag="cp312-cp312-win_amd64")
    wheel(folder, "speed", tag="cp311-cp311-manylinux_2_28_x86_64")
    wheel(folder / "own", "lora_lab", *REQUIREMENTS, version="0.1.0")
    bounds = folder / "bounds.txt"
    bounds.write_text("bound<2; python_version == '3.12'\nbound<1; python_version != '3.12'\n")
    settings = f"no-index = true\nfind-links = {folder.as_uri()}\nconstraint = {bounds.as_uri()}\n"
    (folder / "pip.conf").write_text(f"[global]\n{settings}", encoding="utf-8")
    digest = sha256(wheel(folder, "toy_data").read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
            patch.delenv(name, raising=False)
        patch.setenv("PIP_CONFIG_FILE", str(folder / "pip.conf"))
        patch.setenv("PYTHONIOENCODING", "latin-1")  # as for a pipe on Windows
        patch.setattr(assets, "lock", lambda: {"toy-data": f"toy-data==1.0 --hash=sha256:{digest}"})
        patch.setattr(assets, "ASSETS", {"toy": Asset("toy-data", ("*.py",))})
        yield folder


@pytest.fixture(scope="module")
def gathered(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Räder")
    gather(folder, [WINDOWS, LINUX], print, wheel=index / LAB)
    return folder


@pytest.fixture
def house(gathered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gathered, tmp_path / "Räder für alle"))


def test_each_machine_gets_its_wheels_and_the_manifest_lists_every_file(gathered: Path):
    locks = [(gathered / f"{target.name}.txt").read_text() for target in (WINDOWS, LINUX)]
    windows, linux = (set(re.findall(r"^(\w+)==(\S+)", text, re.MULTILINE)) for text in locks)
    both = {("lora_lab", "0.1.0"), *((name, "1.0") for name in ("plain", "speed", "asks", "asked"))}
    assert windows == both | {("console", "1.0"), ("late", "1.0"), ("bound", "1.0")}
    assert linux == both | {("shell", "1.0"), ("old", "1.0"), ("intel", "1.0"), ("bound", "0.5")}
    targets = manifest_of(gathered)["targets"]
    assert "wheels/speed-1.0-cp312-cp312-win_amd64.whl" in targets[WINDOWS.name]
    assert "wheels/speed-1.0-cp311-cp311-manylinux_2_28_x86_64.whl" in targets[LINUX.name]
    files = {path.relative_to(gathered).as_posix() for path in gathered.rglob("*") if path.is_file()}
    assert set(wheelhouse.check(gathered)["files"]) == files - {"manifest.json"}
    assert {"assets/toy_data-1.0-py3-none-any.whl", "install.py", "install.sh", "install.cmd"} <= files
    howto = (gathered / "HOWTO.txt").read_bytes()
    assert b"Windows (x86-64), Python 3.12\r\n" in howto  # for editors on Windows
    assert b"$" not in howto
    assert b"\r" not in (gathered / "install.sh").read_bytes()
    assert os.name == "nt" or os.access(gathered / "install.sh", os.X_OK)


def test_gather_resumes_with_the_locked_versions(house: Path, index: Path, monkeypatch, tmp_path: Path):
    """A partly copied wheel is downloaded again, an earlier version is removed, and nothing else is downloaded."""
    before, wheels, source = manifest_of(house), house / "wheels", tmp_path / "source"
    (wheels / PLAIN).write_bytes(b"half")
    (wheels / "plain-0.9-py3-none-any.whl").write_bytes(b"an earlier version")
    (house / "manifest.json").write_text(json.dumps(before | {"files": {}}))  # as after an interruption
    assert_raises("is unfinished", wheelhouse.check, house)
    source.mkdir()
    for name in (PLAIN, "toy_data-1.0-py3-none-any.whl"):
        shutil.copy(index / name, source)
    monkeypatch.setattr(wheelhouse, "_choose", lambda *args: pytest.fail("the versions were chosen again"))
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": source.as_uri()}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    gather(house, [LINUX], print, wheel=index / LAB)
    assert wheelhouse.check(house) | {"made": before["made"]} == before
    assert not (wheels / "plain-0.9-py3-none-any.whl").exists()


def test_another_build_of_the_lab_needs_every_machine_again(house: Path, index: Path, tmp_path: Path):
    rebuilt = Path(shutil.copy(index / LAB, tmp_path))
    with zipfile.ZipFile(rebuilt, "a") as file:
        file.comment = b"rebuilt"
    with pytest.raises(Failed, match=f"for Windows .* lacks .*{rebuilt.name}.*; run lora-lab"):
        gather(house, [LINUX], print, wheel=rebuilt)
    assert_raises("is unfinished", wheelhouse.check, house)


def package_index(folder: Path, *wheels: Path) -> str:
    for path in wheels:
        place = folder / path.name.split("-")[0].replace("_", "-")
        place.mkdir(parents=True)
        url = f"{path.as_uri().replace('+', '%2B')}#sha256={facts_of(path)['sha256']}"
        (place / "index.html").write_text(f'<a href="{url}">{path.name}</a>')
    return folder.as_uri()


def test_torch_index_is_used_instead_of_a_newer_torch_with_cuda(index: Path, tmp_path: Path, monkeypatch):
    lab = wheel(tmp_path / "own", "lora_lab", "torch>=2.6", version="0.1.0")
    cuda = wheel(tmp_path, "torch", "nvidia-x", version="2.10.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    cpu = wheel(tmp_path, "torch", version="2.9.0+cpu", tag="cp311-cp311-linux_x86_64")
    usual = package_index(tmp_path / "usual", cuda, wheel(tmp_path, "nvidia_x"), next(index.glob("toy_data-*")))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", usual)
    with pytest.raises(BadValue, match=r"pulls in 1 CUDA packages.*--torch-index.*--cuda"):
        gather(tmp_path / "house", [LINUX], print, wheel=lab)
    torch_index = package_index(tmp_path / "cpu", cpu)
    manifest = gather(tmp_path / "house", [LINUX], print, wheel=lab, torch_index=torch_index)
    assert manifest["targets"][LINUX.name] == [f"wheels/{lab.name}", f"wheels/{cpu.name}"]


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    assert_raises("not an empty folder", gather, tmp_path, [LINUX], print)
    assert_raises("not the lab's wheel", gather, tmp_path / "new", [LINUX], print, wheel=tmp_path / "other.whl")
    assert_raises("did you mean windows", Target, "window", "3.11")
    assert_raises(r"3\.11 or newer", Target, "linux", "3.9")
    monkeypatch.setattr(wheelhouse, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_raises(r"pip install 'lora-lab\[wheelhouse\]'", gather, tmp_path / "other", [LINUX], print)
    assert not (tmp_path / "other").exists()


def test_check_command_finds_damaged_and_missing_files(house, lora_lab, tmp_path):
    (tmp_path / "usb{1}").symlink_to(house)
    assert "usb{1}" in lora_lab("wheelhouse", "--out", str(tmp_path / "usb{1}"), "--check").stdout
    command = ("wheelhouse", "--out", str(house), "--check")
    done = lora_lab(*command)
    assert done.returncode == 0
    assert "Windows (x86-64), Python 3.12: 8 wheels" in done.stdout
    assert json.loads(lora_lab(*command, "--json").stdout)["lab"]
    plain = house / "wheels" / PLAIN
    plain.write_bytes(plain.read_bytes()[:-9] + bytes(9))  # as if the stick had been removed too early
    done = lora_lab(*command)
    assert done.returncode == 1
    assert f"wheels/{PLAIN} is damaged" in done.stderr
    plain.unlink()
    assert f"wheels/{PLAIN} is missing" in lora_lab(*command).stderr
    os.truncate(house / "manifest.json", 100)
    assert "is not a wheelhouse, or is damaged: copy it again" in lora_lab(*command).stderr


def test_wheelhouse_for_other_machines_is_red_and_refused(gathered: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for here, row, found, remedy in (
        (("linux", "3.13"), "python", r"for Python 3\.11 on Linux", r"Python 3\.11, or .*--python 3\.13"),
        (("", "3.11"), "platform", r"Linux \(x86-64\), Python 3\.11; Windows \(x86-64\), Python 3\.12", "JupyterHub"),
        (("macos-arm64", "3.11"), "platform", "for Linux", "--platform macos-arm64 --python 3.11"),
    ):
        monkeypatch.setattr(wheelhouse, "here", lambda here=here: here)
        with pytest.raises(SystemExit, match=f"install: .*but this folder is .*{found}.*: .*{remedy}"):
            wheelhouse.main(gathered, ["--to", str(tmp_path / "lab")])
        wheelhouse.main(gathered, ["--preflight", "--to", str(tmp_path / "lab")])
        assert re.search(f"RED  {row} .*{found}.*\n.*-> .*{remedy}", capsys.readouterr().out)
        assert json.loads((tmp_path / "lora-lab-preflight.json").read_text(encoding="utf-8"))["green"] is False


@pytest.fixture(scope="module")
def made(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse of a toy lab for this machine; its pip wheel runs the pip of the test environment."""
    if not wheelhouse.here()[0]:
        pytest.skip("there is no wheelhouse for this kind of machine")
    site, top = str(Path(pytest.__file__).parents[1]), tmp_path_factory.mktemp("stick")
    run = f"import sys, runpy\nsys.path[:0] = [{site!r}]\nrunpy.run_module('pip', run_name='__main__')\n"
    wheel(index, "pip", more={"pip/__main__.py": run})
    gather(top / "house", [Target(*wheelhouse.here())], print, wheel=wheel(top, "lora_lab", "plain", "pip"))
    return top / "house"


@pytest.fixture
def stick(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "Räder für alle"))


def test_install_works_offline_in_a_path_with_spaces(stick: Path, tmp_path: Path, capsys):
    folder = tmp_path / "Mein Labor für LoRA"
    old = folder / ".venv" / "bin" / "python"
    old.parent.mkdir(parents=True)
    old.touch()
    (folder / ".venv" / "pyvenv.cfg").write_text("version = 3.10.1\n")  # of another Python version: replaced
    wheelhouse.install(stick, folder, assets=False)
    (folder / ".venv" / "kept").touch()
    wheelhouse.install(stick, folder, assets=False)  # a repeated installation keeps the environment
    assert (folder / ".venv" / "kept").exists()
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run([python, "-c", "import plain; print(plain.TAG)"], capture_output=True, text=True)
    assert done.stdout == "py3-none-any\n"
    assert (folder / ("start.cmd" if os.name == "nt" else "start.sh")).is_file()
    assert "Open the workbench" in capsys.readouterr().out.splitlines()[-1]


def test_install_refuses_damaged_wheels(stick: Path, tmp_path: Path, index: Path, monkeypatch, capfd):
    shutil.copy(index / "shell-1.0-py3-none-any.whl", stick / "wheels" / PLAIN)
    with pytest.raises(Failed, match=r"plain-1\.0.*is damaged.*copy the folder .* again"):
        wheelhouse.install(stick, tmp_path / "lab", assets=False)
    assert not (tmp_path / "lab").exists()
    monkeypatch.setattr(wheelhouse, "check", lambda *_: None)  # as if it had been damaged after the check
    with pytest.raises(Failed, match="could not install the packages"):
        wheelhouse.install(stick, tmp_path / "lab", assets=False)
    assert "HASH" in capfd.readouterr().err.upper()


def test_installer_needs_a_whole_wheel_of_the_lab(tmp_path: Path):
    script = shutil.copy(Path(wheelhouse.__file__).parent / "stick" / "install.py", tmp_path)
    wheel(tmp_path / "wheels", "lora_lab").write_bytes(bytes(1000))  # as if the stick had been removed too early
    for _ in range(2):
        done = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True, env={}, cwd=tmp_path)
        message = "install: wheels/lora_lab-*.whl is missing or damaged: copy the whole folder again\n"
        assert (done.returncode, done.stderr) == (1, message)
        shutil.rmtree(tmp_path / "wheels", ignore_errors=True)


def test_installer_checks_the_machine_first(stick: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(stick / "manifest.json"))
    with pytest.raises(SystemExit, match="cannot write into"):
        wheelhouse.main(stick, ["--preflight", "--to", str(tmp_path / "lab")])
    assert "ok   python" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(SystemExit, match=r"install: 0\.0 GiB free.*free 4\.0 GiB more"):
        wheelhouse.main(stick, ["--to", str(tmp_path / "lab")])
    assert not (tmp_path / "lab").exists()


@pytest.mark.slow
def test_real_wheelhouse_installs_and_runs_without_a_network(tmp_path: Path, monkeypatch):
    """Downloads some 560 MB from pip's index."""
    offline = ["unshare", "-n"]
    if not shutil.which("unshare") or subprocess.run([*offline, "true"], capture_output=True).returncode:
        pytest.skip("this machine cannot disable the network of a process")
    monkeypatch.delenv("PIP_CONFIG_FILE")
    house, home = tmp_path / "Räder für alle", tmp_path / "Zuhause Jürgen"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "lora_course", "wheelhouse", "--out", str(house)], check=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    subprocess.run([*offline, "sh", str(house / "install.sh")], check=True, env=env, cwd=tmp_path)
    start = ["sh", str(home / "lora-lab" / "start.sh"), "demo", "--steps", "10"]
    done = subprocess.run([*offline, *start], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.33%" in done.stdout
    assert (home / "lora-lab" / "demo" / "demo.png").is_file()
