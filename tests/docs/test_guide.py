"""The guide's code names real panels, real arguments and real public names; its costs are those that were measured."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

import lora_lab
from tests.docs import ROOT

PAGE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


def test_panels_take_the_arguments_of_the_table():
    lines = re.findall(r"^\| `(\w+Panel\(.*?\))` \|", PAGE, re.MULTILINE)
    panels = {name for name in lora_lab.__all__ if name.endswith("Panel")}
    assert {line.partition("(")[0] for line in lines} == panels
    for line in lines:
        call = ast.parse(line, mode="eval").body
        assert isinstance(call, ast.Call)
        panel = getattr(lora_lab, line.partition("(")[0])
        inspect.signature(panel).bind(*call.args, **{str(keyword.arg): None for keyword in call.keywords})


def test_what_its_code_imports_exists():
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                assert hasattr(import_module(str(node.module)), name.name), name.name
