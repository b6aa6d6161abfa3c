"""The file that is sent back, and forty of them in one table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_course.classroom.preflight.findings import Finding, letter
from lora_lab import __version__
from lora_lab.errors import BadValue, NotFound, printable
from lora_lab.files import read_json, write_json

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


def letters_in(folder: Path) -> dict[str, dict[str, Any]]:
    """What was sent back (*.json in the folder) by the file's name, the red ones first.

    A damaged file is red. Raises: NotFound where there is none.
    """
    letters = {path.name: one for path in sorted(folder.glob("*.json")) if (one := _read(path))}
    if not letters:
        raise NotFound(f"no file of lora-lab doctor --preflight lies in {folder}")
    return dict(sorted(letters.items(), key=lambda pair: bool(pair[1]["green"])))


def collected(letters: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each file that was sent back, with what is red."""
    width = max(map(len, letters))
    lines = [printable(f"{name:{width}}  {_in_words(one)}".rstrip()) for name, one in letters.items()]
    return "\n".join([*lines, f"{sum(bool(one['green']) for one in letters.values())} of {len(letters)} are ready"])


def _read(path: Path) -> dict[str, Any]:
    """A letter; nothing where it is a file of another kind."""
    try:
        one = read_json(path)
        if not isinstance(one.get("findings"), list):
            return {}
        _in_words(one)
        json.dumps(one, allow_nan=False)  # as it is told with --json
    except (BadValue, KeyError, TypeError, ValueError):  # cut off on its way, or changed by hand
        return {"green": False, "system": "cannot be read: ask for it again", "findings": []}
    return one


def _in_words(one: Mapping[str, Any]) -> str:
    told = [found for found in one["findings"] if not (found["green"] or found.get("harmless"))]
    wrong = [f"{found['name']} ({found['found']})" for found in told]
    return f"{'ok ' if one['green'] else 'RED'}  {one['system']}  {'; '.join(wrong)}"
