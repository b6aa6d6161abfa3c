"""A shop of toy wheels as pip's only source, and a wheelhouse that was gathered from it once."""

from __future__ import annotations

import os
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from lora_course.classroom.wheelhouse import gather
from lora_course.classroom.wheelhouse.targets import Target
from lora_lab.training import assets
from lora_lab.training.assets import Asset

WINDOWS, LINUX, MAC = Target("windows", "3.12"), Target("linux", "3.11"), Target("macos-arm64", "3.11")


def wheel(
    folder: Path, name: str, needs: tuple[str, ...] = (), tag: str = "py3-none-any", version: str = "1.0",
    python: str = ">=3",
) -> Path:  # fmt: skip
    """A wheel of one module that holds nothing; its bytes differ with its tag."""
    path, facts = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    about = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}",
        *(f"Requires-Dist: {one}" for one in needs),
    ]
    files = {
        f"{name}/__init__.py": f"TAG = '{tag}'\n",
        f"{facts}/METADATA": "\n".join(about) + "\n",
        f"{facts}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{facts}/RECORD": "".join(f"{one},,\n" for one in (f"{name}/__init__.py", f"{facts}/METADATA")),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return path


NEEDS = ("plain", "speed", 'shell; sys_platform != "win32"', 'console; os_name == "nt"', 'old; python_version < "3.12"')


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: some for every machine, `speed` for each of two; and the lab's own in `own`."""
    folder = tmp_path_factory.mktemp("shop")
    for name in ("plain", "shell", "console", "old", "toy_data"):
        wheel(folder, name)
    wheel(folder, "speed", tag="cp312-cp312-win_amd64")
    wheel(folder, "speed", tag="cp311-cp311-manylinux_2_28_x86_64")
    (folder / "own").mkdir()
    wheel(folder / "own", "lora_lab", NEEDS, version="0.1.0")
    return folder


@pytest.fixture
def only_source(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees nothing but the shop, and the lab has one asset."""
    _see_only(shop, monkeypatch)
    return shop


def _see_only(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"toy-data==1.0 --hash=sha256:{sha256((shop / 'toy_data-1.0-py3-none-any.whl').read_bytes()).hexdigest()}"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(assets, "lock", lambda: {"toy-data": line})
    monkeypatch.setattr(assets, "ASSETS", {"toy": Asset("toy-data", ("*.py",))})


@pytest.fixture(scope="session")
def gathered(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse for two machines, in a folder with a blank and letters that ASCII lacks. Not to be changed."""
    folder = tmp_path_factory.mktemp("Räder für alle")
    with pytest.MonkeyPatch.context() as patch:
        _see_only(shop, patch)
        wishes = gather.Wishes(wheel=next((shop / "own").glob("*.whl")))
        gather.gather(folder, [WINDOWS, LINUX], wishes, lambda words: None)
    return folder


@pytest.fixture
def house(gathered: Path, only_source: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed at will."""
    return Path(shutil.copytree(gathered, tmp_path / "Räder für alle"))
