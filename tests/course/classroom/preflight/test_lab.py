"""The lab looked at as a whole: what does not start, what is missing, what is slow; the file that is sent back."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import pytest

from lora_course.classroom.preflight import findings, lab, report, ten_seconds
from lora_course.classroom.preflight.findings import green, note, red
from lora_lab.errors import NotFound
from tests.cli.conftest import lora_lab  # noqa: F401  the command line, as a fixture


def breaks(words: str):
    def run(command: list[str]) -> str:
        raise OSError(words)

    return run


def trained(seconds: float, steps: int = 40):
    told = {"steps": steps, "seconds": seconds, "first": 0.7, "last": 0.5, "bytes": 2**30}
    return lambda command: json.dumps(told)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ImportError: DLL load failed while importing _C", "Visual C++"),
        ("OSError: [WinError 126] The specified module could not be found", "Visual C++"),
        ("ModuleNotFoundError: No module named 'torch'", "install the lab once more"),
        ("it was ended by signal 4", "another machine"),
        ("it was ended by signal 9", "close other programs"),
        ("something new", "install the lab once more"),
    ],
)
def test_packages_that_do_not_start_are_red_with_what_helps(said: str, remedy: str):
    finding = lab.check_packages(breaks(said))
    assert not finding.green
    assert said in finding.found
    assert remedy in finding.remedy


def test_packages_that_start_are_green_with_torchs_version():
    assert "torch 2.9.0" in lab.check_packages(lambda command: "2.9.0\n").found


def test_a_process_that_fails_hangs_or_is_ended_says_why():
    with pytest.raises(OSError, match="No module named 'nowhere'"):
        lab.run_python(["-S", "-c", "import nowhere"])
    with pytest.raises(OSError, match="signal 9"):
        lab.run_python(["-S", "-c", "import os; os.kill(os.getpid(), 9)"])
    with pytest.raises(OSError, match="not ended after 1 s"):
        lab.run_python(["-S", "-c", "import time; time.sleep(9)"], seconds=1)
    assert lab.run_python(["-S", "-c", "print(1)"]) == "1\n"


def test_a_missing_asset_is_red_and_named():
    finding = lab.check_assets({"minilm": "", "kjv": "is missing"}, "/home/ann/.cache")
    assert not finding.green
    assert "kjv is missing" in finding.found
    assert "lora-lab fetch" in finding.remedy
    assert "LORA_LAB_HOME" in finding.remedy
    assert lab.check_assets({"minilm": "", "kjv": ""}, "/x").green


def test_a_real_home_without_assets_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path))
    assert "minilm is missing" in lab.look_at_assets().found


def test_slow_training_is_red_and_fast_training_tells_how_long_a_run_takes():
    quick = lab.check_training(trained(10))
    assert quick.green
    assert "about 2 min" in quick.found  # 400 steps of a quarter of a second
    slow = lab.check_training(trained(10, steps=3))
    assert not slow.green
    assert "plug the machine in" in slow.remedy


def test_training_that_breaks_is_red():
    assert "MemoryError" in lab.check_training(breaks("MemoryError")).found
    assert not lab.check_training(lambda command: "not json").green


def test_training_for_a_moment_learns(monkeypatch: pytest.MonkeyPatch):
    """The real thing, on MiniLM: a few steps, and the loss is about that of a guess, ln 2."""
    found = ten_seconds.train_for(0.0, most=2)
    assert found["steps"] == 1
    assert found["seconds"] > 0
    assert found["first"] == pytest.approx(0.69, abs=0.1)


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is well, and nothing is really looked at."""
    monkeypatch.setattr(lab.machine, "look", lambda *a, **k: [green("python", "3.11")])
    monkeypatch.setattr(lab, "check_packages", lambda: green("packages", "start"))
    monkeypatch.setattr(lab, "look_at_assets", lambda: green("assets", "whole"))
    monkeypatch.setattr(lab, "check_training", lambda: green("training", "fast"))


