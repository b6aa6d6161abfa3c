"""The file that is sent back, and forty of them in one table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_lab import __version__
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json, write_json
from lora_lab.preflight.findings import Finding, letter

FILE = "lora-lab-preflight.json"


def write_letter(findings: Iterable[Finding], wanted: Path) -> tuple[dict[str, Any], Path]:
    """Write what is sent back; into the system's own scratch folder where `wanted` cannot be written to.

    Returns the letter, and where it lies.
    """
    told = letter(findings, __version__, datetime.now(UTC).date().isoformat())
    for path in (wanted, Path(tempfile.gettempdir()) / FILE):
        try:
            write_json(path, told)
        except BadValue:
            continue
        return told, path
    raise BadValue(f"neither {wanted} nor {tempfile.gettempdir()} can be written to; give --out FILE on a stick")


def collected(folder: Path) -> str:
    """A line for each file that was sent back (*.json in the folder), the red ones first, with what is red.

    A damaged file is red. Raises: NotFound where there is none.
    """
    told = {path.name: words for path in sorted(folder.glob("*.json")) if (words := _read(path))}
    if not told:
        raise NotFound(f"no file of lora-lab doctor --preflight lies in {folder}")
    width = max(map(len, told))
    lines = [f"{name:{width}}  {words}".rstrip() for name, words in sorted(told.items(), key=lambda pair: _ok(pair[1]))]
    return "\n".join([*lines, f"{sum(map(_ok, told.values()))} of {len(told)} are ready"])


def _read(path: Path) -> str:
    """What a letter says, in words; none where it is a file of another kind."""
    try:
        return _in_words(read_json(path))
    except (BadValue, KeyError, TypeError):  # cut off on its way, or changed by hand
        return "RED  cannot be read: ask for it again"


def _in_words(one: dict[str, Any]) -> str:
    if not isinstance(one.get("findings"), list):
        return ""
    wrong = [f"{found['name']} ({found['found']})" for found in one["findings"] if not found["green"]]
    return f"{'RED' if wrong else 'ok '}  {one['system']}  {'; '.join(wrong)}"


def _ok(words: str) -> bool:
    return words.startswith("ok")
