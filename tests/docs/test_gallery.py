"""The gallery holds every panel: a photograph, the same in words, and code that names real arguments."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.e2e.pictures import MOST_BYTES, PANELS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
BASES = {"Panel", "LivePanel", "MapPanel", "Named", "Shown"}  # what panels are made of
CLASSES = {
    match["name"]: file
    for folder in ("lora_lab/widgets", "lora_course/panels")
    for file in sorted((ROOT / folder).glob("*.py"))
    for match in re.finditer(
        r"^class (?P<name>\w+)\((?:\w*Panel|anywidget\.AnyWidget)[,)]", file.read_text(encoding="utf-8"), re.MULTILINE
    )
    if match["name"] not in BASES
}


def section(name: str) -> str:
    (found,) = re.findall(rf"^## {name}: .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found


def test_every_panel_is_there_and_nothing_else():
    assert set(re.findall(r"^## (\w+):", PAGE, re.MULTILINE)) == set(CLASSES)
    assert len(CLASSES) == len(PANELS) >= 9


@pytest.mark.parametrize("name", CLASSES)
def test_a_panel_has_its_photograph_in_words_too(name: str):
    ((words, picture),) = re.findall(r"!\[(.*?)\]\((pictures/\w+\.png)\)", section(name))
    assert words.startswith(f"{name}: ")
    assert len(words.split()) >= 15
    file = ROOT / "docs" / picture
    assert file.stat().st_size <= MOST_BYTES
    shown = imread(file)
    assert shown.shape[1] >= 500
    assert np.std(shown[..., :3]) > 0.05


@pytest.mark.parametrize("name", CLASSES)
def test_its_code_imports_it_and_gives_it_arguments_that_it_has(name: str):
    (code,) = re.findall(r"```python\n(.*?)```", section(name), re.DOTALL)
    tree = ast.parse(code)
    (imported,) = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    panel = getattr(import_module(str(imported.module)), name)
    (made,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name
    ]
    inspect.signature(panel).bind(*made.args, **{keyword.arg: None for keyword in made.keywords})


def test_every_photograph_is_shown():
    files = {f"pictures/{file.name}" for file in (ROOT / "docs" / "pictures").glob("*.png")}
    assert files == {f"pictures/{name}.png" for name in PANELS}
    assert all(file in PAGE for file in files)
