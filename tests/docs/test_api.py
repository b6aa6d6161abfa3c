"""The reference: it is made without a warning, and holds every public name with words of its own."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import lora_lab

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def api() -> ModuleType:
    """docs/api.py, which is a script."""
    spec = importlib.util.spec_from_file_location("api", ROOT / "docs" / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(api: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("api")
    api.build(folder, ["lora_lab"])  # the face alone: the whole house takes a minute
    return (folder / "lora_lab.html").read_text(encoding="utf-8")


def test_every_public_name_has_a_page_that_says_what_it_is(page: str):
    for name in lora_lab.__all__:
        words = inspect.getdoc(getattr(lora_lab, name))
        assert words, f"{name} has no docstring"
        assert f'id="{name}"' in page
        assert not words.startswith(f"{name}("), f"the words of {name} are dataclass's own"


def test_every_public_method_of_a_public_name_has_a_docstring():
    for name in lora_lab.__all__:
        for own, value in vars(getattr(lora_lab, name)).items() if inspect.isclass(getattr(lora_lab, name)) else ():
            if not own.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(getattr(lora_lab, name), own)), f"{name}.{own} has no docstring"
