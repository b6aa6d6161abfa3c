"""Checks for the exercises: each says what is wrong and why, or "not yet" if the exercise is unsolved.

There is one file per lesson. A lesson calls `checks.check_x(answer)` after `from lora_course import checks`. A check's
file is imported on first use, so that no lesson waits for the imports of other lessons.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from lora_course.checks.verdict import Verdict

_HOME = {  # {check: name of its file}
    name: file.stem
    for file in sorted(Path(__file__).parent.glob("*.py"))
    for name in re.findall(r"^def (check_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}

__all__ = ["Verdict", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lora_course.checks' has no attribute '{name}'")
    return getattr(import_module(f"lora_course.checks.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
