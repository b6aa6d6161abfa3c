"""A wheelhouse for other machines: the right wheels, the manifest, going on after a stop, clear errors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_course.classroom.wheelhouse import contents, gather, pip
from lora_course.classroom.wheelhouse.contents import Locked
from lora_course.classroom.wheelhouse.targets import Target
from lora_lab.errors import BadValue, Failed
from tests.cli.conftest import lora_lab  # noqa: F401  the command line, as a fixture
from tests.course.classroom.wheelhouse.conftest import LINUX, MAC, WINDOWS, wheel


def wishes(shop: Path, **more: object) -> gather.Wishes:
    return gather.Wishes(wheel=next((shop / "own").glob("*.whl")), **more)


def silent(words: str) -> None:
    """Nobody listens."""


def names(folder: Path, target: Target) -> set[str]:
    return {one.name.replace("-", "_") for one in contents.read_lock(folder / f"{target.name}.txt")}


def test_each_machine_gets_what_it_needs_and_not_what_this_one_needs(gathered: Path):
    assert names(gathered, WINDOWS) == {"lora_lab", "plain", "speed", "console"}
    assert names(gathered, LINUX) == {"lora_lab", "plain", "speed", "shell", "old"}


def test_nothing_of_pips_insides_is_used():
    """They change with any release of pip."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(pip.__file__).parent.glob("*.py"))
    assert not re.findall(r"pip\._\w+", code)


@pytest.mark.parametrize(
    ("target", "needed"),
    [(WINDOWS, {"amd", "late"}), (LINUX, {"intel", "early"}), (MAC, {"silicon", "early"})],
)
def test_conditions_are_read_for_the_other_machine_and_an_older_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, needed: set[str]
):
    """And only pip's own settings say where: here its file, as its user writes it."""
    needs = [
        'amd; platform_machine == "AMD64"',
        'intel; platform_machine == "x86_64"',
        'silicon; platform_machine == "arm64"',
    ]
    needs += ['late; python_version >= "3.12"', 'early; python_full_version < "3.12"', "asks", "asked<2", "bound"]
    for version in ("0.5", "1.0", "2.0"):
        wheel(tmp_path, "bound", version=version)
    for name in ("amd", "intel", "silicon", "early"):
        wheel(tmp_path, name)
    wheel(tmp_path, "late", python=">=3.12")  # whatever Python runs this
    wheel(tmp_path, "asks", ("asked>=2",), version="2.0")
    wheel(tmp_path, "asks", ("asked>=1",), version="1.0")
    wheel(tmp_path, "asked", version="2.0")
    wheel(tmp_path, "asked", version="1.0")
    (tmp_path / "own wheel").mkdir()
    own = wheel(tmp_path / "own wheel", "lora_lab", tuple(needs), version="0.1.0")
    here = f"python_version == '{target.python}'"  # a constraint for that Python, and one for all others
    bounds = tmp_path / "bounds.txt"
    bounds.write_text(f"bound<2; {here}\nbound<1; {here.replace('==', '!=')}\n")
    settings = f"no-index = true\nfind-links = {tmp_path}\nconstraint = {bounds}\n"
    (tmp_path / "pip.conf").write_text(f"[global]\n{settings}")
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    lock = contents.lock_of(pip.resolve(target, own, own.parent))
    locked = tmp_path / f"{target.name}.txt"
    locked.write_text("".join(f"{one}\n" for one in lock))
    pip.download(target, locked, own.parent)
    assert len(list(own.parent.glob("*.whl"))) == len(lock)
    assert {(one.name, one.version) for one in lock} == {
        *((name, "1.0") for name in needed), ("asks", "1.0"), ("asked", "1.0"), ("bound", "1.0"), ("lora_lab", "0.1.0"),
    }  # fmt: skip


def test_without_uv_it_is_said_how_to_get_it(only_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pip, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadValue, match=r"pip install 'lora-lab\[wheelhouse\]'"):
        gather.gather(tmp_path / "house", [LINUX], wishes(only_source), silent)
    assert not (tmp_path / "house").exists()


def test_uvs_reason_is_one_line():
    old = "  × No solution found:\n  ╰─▶ Because speed has no wheels\n      and more.\n\nhint: try"
    assert pip.reason(old) == "No solution found: Because speed has no wheels and more"
    assert pip.reason("error: No solution\n  cause: Because of it.\n\nhint: x") == "No solution Because of it"
    assert pip.reason("") == "no reason given"


