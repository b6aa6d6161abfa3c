"""The reference: it is made without a warning, and holds every public name with words of its own."""

import inspect
import runpy
from pathlib import Path

import lora_lab
from tests.docs import ROOT


def test_every_public_name_has_a_page_that_says_what_it_is(tmp_path: Path):
    runpy.run_path(str(ROOT / "docs" / "api.py"))["build"](tmp_path, ["lora_lab"])  # all of it would take a minute
    page = (tmp_path / "lora_lab.html").read_text(encoding="utf-8")
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
