"""Files are whole or absent."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lora_lab.errors import BadValue
from lora_lab.files import read_json, whole_folder, write_atomically, write_json


def test_a_file_is_written_into_a_new_folder_and_readable_by_all(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(BadValue, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one_there(tmp_path, monkeypatch):
    """On Windows a folder cannot be moved while somebody has one of its files open."""
    fill(tmp_path / "out", "old")
    monkeypatch.setattr(Path, "replace", refusing(Path.replace, "new"))
    with pytest.raises(BadValue, match="in use"):
        fill(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fill(target: Path, content: str) -> None:
    with whole_folder(target, "marker.json") as folder:
        (folder / "file").write_text(content)


def refusing(replace, name: str):
    """`Path.replace` that cannot move what has this name."""

    def moved(path: Path, target: Path) -> Path:
        if path.name == name:
            raise PermissionError(13, "in use")
        return replace(path, target)

    return moved


def test_a_process_killed_while_writing_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom lora_lab.files import write_atomically\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), b'new' * 100_000)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_json_there_and_back(tmp_path):
    value = {"größe": [1, 2.5, None, "ü"], "nested": {"a": True}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "größe" in (tmp_path / "x.json").read_text(encoding="utf-8")  # readable by a person too


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"5", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(BadValue, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadValue, match=r"nothing\.json is not readable"):
        read_json(tmp_path / "nothing.json")
