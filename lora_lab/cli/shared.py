"""Options and output functions that commands share."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from lora_lab.errors import printable

Command = Callable[..., Any]
DOWNLOAD = click.option("--download", is_flag=True, help="Allow downloads from the model hub.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine options into one decorator; --help lists them in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def say(message: str) -> None:
    """Print a message on stderr; stdout is for the answer."""
    click.echo(printable(message, "\n"), err=True)  # `print` would use stdout if stderr is closed


def tell(answer: dict[str, Any] | str) -> None:
    """Print the answer on stdout: a dictionary as one JSON object, and text without control characters."""
    print(json.dumps(answer, allow_nan=False) if isinstance(answer, dict) else printable(answer, "\n"))


def with_minutes() -> Callable[[str], None]:
    """Return a function `say` that starts each message with the minutes since this call."""
    started = time.perf_counter()
    return lambda message: say(f"{(time.perf_counter() - started) / 60:6.1f} min  {message}")


def aligned(lines: Sequence[Sequence[str]], sides: str = "") -> list[str]:
    """Align columns two spaces apart; `sides` has "<" or ">" for each column, by default all "<"."""
    lines = [[printable(cell) for cell in line] for line in lines]  # before widths are measured
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    formats = list(zip(sides or "<" * len(widths), widths, strict=True))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, formats, strict=True)).rstrip()
        for line in lines
    ]