def test_each_machine_gets_the_wheel_that_was_built_for_it(gathered: Path):
    targets = contents.manifest_of(gathered)["targets"]
    assert "wheels/speed-1.0-cp312-cp312-win_amd64.whl" in targets[WINDOWS.name]
    assert "wheels/speed-1.0-cp311-cp311-manylinux_2_28_x86_64.whl" in targets[LINUX.name]
    assert set(targets[WINDOWS.name]) & set(targets[LINUX.name]) == {
        "wheels/lora_lab-0.1.0-py3-none-any.whl",
        "wheels/plain-1.0-py3-none-any.whl",
    }


def test_the_manifest_names_every_file_with_size_and_hash(gathered: Path):
    files = contents.manifest_of(gathered)["files"]
    there = {path.relative_to(gathered).as_posix() for path in gathered.rglob("*") if path.is_file()}
    assert set(files) == there - {"manifest.json"}
    assert {"assets/toy_data-1.0-py3-none-any.whl", "HOWTO.txt", "install.py", "install.sh", "install.cmd"} <= set(
        files
    )
    assert contents.problems(gathered) == []


def test_how_to_use_it_names_the_machines(gathered: Path):
    text = (gathered / "HOWTO.txt").read_bytes()
    assert b"Windows (x86-64), Python 3.12\r\n" in text  # Windows' own editors show lines
    assert b"$" not in text
    if os.name != "nt":
        assert os.access(gathered / "install.sh", os.X_OK)
    assert b"\r" not in (gathered / "install.sh").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_every_damage_to_a_file_is_found(house: Path, damage: str):
    file = house / "wheels" / "plain-1.0-py3-none-any.whl"
    content = file.read_bytes()
    {
        "cut": lambda: file.write_bytes(content[:-9]),
        "changed": lambda: file.write_bytes(content[:-9] + bytes(9)),  # as a stick that was pulled out leaves it
        "gone": file.unlink,
    }[damage]()
    (problem,) = contents.problems(house)
    assert problem.startswith("wheels/plain-1.0-py3-none-any.whl ")


