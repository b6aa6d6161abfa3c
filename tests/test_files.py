"""Files are whole or absent."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_lab.errors import BadValue
from lora_lab.files import read_json, whole_folder, write_atomically, write_together


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_who_may_read_what_is_written_is_what_the_umask_says(umask, folder, file, tmp_path):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "record", b"")
        with whole_folder(tmp_path / "out", "marker.json") as new:
            (new / "inner").mkdir()
            os.close(os.open(new / "private", os.O_CREAT, 0o600))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"record": file, "out": folder, "inner": folder, "private": file, "marker.json": file}


def test_a_write_that_fails_leaves_the_old_content_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(BadValue, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ever_after", [False, True])
def test_files_written_together_are_never_mixed_and_are_restored_after_an_error(ever_after, tmp_path, monkeypatch):
    """os.replace fails at each of its calls in turn and, as when a machine stops, ever after."""
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow
    for call in range(1, 6):
        folder, calls = tmp_path / str(call), []

        def moved(source: Path, target: Path, call=call, calls=calls) -> None:
            calls.append(target)
            if len(calls) == call or (ever_after and len(calls) > call):
                raise OSError(5, "the machine stops")
            replace(source, target)

        write_together(folder, {"weights": b"old", "config": b"old"})
        with monkeypatch.context() as patch, suppress(BadValue):
            patch.setattr(os, "replace", moved)
            write_together(folder, {"weights": b"new", "config": b"new"})
        found = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
        failed = len(calls) >= call
        if failed and not ever_after:
            assert {path.name for path in folder.iterdir()} == {"weights", "config"}
            assert set(found.values()) == {b"old"}
        elif failed:  # without the last file, the others are not read
            assert "config" not in found or set(found.values()) == {b"old"}
        else:
            assert set(found.values()) == {b"new"}


def test_files_are_written_although_an_earlier_one_cannot_be_taken_away(tmp_path, monkeypatch):
    """On Windows a file cannot be deleted while somebody has it open."""
    write_together(tmp_path, {"a": b"old", "b": b"old"})
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".earlier"):
            raise PermissionError(13, "in use")
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        write_together(tmp_path, {"a": b"new", "b": b"new"})
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"new", b"new"]
    assert len(list(tmp_path.iterdir())) == 4
    write_together(tmp_path, {"a": b"newest", "b": b"newest"})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


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


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(BadValue, match=r"x\.json"):
        read_json(tmp_path / "x.json")
