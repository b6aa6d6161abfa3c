"""What commands share: options, groups of options, and printing to stdout and stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
DOWNLOAD = click.option("--download", is_flag=True, help="Allow downloads from the model hub.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; --help names them in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def say(words: str) -> None:
    """Print progress to stderr; stdout is for the answer."""
    print(words, file=sys.stderr, flush=True)


def tell(answer: dict[str, Any] | str) -> None:
    """Print the answer to stdout: a dictionary as one JSON object, otherwise text."""
    print(json.dumps(answer, allow_nan=False) if isinstance(answer, dict) else answer)


def with_minutes() -> Callable[[str], None]:
    """`say` with the minutes from now on in front of each line."""
    started = time.perf_counter()
    return lambda words: say(f"{(time.perf_counter() - started) / 60:6.1f} min  {words}")
