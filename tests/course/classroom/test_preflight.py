import getpass
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_course.classroom import preflight, room
from lora_course.classroom.preflight import FILE, GIB, LETTERS, Finding, judged, machine, write_letter
from lora_lab.errors import NotFound
from tests.conftest import ROOT, assert_raises

GOOD = {
    "python": (3, 12, 1), "bits": 64, "implementation": "CPython", "system": "Linux", "arch": "x86_64",
    "version": "2.31", "rosetta": False, "total": int(7.6 * GIB), "free": room.KERNEL, "container": False,
    "folder": "/home/ann/lab", "disk": 5 * GIB, "needed": 4 * GIB, "write": "", "port": 8888,
    "other_port": 8888, "drives": [],
}  # fmt: skip
WINDOWS = {"system": "Windows", "arch": "AMD64", "version": "", "folder": "C:\\lora-lab"}
MAC = {"system": "Darwin", "arch": "arm64", "version": "15.1"}
FAULTS = (  # facts, name, and words in the finding and its remedy
    ({"python": (3, 10, 14)}, "python", "too old", "install Python 3.11"),
    ({"python": (3, 15, 0)}, "python", "too new", "install Python 3.11"),
    ({"implementation": "PyPy"}, "python", "no wheel", "64-bit"),
    ({"bits": 32}, "python", "32 bits", "64-bit"),
    ({**MAC, "arch": "x86_64"}, "platform", "Intel Macs", "Binder"),
    ({**MAC, "rosetta": True}, "platform", "Intel Python", "for Apple silicon"),
    ({**MAC, "version": "13.6"}, "platform", "macOS 14", "update macOS"),
    ({**WINDOWS, "arch": "ARM64"}, "platform", "no wheels", "Binder"),
    ({"version": "2.17"}, "platform", "2.28", "another machine"),
    ({"total": 4 * GIB}, "memory", "4.0 GiB", "share a neighbor"),
    ({"free": room.KERNEL - 1}, "memory", "needs 3.3 GiB free", "close other programs"),
    ({"total": 2 * GIB, "container": True}, "memory", "needs 3.7", "larger limit"),
    ({"disk": GIB // 2}, "disk", "0.5 GiB free", "free 3.5 GiB more"),
    ({"write": "Read-only file system"}, "write", "Read-only", "a folder of your own"),
    ({**WINDOWS, "folder": "C:\\Ann\\OneDrive - School\\lab"}, "path", "synchronized", "C:\\lora-lab"),
    ({**WINDOWS, "folder": "D:\\Sky\\lab", "drives": ["d:\\sky"]}, "path", "synchr", "move it"),
    ({**WINDOWS, "folder": "C:\\" + "a" * 100}, "path", "260", "at most 63 characters"),
    ({"other_port": None}, "port", "in use", "--port 0"),
)


def test_good_machines_are_green_and_each_fault_is_red_with_its_remedy():
    for facts in ({}, WINDOWS, MAC, {"container": True, "total": 4 * GIB}, {"total": None}):
        assert all(finding.green and not finding.remedy for finding in judged({**GOOD, **facts})), facts
    for facts, name, found, remedy in FAULTS:
        (finding,) = [finding for finding in judged({**GOOD, **facts}) if not finding.green]
        assert finding.name == name
        assert found in finding.found
        assert remedy in finding.remedy
    assert preflight.FREE_MEMORY == room.KERNEL < preflight.CONTAINER  # a container also runs the Jupyter server


def test_every_package_fits_into_a_green_folder_on_windows():
    longest = max(len(str(file)) for package in distributions() for file in package.files or ())
    assert LETTERS + len("/.venv/Lib/site-packages/") + longest < 260


def test_folder_inside_a_file_is_red(tmp_path: Path):
    (file := tmp_path / "notes.txt").touch()
    assert {one.name for one in machine(file / "lab") if not one.green} >= {"write"}


def test_onedrives_folders_are_found_by_variables_in_upper_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONEDRIVE", "D:\\Cloud")  # as Python spells it on Windows
    assert "D:\\Cloud" in preflight.facts(tmp_path)["drives"]


def test_machine_needs_only_the_standard_library_and_writes_nothing(tmp_path: Path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    code += "from lora_course.classroom.preflight import machine\n"
    code += "print(*[finding.name for finding in machine(Path('new/folder'))])"
    command, env = [sys.executable, "-S", "-c", code], {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.stdout == "python platform memory disk write path port\n", done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def green(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Replace every check of the machine with one that passes."""
    outputs = {preflight.PACKAGES: "2.9.0", preflight.TRAINING: '{"steps": 40, "seconds": 10, "first": 0.7, "last": 1}'}
    monkeypatch.setattr(preflight, "facts", lambda *where: GOOD)
    monkeypatch.setattr(preflight, "check_assets", lambda: [Finding("assets", True, "whole")])
    monkeypatch.setattr(preflight, "run_python", outputs.__getitem__)
    return monkeypatch


def test_broken_packages_are_red_and_nothing_is_trained(green: pytest.MonkeyPatch):
    for error, remedy in {"DLL load failed importing _C": "Visual C++", "something new": "send the file to"}.items():
        green.setattr(preflight, "run_python", Mock(side_effect=OSError(error)))
        *_, packages, _, training = preflight.preflight(Path())
        assert error in packages.found
        assert remedy in packages.remedy
        assert "not tried" in training.found


def test_missing_assets_are_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path))
    (finding,) = preflight.check_assets()
    assert "minilm is missing" in finding.found
    assert "lora-lab fetch" in finding.remedy


def test_training_check_trains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        preflight.train(0.0)
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 1
    assert result["seconds"] > 0
    assert result["first"] == pytest.approx(0.69, abs=0.1)  # ln 2, as for guessing


def test_file_to_send_back_has_no_private_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = f"cannot write into {Path.home()}/lab on {platform.node()} as {getpass.getuser()}"
    letter = write_letter([Finding("write", False, words, "mend")], path := tmp_path / "back.json")
    assert json.loads(path.read_text()) == letter
    assert letter["findings"][0]["found"] == "cannot write into ~/lab on <machine> as <user>"
    assert letter["green"] is False
    monkeypatch.setattr(getpass, "getuser", lambda: "lab")  # also a key of the file
    letter = write_letter([Finding("write", False, "lab has collaborators", "mend")], tmp_path / "back.json")
    assert letter["findings"][0]["found"] == "<user> has collaborators"
    assert "lab" in letter


def test_preflight_command_writes_a_file_and_fails_if_anything_is_red(green, lora_lab, tmp_path):
    green.chdir(tmp_path)
    done = lora_lab("doctor", "--preflight", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / FILE).read_text())
    green.setattr(preflight, "check_assets", lambda: [Finding("assets", False, "kjv is missing", "lora-lab fetch")])
    done = lora_lab("doctor", "--preflight", "--out", "mine.json")
    assert done.returncode == 1
    assert "-> lora-lab fetch" in done.stdout
    assert "2 of 10 checks are red" in done.stderr  # assets, and training, which was not tried
    assert json.loads((tmp_path / "mine.json").read_text())["green"] is False
    done = lora_lab("doctor", "--preflight", "--out", "mine.json/below")
    assert "-> lora-lab fetch" in done.stdout
    assert "cannot write into" in done.stderr
    done = lora_lab("doctor", "--preflight", "--out", ".")
    assert (done.returncode, done.stdout) == (2, "")  # at once, without checks
    for pair in (["--preflight", "--collect", "."], ["--out", "x.json"], ["--port", "8888"]):
        assert "only with --preflight" in lora_lab("doctor", *pair).stderr


def test_collect_lists_red_and_damaged_files_first(lora_lab, tmp_path):
    write_letter([Finding("python", True, "3.11")], tmp_path / "ann.json")
    (tmp_path / "bob").mkdir()
    write_letter([Finding("disk", False, "\x1b[2J 0.5 GiB free", "free some")], tmp_path / "bob" / "bob.json")
    damaged = ['{"findings": [', '{"findings": [{"green": false}], "system": "Linux"}', '{"findings": [3]}']
    for number, text in enumerate(damaged):
        (tmp_path / f"eve{number}.json").write_text(text)
    (tmp_path / "._ann.json").write_bytes(b"\0\5\26\7")  # macOS adds such files on a stick or in a zip file
    lines = lora_lab("doctor", "--collect", str(tmp_path)).stdout.splitlines()
    assert lines[0].startswith("bob/bob.json  RED")
    assert lines[0].endswith("disk ( [2J 0.5 GiB free)")
    assert lines[1:4] == [f"eve{number}.json     RED  cannot be read: ask for it again" for number in range(3)]
    assert lines[4].endswith(platform.machine())
    assert lines[5] == "1 of 5 are ready"
    files = json.loads(lora_lab("doctor", "--collect", str(tmp_path), "--json").stdout)["files"]
    assert [letter["green"] for letter in files.values()] == [False] * 4 + [True]
    assert_raises("preflight", preflight.letters_in, tmp_path / "nowhere", error=NotFound)
