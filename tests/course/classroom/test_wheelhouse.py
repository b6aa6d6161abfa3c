"""A wheelhouse for other machines, out of a shop of toy wheels; installing from it; and, marked slow, the real one."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from lora_course.classroom import wheelhouse
from lora_course.classroom.wheelhouse import Target, facts_of, gather, manifest_of
from lora_lab.errors import BadValue, Failed
from lora_lab.training import assets
from lora_lab.training.assets import Asset

WINDOWS, LINUX = Target("windows", "3.12"), Target("linux", "3.11")
NEEDS = (
    "plain", "speed", "bound", "asks", "asked<2", 'shell; sys_platform != "win32"', 'console; os_name == "nt"',
    'old; python_version < "3.12"', 'late; python_version >= "3.12"', 'intel; platform_machine == "x86_64"',
)  # fmt: skip
HERE = f"{'-'.join(wheelhouse.here())}.txt"


def wheel(
    folder: Path, name: str, needs: tuple[str, ...] = (), tag: str = "py3-none-any", version: str = "1.0",
    python: str = ">=3",
) -> Path:  # fmt: skip
    """A wheel of one module that holds nothing; its bytes differ with its tag."""
    path, facts = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    about = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}"]
    about += [f"Requires-Dist: {one}" for one in needs]
    files = {
        f"{name}/__init__.py": f"TAG = '{tag}'\n",
        f"{facts}/METADATA": "\n".join(about) + "\n",
        f"{facts}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{facts}/RECORD": "".join(f"{one},,\n" for one in (f"{name}/__init__.py", f"{facts}/METADATA")),
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: `speed` for two kinds of machine, the lab's own in `own`; and a configuration file of pip."""
    folder = tmp_path_factory.mktemp("Räder für alle")
    for name in ("plain", "shell", "console", "old", "intel", "toy_data"):
        wheel(folder, name)
    wheel(folder, "late", python=">=3.12")  # whatever Python runs this
    wheel(folder, "asks", ("asked>=2",), version="2.0")
    wheel(folder, "asks", ("asked>=1",), version="1.0")
    for name, version in (("asked", "2.0"), ("asked", "1.0"), ("bound", "0.5"), ("bound", "1.0"), ("bound", "2.0")):
        wheel(folder, name, version=version)
    wheel(folder, "speed", tag="cp312-cp312-win_amd64")
    wheel(folder, "speed", tag="cp311-cp311-manylinux_2_28_x86_64")
    wheel(folder / "own", "lora_lab", NEEDS, version="0.1.0")
    bounds = folder / "bounds.txt"  # a constraint for one Python, and one for all others
    bounds.write_text("bound<2; python_version == '3.12'\nbound<1; python_version != '3.12'\n")
    settings = f"no-index = true\nfind-links = {folder.as_uri()}\nconstraint = {bounds.as_uri()}\n"
    (folder / "pip.conf").write_text(f"[global]\n{settings}", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def only_source(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip sees nothing but the shop, as its user's file says, and the lab has one asset."""
    see_only(shop, monkeypatch)


def see_only(shop: Path, patch: pytest.MonkeyPatch) -> None:
    hash = sha256((shop / "toy_data-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        patch.delenv(name, raising=False)
    patch.setenv("PIP_CONFIG_FILE", str(shop / "pip.conf"))
    patch.setenv("PYTHONIOENCODING", "latin-1")  # as a pipe is on Windows
    patch.setattr(assets, "lock", lambda: {"toy-data": f"toy-data==1.0 --hash=sha256:{hash}"})
    patch.setattr(assets, "ASSETS", {"toy": Asset("toy-data", ("*.py",))})


def own(shop: Path) -> Path:
    return next((shop / "own").glob("*.whl"))


@pytest.fixture(scope="module")
def gathered(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse for two machines, not to be changed."""
    folder = tmp_path_factory.mktemp("Räder")
    with pytest.MonkeyPatch.context() as patch:
        see_only(shop, patch)
        gather(folder, [WINDOWS, LINUX], print, wheel=own(shop))
    return folder


@pytest.fixture
def house(gathered: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed at will."""
    return Path(shutil.copytree(gathered, tmp_path / "Räder für alle"))


# ---- gathering


def test_each_machine_gets_what_it_needs_by_its_own_conditions_and_wheels(gathered: Path):
    locks = {one: (gathered / f"{one.name}.txt").read_text() for one in (WINDOWS, LINUX)}
    found = {one: set(re.findall(r"^(\w+)==(\S+)", text, re.MULTILINE)) for one, text in locks.items()}
    both = {("lora_lab", "0.1.0"), *((name, "1.0") for name in ("plain", "speed", "asks", "asked"))}
    assert found[WINDOWS] == both | {("console", "1.0"), ("late", "1.0"), ("bound", "1.0")}
    assert found[LINUX] == both | {(name, "1.0") for name in ("shell", "old", "intel")} | {("bound", "0.5")}
    targets = manifest_of(gathered)["targets"]
    assert "wheels/speed-1.0-cp312-cp312-win_amd64.whl" in targets[WINDOWS.name]
    assert "wheels/speed-1.0-cp311-cp311-manylinux_2_28_x86_64.whl" in targets[LINUX.name]


def test_the_manifest_names_every_file_and_the_page_the_machines(gathered: Path):
    there = {path.relative_to(gathered).as_posix() for path in gathered.rglob("*") if path.is_file()}
    assert set(wheelhouse.check(gathered)["files"]) == there - {"manifest.json"}
    assert {"assets/toy_data-1.0-py3-none-any.whl", "install.py", "install.sh", "install.cmd"} <= there
    text = (gathered / "HOWTO.txt").read_bytes()
    assert b"Windows (x86-64), Python 3.12\r\n" in text  # Windows' own editors show lines
    assert b"$" not in text
    assert b"\r" not in (gathered / "install.sh").read_bytes()
    assert os.name == "nt" or os.access(gathered / "install.sh", os.X_OK)


def test_it_goes_on_where_it_was_without_asking_for_what_is_there(house: Path, shop: Path, monkeypatch, tmp_path: Path):
    """Stopped in the middle of a copy: that file is fetched again, the versions are kept, and a stranger goes."""
    whole, wheels = manifest_of(house)["files"], house / "wheels"
    (wheels / "plain-1.0-py3-none-any.whl").write_bytes(b"half")
    (wheels / "plain-0.9-py3-none-any.whl").write_bytes(b"an earlier version")
    (house / "manifest.json").write_text('{"lab": "0", "targets": {}, "files": {}}')
    monkeypatch.setattr(wheelhouse, "_choose", lambda *a: pytest.fail("the versions were chosen already"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "little").mkdir()
    for name in ("plain", "toy_data"):  # nothing else can be had
        shutil.copy(shop / f"{name}-1.0-py3-none-any.whl", tmp_path / "little")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "little").as_uri())
    gather(house, [LINUX], print, wheel=own(shop))
    assert wheelhouse.check(house)["files"] == whole
    assert not (wheels / "plain-0.9-py3-none-any.whl").exists()


def index_of(folder: Path, *wheels: Path) -> str:
    """The address of a folder that is laid out as an index."""
    for one in wheels:
        place = folder / one.name.split("-")[0].replace("_", "-")
        place.mkdir(parents=True)
        (place / "index.html").write_text(
            f'<a href="{one.as_uri().replace("+", "%2B")}#sha256={facts_of(one)["sha256"]}">{one.name}</a>'
        )
    return folder.as_uri()


def test_torch_from_another_index_is_taken_in_place_of_a_newer_one_that_brings_cuda(
    shop: Path, tmp_path: Path, monkeypatch
):
    """The CPU build has a version of its own, 2.9.0+cpu."""
    lab = wheel(tmp_path / "own", "lora_lab", ("torch>=2.6",), version="0.1.0")
    cuda = wheel(tmp_path, "torch", ("nvidia-x",), version="2.10.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    cpu = wheel(tmp_path, "torch", version="2.9.0+cpu", tag="cp311-cp311-linux_x86_64")
    toy = next(shop.glob("toy_data-*"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index_of(tmp_path / "usual", cuda, wheel(tmp_path, "nvidia_x"), toy))
    with pytest.raises(BadValue, match=r"brings 1 CUDA packages.*--torch-index.*--cuda"):
        gather(tmp_path / "house", [LINUX], print, wheel=lab)
    manifest = gather(tmp_path / "house", [LINUX], print, wheel=lab, torch_index=index_of(tmp_path / "cpu", cpu))
    assert manifest["targets"][LINUX.name] == [f"wheels/{lab.name}", f"wheels/{cpu.name}"]


def test_what_cannot_be_is_said_before_anything_is_written(tmp_path: Path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(BadValue, match="not an empty folder"):
        gather(tmp_path / "mine", [LINUX], print)
    with pytest.raises(BadValue, match="not the lab's wheel"):
        gather(tmp_path / "new", [LINUX], print, wheel=tmp_path / "other.whl")
    monkeypatch.setattr(wheelhouse, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadValue, match=r"pip install 'lora-lab\[wheelhouse\]'"):
        gather(tmp_path / "other", [LINUX], print)
    assert not (tmp_path / "other").exists()


def test_a_machine_that_cannot_be_is_named():
    for platform, python, words in (("window", "3.11", "did you mean windows"), ("linux", "3.9", "3.11 or newer")):
        with pytest.raises(BadValue, match=words):
            Target(platform, python)


def test_the_command_checks_a_copy_and_says_what_is_in_it(house: Path, lora_lab: Callable):
    done = lora_lab("wheelhouse", "--out", str(house), "--check")
    assert (done.returncode, "Windows (x86-64), Python 3.12: 8 wheels" in done.stdout) == (0, True)
    assert json.loads(lora_lab("wheelhouse", "--out", str(house), "--check", "--json").stdout)["lab"]
    plain = house / "wheels" / "plain-1.0-py3-none-any.whl"
    plain.write_bytes(plain.read_bytes()[:-9] + bytes(9))  # as a stick that was pulled out leaves it
    done = lora_lab("wheelhouse", "--out", str(house), "--check")
    assert (done.returncode, f"wheels/{plain.name} is damaged" in done.stderr) == (1, True)
    plain.unlink()
    assert f"wheels/{plain.name} is missing" in lora_lab("wheelhouse", "--out", str(house), "--check").stderr


# ---- installing


def test_another_machine_is_told_what_the_folder_is_for(gathered: Path, monkeypatch):
    for here, said in (
        (("linux", "3.13"), r"this is Python 3\.13.*run install\.py with Python 3\.11.*--python 3\.13"),
        (("", "3.11"), r"for Linux \(x86-64\), Python 3\.11; Windows \(x86-64\), Python 3\.12, but this machine is"),
    ):
        monkeypatch.setattr(wheelhouse, "here", lambda here=here: here)
        with pytest.raises(BadValue, match=said):
            wheelhouse.fitting(gathered)
    monkeypatch.setattr(wheelhouse, "here", lambda: ("windows", "3.12"))
    assert wheelhouse.fitting(gathered) == WINDOWS


@pytest.fixture
def stick(shop: Path, tmp_path: Path) -> Path:
    """A wheelhouse for this very machine, of the toy lab; its pip is the one of these tests."""
    if not wheelhouse.here()[0]:
        pytest.skip("no wheelhouse is made for this kind of machine")
    house, target = tmp_path / "Räder für alle", Target(*wheelhouse.here())
    shutil.copytree(
        shop, house / "wheels", ignore=lambda *_: [one.name for one in shop.iterdir() if "plain" not in one.name]
    )
    wheels = [wheel(house / "wheels", "lora_lab", ("plain",), version="0.1.0"), *(house / "wheels").glob("plain-*")]
    with zipfile.ZipFile(house / "wheels" / "pip-0-py3-none-any.whl", "w") as archive:
        site = str(Path(sys.modules["pytest"].__file__).parents[1])
        run = f"import sys, runpy\nsys.path[:0] = [{site!r}]\nrunpy.run_module('pip', run_name='__main__')\n"
        archive.writestr("pip/__main__.py", run)
    wheelhouse._lock(house / HERE, target, wheels, cuda=False)
    wheelhouse._write_manifest(house)
    return house


def test_it_installs_into_a_folder_with_blanks_and_without_an_index(stick: Path, tmp_path: Path, capsys):
    folder = tmp_path / "Mein Labor für LoRA"
    old = folder / ".venv" / "bin" / "python"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 3.10\n")  # an environment of another Python is replaced
    old.chmod(0o755)
    for _ in range(2):  # once more does no harm
        wheelhouse.install(stick, folder, assets=False)
        (folder / ".venv" / "kept").touch()
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = subprocess.run([python, "-c", "import plain; print(plain.TAG)"], capture_output=True, text=True)
    assert found.stdout == "py3-none-any\n"
    assert (folder / ("start.cmd" if os.name == "nt" else "start.sh")).is_file()
    assert "Open the workbench" in capsys.readouterr().out.splitlines()[-1]


def test_a_damaged_copy_is_refused_before_anything_is_made_and_a_later_change_by_pip(
    stick: Path, tmp_path: Path, shop: Path, monkeypatch, capfd
):
    shutil.copy(shop / "shell-1.0-py3-none-any.whl", stick / "wheels" / "plain-1.0-py3-none-any.whl")
    with pytest.raises(Failed, match=r"plain-1\.0.*is damaged.*copy the folder again"):
        wheelhouse.install(stick, tmp_path / "lab", assets=False)
    assert not (tmp_path / "lab").exists()
    monkeypatch.setattr(wheelhouse, "check", lambda *_: None)
    with pytest.raises(Failed, match="could not install the packages"):
        wheelhouse.install(stick, tmp_path / "lab", assets=False)
    assert "HASH" in capfd.readouterr().err.upper()


def test_whatever_is_wrong_is_one_sentence_and_preflight_installs_nothing(
    stick: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path))
    wheelhouse.main(stick, ["--preflight", "--to", str(tmp_path / "lab")])
    assert "ok   python" in capsys.readouterr().out
    assert json.loads((tmp_path / "lora-lab-preflight.json").read_text(encoding="utf-8"))["findings"]

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(SystemExit, match=r"install: 0\.0 GiB free.*free 4\.0 GiB more"):
        wheelhouse.main(stick, ["--to", str(tmp_path / "lab")])
    assert not (tmp_path / "lab").exists()


@pytest.mark.slow
def test_a_real_wheelhouse_installs_and_runs_the_demo_without_network(tmp_path: Path, monkeypatch):
    """Gathered with pip's own index (some 560 MB), then installed and run where there is no network at all."""
    cut = ["unshare", "-n"]
    if not shutil.which("unshare") or subprocess.run([*cut, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody cut the network of a process")
    monkeypatch.delenv("PIP_CONFIG_FILE")
    house, home = tmp_path / "Räder für alle", tmp_path / "Zuhause Jürgen"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "lora_course", "wheelhouse", "--out", str(house)], check=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    subprocess.run([*cut, "sh", str(house / "install.sh")], check=True, env=env, cwd=tmp_path)
    start = ["sh", str(home / "lora-lab" / "start.sh"), "demo", "--steps", "10"]
    done = subprocess.run([*cut, *start], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.33%" in done.stdout
    assert (home / "lora-lab" / "demo" / "demo.png").is_file()
