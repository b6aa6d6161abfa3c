"""Each fault that a machine can have is planted, found and named with what helps; and the file that is sent back."""

import getpass
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lora_course.classroom import preflight, room
from lora_course.classroom.preflight import FILE, GIB, Finding, judged, write_letter
from lora_lab.errors import NotFound

ROOT = Path(__file__).parents[3]
WELL: dict[str, Any] = {
    "python": (3, 12, 1), "bits": 64, "implementation": "CPython", "system": "Linux", "arch": "x86_64",
    "version": "2.31", "rosetta": False, "total": int(7.6 * GIB), "free": room.KERNEL, "container": False,
    "folder": "/home/ann/lab", "disk": 5 * GIB, "needed": 4 * GIB, "write": "", "port": 8888,
    "other_port": 8888, "drives": [],
}  # fmt: skip
WINDOWS = {"system": "Windows", "arch": "AMD64", "version": "", "folder": "C:\\lora-lab"}
MAC = {"system": "Darwin", "arch": "arm64", "version": "15.1"}
FAULTS: tuple[tuple[dict[str, Any], str, str, str], ...] = (  # the fault, its finding, and words in it and its remedy
    ({"python": (3, 9, 2)}, "python", "too old", "install Python 3.11"),
    ({"bits": 32}, "python", "32 bits", "64-bit"),
    ({**MAC, "arch": "x86_64"}, "platform", "Intel Macs", "Binder"),
    ({"version": "2.17"}, "platform", "2.28", "another machine"),
    ({"total": 4 * GIB}, "memory", "4.0 GiB", "share a neighbor"),
    ({"total": 2 * GIB, "container": True}, "memory", "needs 3.7", "larger limit"),
    ({"disk": GIB // 2}, "disk", "0.5 GiB free", "free 3.5 GiB more"),
    ({"write": "Read-only file system"}, "write", "Read-only", "a folder of your own"),
    ({**WINDOWS, "folder": "C:\\Ann\\OneDrive - School\\lab"}, "path", "synchronized", "C:\\lora-lab"),
    ({**WINDOWS, "folder": "D:\\Sky\\lab", "drives": ["d:\\sky"]}, "path", "synchr", "move it"),
    ({**WINDOWS, "folder": "C:\\" + "a" * 100}, "path", "260", "at most 90 characters"),
    ({"other_port": None}, "port", "in use", "--port 0"),
)


def test_a_machine_that_is_well_is_green():
    for other in ({}, WINDOWS, MAC, {"container": True, "total": 4 * GIB}, {"total": None}):
        assert all(one.green and not one.remedy for one in judged({**WELL, **other})), other


def test_a_planted_fault_is_found_and_its_remedy_named():
    for planted, name, found, remedy in FAULTS:
        (finding,) = [one for one in judged({**WELL, **planted}) if not one.green]
        assert finding.name == name
        assert found in finding.found
        assert remedy in finding.remedy


def test_the_limits_are_those_of_the_lessons():
    assert preflight.FREE_MEMORY == room.KERNEL < preflight.CONTAINER  # beside Jupyter's server


def test_it_sees_this_machine_with_the_standard_library_alone_and_leaves_nothing(tmp_path: Path):
    code = "from lora_course.classroom.preflight import machine; from pathlib import Path\n"
    code += "print(*[one.name for one in machine(Path('new/folder'))])"
    alone = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout == "python platform memory disk write path port\n", done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every part is well, and nothing is really looked at."""
    monkeypatch.setattr(preflight, "facts", lambda folder, port: WELL)
    monkeypatch.setattr(preflight, "check_assets", lambda: Finding("assets", True, "whole"))
    found = {preflight.PACKAGES: "2.9.0\n", preflight.TRAINING: '{"steps": 40, "seconds": 10, "first": 0.7, "last": 1}'}
    monkeypatch.setattr(preflight, "run_python", found.__getitem__)
    return monkeypatch


def test_packages_that_do_not_start_are_red_with_what_helps_and_nothing_is_trained(well: pytest.MonkeyPatch):
    for said, remedy in {"DLL load failed importing _C": "Visual C++", "something new": "send the file to"}.items():
        well.setattr(preflight, "run_python", Mock(side_effect=OSError(said)))
        *_, packages, _, training = preflight.preflight(Path())
        assert said in packages.found
        assert remedy in packages.remedy
        assert "not tried" in training.found


def test_a_home_without_assets_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path))
    found = preflight.check_assets()
    assert "minilm is missing" in found.found
    assert "lora-lab fetch" in found.remedy


def test_a_few_steps_are_really_trained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        preflight.train(0.0)
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["seconds"] > 0) == (1, True)
    assert found["first"] == pytest.approx(0.69, abs=0.1)  # that of a guess, ln 2


def test_the_file_to_send_back_holds_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = f"cannot write into {Path.home()}/lab on {platform.node()} as {getpass.getuser()}"
    told, path = write_letter([Finding("write", False, words, "mend")], tmp_path / "back.json")
    assert json.loads(path.read_text()) == told
    assert told["findings"][0]["found"] == "cannot write into ~/lab on <machine> as <user>"
    assert told["green"] is False
    monkeypatch.setattr(getpass, "getuser", lambda: "lab")  # a name that a part of the file has, too
    told, _ = write_letter([Finding("write", False, "lab has collaborators", "mend")], tmp_path / "back.json")
    assert (told["findings"][0]["found"], told.keys() >= {"lab"}) == ("<user> has collaborators", True)


def test_the_command_prints_writes_and_exits_by_what_was_found(
    well: pytest.MonkeyPatch,
    lora_lab: Callable,
    tmp_path: Path,
):
    well.chdir(tmp_path)
    done = lora_lab("doctor", "--preflight", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / FILE).read_text())
    well.setattr(preflight, "check_assets", lambda: Finding("assets", False, "kjv is missing", "lora-lab fetch"))
    done = lora_lab("doctor", "--preflight", "--out", "mine.json")
    assert done.returncode == 1
    assert "-> lora-lab fetch" in done.stdout
    assert "2 of 10 red" in done.stderr  # training was not tried
    assert json.loads((tmp_path / "mine.json").read_text())["green"] is False


def test_forty_files_become_one_table_the_damaged_ones_too(lora_lab: Callable, tmp_path: Path):
    write_letter([Finding("python", True, "3.11")], tmp_path / "ann.json")
    write_letter([Finding("disk", False, "\x1b[2J 0.5 GiB free", "free some")], tmp_path / "bob.json")
    damaged = ['{"findings": [', '{"findings": [{"green": false}], "system": "Linux"}', '{"findings": [3]}',
               '{"findings": [], "green": true, "system": "Linux", "peak": NaN}']  # fmt: skip
    for number, text in enumerate(damaged):
        (tmp_path / f"eve{number}.json").write_text(text)
    lines = lora_lab("doctor", "--collect", str(tmp_path)).stdout.splitlines()
    assert lines[0].startswith("bob.json   RED")
    assert lines[0].endswith("disk ( [2J 0.5 GiB free)")
    assert lines[1:5] == [f"eve{number}.json  RED  cannot be read: ask for it again" for number in range(4)]
    assert lines[5].endswith(platform.machine())
    assert lines[6] == "1 of 6 are ready"
    found = json.loads(lora_lab("doctor", "--collect", str(tmp_path), "--json").stdout)["files"]
    assert [one["green"] for one in found.values()] == [False] * 5 + [True]
    with pytest.raises(NotFound, match="preflight"):
        preflight.letters_in(tmp_path / "nowhere")