def test_it_goes_on_where_it_was(house: Path, shop: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped in the middle of a copy: that file is fetched again, the versions are kept, and a stranger goes."""
    whole = contents.manifest_of(house)["files"]
    wheels = house / "wheels"
    (wheels / "plain-1.0-py3-none-any.whl").write_bytes(b"half")
    (wheels / "plain-0.9-py3-none-any.whl").write_bytes(b"an earlier version")
    (house / "manifest.json").write_text('{"lab": "0", "targets": {}, "files": {}}')
    monkeypatch.setattr(pip, "resolve", lambda *a: pytest.fail("the versions were chosen already"))
    gather.gather(house, [LINUX], wishes(shop), silent)
    assert contents.manifest_of(house)["files"] == whole
    assert contents.problems(house) == []
    assert not (wheels / "plain-0.9-py3-none-any.whl").exists()


def test_one_that_was_stopped_at_the_start_is_no_wheelhouse_yet(tmp_path: Path, lora_lab: Callable):  # noqa: F811
    with pytest.raises(BadValue, match="not the lab's wheel"):
        gather.gather(tmp_path, [LINUX], gather.Wishes(wheel=tmp_path / "other.whl"), silent)
    done = lora_lab("wheelhouse", "--out", str(tmp_path), "--check")
    assert (done.returncode, "was not finished: run lora-lab wheelhouse" in done.stderr) == (2, True)


def test_what_is_there_and_whole_is_not_fetched_again(house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    own = next((house / "wheels").glob("lora_lab-*.whl"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))  # no network
    monkeypatch.setattr(pip, "download_asset", lambda locked, folder: None)
    gather.gather(house, [WINDOWS], gather.Wishes(wheel=own), silent)
    assert contents.problems(house) == []


def test_a_wheel_that_a_machine_lacks_is_named_with_the_machine(house: Path, shop: Path):
    with pytest.raises(Failed, match=r"macOS 14 or newer \(Apple silicon\), Python 3\.11.*speed") as caught:
        gather.gather(house, [MAC], wishes(shop), silent)
    assert "\n" not in str(caught.value)


def test_cuda_is_refused_unless_it_is_asked_for():
    lock = [Locked("nvidia-cublas-cu12", "1", "a"), Locked("torch", "2.9.0", "b"), Locked("triton", "3", "c")]
    with pytest.raises(BadValue, match=r"brings 2 CUDA packages.*--torch-index.*--cuda"):
        pip.refuse_cuda(lock, LINUX)
    pip.refuse_cuda([Locked("torch", "2.9.0+cpu", "b")], LINUX)


def test_torch_from_another_index_is_pinned(only_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The CPU build has a version of its own, 1.0+cpu, in a folder that is laid out as an index."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    index = tmp_path / "index" / "torch"
    index.mkdir(parents=True)
    made = wheel(index, "torch", version="2.9.0+cpu", tag="cp311-cp311-linux_x86_64")
    link = contents.facts_of(made)["sha256"]
    (index / "index.html").write_text(f'<a href="{made.name.replace("+", "%2B")}#sha256={link}">{made.name}</a>')
    target = tmp_path / "wheels"
    target.mkdir()
    assert pip.download_torch(LINUX, index.parent.as_uri(), target) == "torch==2.9.0+cpu"
    assert [path.name for path in target.iterdir()] == [made.name]


def test_a_pinned_torch_is_taken_from_the_folder_in_place_of_a_newer_one(only_source: Path, tmp_path: Path):
    wheel(tmp_path, "torch", version="2.9.0+cpu", tag="cp311-cp311-linux_x86_64")
    wheel(tmp_path, "torch", version="2.10.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    own = wheel(tmp_path, "lora_lab", ("torch>=2.6",), version="0.1.0")
    lock = contents.lock_of(pip.resolve(LINUX, own, tmp_path, ["torch==2.9.0+cpu"]))
    assert [(one.name, one.version) for one in lock] == [("lora_lab", "0.1.0"), ("torch", "2.9.0+cpu")]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadValue, match="something else"):
        gather.gather(tmp_path, [LINUX], gather.Wishes(), silent)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_settings_of_pip_with_other_letters_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own, odd = tmp_path / "own", tmp_path / "Räder"
    own.mkdir()
    odd.mkdir()
    wheel(odd, "plain")
    (tmp_path / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {odd}\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")  # as a pipe is on Windows
    monkeypatch.setenv("PYTHONUTF8", "1")
    report = pip.resolve(LINUX, wheel(own, "lora_lab", ("plain",), version="0.1.0"), own)
    assert {one["metadata"]["name"] for one in report["install"]} == {"lora_lab", "plain"}


def test_settings_of_pip_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pip.conf").write_text("find-links = there\n")  # no section
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(Failed, match="settings"):
        pip.resolve(LINUX, wheel(tmp_path, "lora_lab", version="0.1.0"), tmp_path)


def test_another_file_is_not_taken_for_the_labs_wheel(tmp_path: Path):
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.write_bytes(b"")
    with pytest.raises(BadValue, match="not the lab's wheel"):
        gather.gather(tmp_path / "out", [LINUX], gather.Wishes(wheel=other), silent)


def test_without_a_clone_the_wheel_must_be_given(tmp_path: Path):
    with pytest.raises(BadValue, match="--wheel FILE"):
        pip.build_wheel(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("platform", "python", "words"),
    [
        ("window", "3.11", "did you mean windows"),
        ("linux", "3.9", "3.11 or newer"),
        ("linux", "newest", "such as 3.11"),
    ],
)
def test_a_machine_that_cannot_be_is_named(platform: str, python: str, words: str):
    with pytest.raises(BadValue, match=words):
        Target(platform, python)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("", "no reason given"),
        ("WARNING: a\nERROR: first\nERROR: No match for b\nhint", "No match for b"),
        ("ERROR: Could not find a version of c (from d)\nERROR: No match", "Could not find a version of c (from d)"),
    ],
)
def test_pips_reason_is_one_line(said: str, word: str):
    assert pip.last_word(said) == word


def test_a_report_without_a_hash_is_refused():
    item = {"metadata": {"name": "a", "version": "1"}, "download_info": {"url": "x", "dir_info": {}}}
    with pytest.raises(BadValue, match="no sha256 for a 1"):
        contents.lock_of({"install": [item]})


def test_a_lock_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "linux-3.11.txt").write_text("torch\n")
    with pytest.raises(BadValue, match="not a list of locked wheels"):
        contents.read_lock(tmp_path / "linux-3.11.txt")


def test_the_command_checks_a_copy_and_says_what_is_in_it(house: Path, lora_lab: Callable):  # noqa: F811
    done = lora_lab("wheelhouse", "--out", str(house), "--check")
    assert done.returncode == 0
    assert "Windows (x86-64), Python 3.12: 4 wheels" in done.stdout
    assert json.loads(lora_lab("wheelhouse", "--out", str(house), "--check", "--json").stdout)["lab"]
    (house / "install.py").unlink()
    done = lora_lab("wheelhouse", "--out", str(house), "--check")
    assert (done.returncode, "install.py is missing" in done.stderr) == (1, True)
    done = lora_lab("wheelhouse", "--out", str(house / "wheels"), "--check")
    assert (done.returncode, "is not a wheelhouse" in done.stderr) == (2, True)
