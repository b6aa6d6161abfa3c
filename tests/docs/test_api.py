import inspect
import runpy
from pathlib import Path

import lora_lab
from tests.docs import ROOT


def test_every_public_name_and_method_is_documented(tmp_path: Path):
    runpy.run_path(str(ROOT / "docs" / "api.py"))["build"](tmp_path, ["lora_lab"])  # all modules would take a minute
    page = (tmp_path / "lora_lab.html").read_text(encoding="utf-8")
    for name in lora_lab.__all__:
        value = getattr(lora_lab, name)
        docstring = inspect.getdoc(value)
        assert docstring, f"{name} has no docstring"
        assert not docstring.startswith(f"{name}("), f"{name} has only the docstring that dataclass generates"
        assert f'id="{name}"' in page
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, attribute in members:
            if not member.startswith("_") and (inspect.isfunction(attribute) or isinstance(attribute, property)):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member} has no docstring"
