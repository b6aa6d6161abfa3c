import random
import zipfile

import pytest

from lora_lab.training.batches import Row, collate, training_rows


def rows(n: int, *, labels: int | None = 3, longest: int = 12, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    lengths = [rng.randint(2, longest) for _ in range(n)]
    return [
        Row([rng.randint(1, 95) for _ in range(length)], None if labels is None else rng.randrange(labels), place)
        for place, length in enumerate(lengths)
    ]


def training_batches(rows, batch: int, steps: int, seed: int, pad: int):
    return (collate(part, pad) for part in training_rows(rows, batch, steps, seed))


def wheel(folder, name: str, *requirements: str, tag="py3-none-any", version="1.0", python=">=3", more=None):
    path, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requirements]
    files = {
        f"{name}/__init__.py": f"TAG = '{tag}'\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/RECORD": f"{name}/__init__.py,,\n{info}/METADATA,,\n",
        **(more or {}),
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file), content)
    return path


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
