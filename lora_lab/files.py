"""Files that are whole or absent: written beside their place, then moved into it in one step."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import Any

from lora_lab.errors import BadValue


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, meets the old content or the new, never a part.

    Raises: BadValue when the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_new(temporary, content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:  # no such folder, no right to it, disk full, or on Windows: somebody has the file open
        raise BadValue(f"cannot write into {path.parent}: {error.strerror}; choose another folder") from error


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that belong together, by name, so that new ones never stand beside old ones.

    The last one is taken away first and comes last: where a process is killed on the way, it is missing. So let the
    last be the file without which nobody reads the others.
    Raises: BadValue when the folder cannot be written to; what was there is then there again.
    """
    mark = token_hex(4)
    new = {name: folder / f".{name}.{mark}" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, content in contents.items():
                _write_new(new[name], content)
            _move_together(folder, new)
        finally:
            for path in new.values():
                path.unlink(missing_ok=True)
    except OSError as error:
        raise BadValue(f"cannot write into {folder}: {error.strerror}; choose another folder") from error


def _move_together(folder: Path, new: Mapping[str, Path]) -> None:
    """Move files to their names in the folder; if that fails, what was there before is moved back."""
    *others, last = new
    earlier = {name: path.with_name(f"{path.name}.earlier") for name, path in new.items()}
    there = [name for name in (last, *others) if (folder / name).exists()]
    try:
        for name in there:
            os.replace(folder / name, earlier[name])
        for name, path in new.items():
            os.replace(path, folder / name)
    except BaseException:
        for name in new:
            if earlier[name].exists():
                os.replace(earlier[name], folder / name)
            elif name not in there:
                (folder / name).unlink(missing_ok=True)
        raise
    for name in new:  # also those that an earlier call was killed before it took away
        for path in folder.glob(f".{escape(name)}.*.earlier"):
            with suppress(OSError):  # on Windows somebody may have it open; the new files are in place
                path.unlink()


def _write_new(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:  # unlike tempfile's, it has the permissions that the umask leaves
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that a person can read, atomically."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> bytes:
    """A value as JSON that a person can read."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def whole_folder(target: Path, marker: str) -> Iterator[Path]:
    """A folder beside `target` to write into, which becomes `target` when the block ends well and is gone otherwise.

    marker   the JSON file that names the files of an earlier result, which is then replaced; see `refuse_foreign`
    Raises: BadValue when the folder cannot be written to, or holds something else.
    """
    refuse_foreign(target, marker)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BadValue(f"cannot write into {target.parent}: {error.strerror}; choose another folder") from error
    try:
        folder, earlier = scratch / "new", scratch / "earlier"
        folder.mkdir()
        yield folder
        files = sorted(p.name for p in folder.iterdir())
        write_json(folder / marker, {**(read_json(folder / marker) if marker in files else {}), "files": files})
        allowed = folder.stat().st_mode & 0o777  # what the umask leaves; safetensors makes its files private
        for path in folder.iterdir():
            path.chmod(allowed if path.is_dir() else allowed & 0o666)
        refuse_foreign(target, marker)  # once more: it may have taken minutes
        if target.exists():
            target.replace(earlier)
        try:
            folder.replace(target)
        except OSError:  # as on Windows, if somebody has one of the files open: the earlier result returns
            if earlier.exists():
                earlier.replace(target)
            raise
    except OSError as error:
        raise BadValue(f"cannot write {target}: {error}; free some disk or choose another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_foreign(target: Path, marker: str) -> None:
    """Raises BadValue where `target` is a file, or a folder with anything in it that no marker of ours names."""
    if target.exists() and not target.is_dir():
        raise BadValue(f"{target} is a file: choose another folder")
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    named = read_json(target / marker).get("files") if marker in found else []
    ours = {marker, *(named if isinstance(named, list) else [])}
    if foreign := sorted(found - ours):
        raise BadValue(f"the folder {target} is not empty: {foreign[0]} in it is not ours; choose another folder")


def remembered(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds, made and written first where there is none. Raises: as `read_json`, and as `make`."""
    if not file.is_file():
        write_json(file, make())
    return read_json(file)


def read_json(path: Path | zipfile.Path) -> dict[str, Any]:
    """Read one JSON object. Raises BadValue when the file holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        raise BadValue(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{path} holds {type(value).__name__}, not a JSON object")
    return value
