"""Files that are whole or absent: written beside their place, then moved into it in one step."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, meets the old content or the new, never a part.

    Raises: BadValue when the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            _write_and_move(handle, temporary, path, content)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:  # no such folder, no right to it, disk full, or on Windows: somebody has the file open
        raise BadValue(f"cannot write into {path.parent}: {error.strerror}; choose another folder") from error


def _write_and_move(handle: int, temporary: str, path: Path, content: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp makes it private; a classroom shares its folder
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that a person can read, atomically."""
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises BadValue when the file holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadValue(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{path} holds {type(value).__name__}, not a JSON object")
    return value
