import os
import stat
import sys
import threading
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest

from lora_lab.errors import BadValue
from lora_lab.files import read_json, refuse_foreign, whole_folder, write_atomically, write_together
from lora_lab.lazy import Lazy
from lora_lab.machine import quiet
from tests.conftest import assert_raises, until

IN_USE = PermissionError(13, "in use")  # Windows raises it for files that are open


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_permissions_follow_the_umask(umask, folder, file, tmp_path):
    previous = os.umask(umask)
    try:
        write_atomically(tmp_path / "record", b"")
        with whole_folder(tmp_path / "out", "marker.json") as new:
            (new / "inner").mkdir()
            os.close(os.open(new / "private", os.O_CREAT, 0o600))
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"record": file, "out": folder, "inner": folder, "private": file, "marker.json": file}


def test_failed_write_keeps_the_old_content_and_a_file_in_use_is_replaced_later(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        assert_raises("No space left", write_atomically, path, b"new")
    assert path.read_bytes() == b"old"
    monkeypatch.setattr(os, "replace", Mock(wraps=os.replace, side_effect=[IN_USE, IN_USE, DEFAULT]))
    write_atomically(path, b"new")
    assert [(file, file.read_bytes()) for file in tmp_path.iterdir()] == [(path, b"new")]
    for content in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        assert_raises("file", read_json, path)


@pytest.mark.parametrize("crash", [False, True])
def test_files_written_together_never_mix(crash, tmp_path, monkeypatch):
    """os.replace fails at its first call, then at its second, and so on; after a crash, all later calls fail, too."""
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow
    for failing in range(1, 6):
        folder, calls = tmp_path / str(failing), []

        def fail(source: Path, target: Path, failing=failing, calls=calls) -> None:
            calls.append(target)
            if len(calls) == failing or (crash and len(calls) > failing):
                raise OSError(5, "the machine stops")
            replace(source, target)

        write_together(folder, {"weights": b"old", "config": b"old"})
        with monkeypatch.context() as patch, suppress(BadValue):
            patch.setattr(os, "replace", fail)
            write_together(folder, {"weights": b"new", "config": b"new"})
        contents = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
        if len(calls) < failing:
            assert contents == {"weights": b"new", "config": b"new"}
        elif crash:  # if the last file is missing, readers ignore the others
            assert "config" not in contents or set(contents.values()) == {b"old"}
        else:
            assert contents == {"weights": b"old", "config": b"old"}
            assert len(list(folder.iterdir())) == 2


def test_earlier_files_that_cannot_be_deleted_stay_until_the_next_write(tmp_path, monkeypatch):
    write_together(tmp_path, {"a": b"old", "b": b"old"})
    unlink = Path.unlink

    def refuse_earlier(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".earlier"):
            raise IN_USE
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse_earlier)
        write_together(tmp_path, {"a": b"new", "b": b"new"})
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"new", b"new"]
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / ".a.0123abcd").touch()  # left by a killed process
    write_together(tmp_path, {"a": b"newest", "b": b"newest"})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_folder_that_cannot_be_moved_leaves_the_earlier_one(tmp_path, monkeypatch):
    def write(content: str) -> None:
        with whole_folder(tmp_path / "out", "marker.json") as folder:
            (folder / "file").write_text(content)

    replace = Path.replace

    def refuse_new(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise IN_USE
        return replace(path, target)

    write("old")
    monkeypatch.setattr(Path, "replace", refuse_new)
    assert_raises("in use", write, "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folder_that_cannot_be_replaced_or_named_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_raises("the current folder", refuse_foreign, tmp_path, "marker.json")
    assert_raises("a mount point", refuse_foreign, Path("/"), "marker.json")
    assert_raises("name too long", write_atomically, Path("a" * 300), b"")


def test_warnings_return_after_overlapping_blocks_in_threads():
    filters, first, second = [*warnings.filters], quiet(), quiet()
    first.__enter__()
    second.__enter__()
    assert warnings.filters[0][0] == "ignore"
    first.__exit__(None, None, None)
    assert warnings.filters[0][0] == "ignore"
    second.__exit__(None, None, None)
    assert warnings.filters == filters


def test_lazy_module_waits_for_another_threads_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.5)\nvalue = 3")
    thread = threading.Thread(target=import_module, args=("slow_module",))
    thread.start()
    until(lambda: "slow_module" in sys.modules)
    assert Lazy("slow_module").value == 3
    thread.join()