def test_training_is_not_tried_where_it_cannot_work(well: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert all(one.green for one in lab.preflight(tmp_path))
    monkeypatch.setattr(lab, "look_at_assets", lambda: red("assets", "gone", "fetch"))
    *_, training = lab.preflight(tmp_path)
    assert "not tried" in training.found


def test_a_check_that_fails_itself_is_a_finding(well: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def breaks_down(*_: object, **__: object) -> None:
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(lab.machine, "look", breaks_down)
    monkeypatch.setattr(lab, "look_at_assets", breaks_down)
    first, packages, assets, _ = lab.preflight(tmp_path)
    assert "no such thing here" in first.found
    assert "no such thing here" in assets.found
    assert packages.green


def test_the_file_to_send_back_holds_no_names(tmp_path: Path):
    home = str(Path.home())
    found = [red("write", f"cannot write into {home}/lab on {platform.node()} as {getpass.getuser()}", "mend")]
    told, path = report.write_letter(found, tmp_path / "back.json")
    text = path.read_text()
    assert json.loads(text) == told
    assert "~/lab on <machine> as <user>" in text
    assert home not in text
    assert told["green"] is False


def test_a_name_within_a_word_stays_as_it_is():
    private = {"/home/ann": "~", "ann": "<user>"}
    assert findings.anonymous(["/home/ann/planning", "ANN"], private) == ["~/planning", "<user>"]


def test_where_the_folder_cannot_be_written_to_the_file_lies_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report.tempfile, "gettempdir", lambda: str(tmp_path))
    _, path = report.write_letter([green("python", "3.11")], tmp_path / "file" / "back.json")
    assert path == tmp_path / report.FILE


def test_the_command_prints_writes_and_exits_by_what_was_found(well, lora_lab, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    done = lora_lab("doctor", "--preflight", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / report.FILE).read_text())
    monkeypatch.setattr(lab, "look_at_assets", lambda: red("assets", "kjv is missing", "lora-lab fetch"))
    done = lora_lab("doctor", "--preflight", "--out", "mine.json")
    assert done.returncode == 1
    assert "-> lora-lab fetch" in done.stdout
    assert "2 of 4 red" in done.stderr  # training was not tried
    assert json.loads((tmp_path / "mine.json").read_text())["green"] is False


def test_forty_files_become_one_table(lora_lab, tmp_path: Path):  # noqa: F811
    report.write_letter([green("python", "3.11"), note("port", "taken", "")], tmp_path / "ann.json")
    report.write_letter([red("disk", "0.5 GiB free", "free some")], tmp_path / "bob.json")
    (tmp_path / "other.json").write_text("{}")
    lines = lora_lab("doctor", "--collect", str(tmp_path)).stdout.splitlines()
    assert lines[0].startswith("bob.json")
    assert "disk (0.5 GiB free)" in lines[0]
    assert lines[1].rstrip().endswith(platform.machine())  # a note is no reason to go and look
    assert lines[-1] == "1 of 2 are ready"
    found = json.loads(lora_lab("doctor", "--collect", str(tmp_path), "--json").stdout)["files"]
    assert [(name, one["green"]) for name, one in found.items()] == [("bob.json", False), ("ann.json", True)]
    with pytest.raises(NotFound, match="preflight"):
        report.letters_in(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        '{"findings": [',
        '{"findings": [{"green": false}], "system": "Linux"}',
        '{"findings": []}',
        '{"findings": [3]}',
        '{"findings": [], "green": true, "system": "Linux", "peak": NaN}',
    ],
)
def test_a_damaged_file_has_its_line_and_the_others_theirs(text: str, tmp_path: Path):
    report.write_letter([green("python", "3.11")], tmp_path / "ada.json")
    (tmp_path / "bob.json").write_text(text)
    first, second, last = report.collected(report.letters_in(tmp_path)).splitlines()
    assert first == "bob.json  RED  cannot be read: ask for it again"
    assert (second.startswith("ada.json  ok "), last) == (True, "1 of 2 are ready")


def test_what_was_sent_back_is_no_command_to_the_terminal(tmp_path: Path):
    report.write_letter([red("disk", "\x1b[2J", "free some")], tmp_path / "eve.json")
    assert "\x1b" not in report.collected(report.letters_in(tmp_path))


def test_it_says_something_where_torch_is_broken(tmp_path: Path):
    """A torch that cannot be imported, as without Microsoft's runtime: every other check still runs."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('[WinError 126] Error loading c10.dll')")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from lora_lab import cli\n"  # the whole command line can be imported
        "from lora_course.classroom.preflight import lab\n"
        "lab.check_packages = lambda: lab.red('packages', 'broken', 'mend')\n"
        "lab.look_at_assets = lambda: lab.green('assets', 'whole')\n"
        "print(*[one.name for one in lab.preflight(Path('.'))])\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = lab.run_python(["-c", code, str(tmp_path)])
    assert done.strip() == "python platform memory disk write path port browser packages assets training"
