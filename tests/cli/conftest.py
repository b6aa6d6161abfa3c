"""The command line in this process, where torch is imported already: a process of its own takes seconds to begin."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lora_course import cli


@dataclass
class Done:
    """What a command left: as `subprocess.run` names it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def lora_lab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`lora_lab("sweep", "--rank", "4")`: the command, run to its end."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line sets

    def command(*words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["lora-lab", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Done(int(left.value.code or 0), *capfd.readouterr())

    return command
