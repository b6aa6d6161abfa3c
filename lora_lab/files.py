"""Write files atomically, by renaming temporary files."""

import errno
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import file_digest
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from lora_lab.errors import BadValue


def as_path(folder: object) -> Path:
    """Return a folder's path, with ~ expanded. Raises: BadValue for anything other than a string or a path."""
    try:
        return Path(os.path.expanduser(folder))  # type: ignore[call-overload]
    except TypeError:
        raise BadValue(f"a folder must be given as a string or a path, not {folder!r}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see either the old or the new content, even after a power failure.

    Raises: BadValue if the folder cannot be written to, or if `path` is a folder.
    """
    with _written(path.parent, {path.name: content}) as new:
        _replace(new[path.name], path)


def check_writable(path: Path) -> None:
    """Check that `write_atomically` can write a file, without changing the file. Raises: see `write_atomically`."""
    with _written(path.parent, {path.name: b""}):
        pass


@contextmanager
def _written(folder: Path, contents: Mapping[str, bytes]) -> Iterator[dict[str, Path]]:
    """Write temporary files and yield {name: path}. On exit, remove the files that weren't renamed."""
    if folders := [folder / name for name in contents if os.path.isdir(folder / name)]:
        raise BadValue(f"{folders[0]} is a folder: add the name of a file in it")
    new = {name: folder / f".{name}.{token_hex(4)}" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, content in contents.items():
                with open(new[name], "xb") as file:  # unlike tempfile, this respects the umask
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            yield new
        finally:
            for path in new.values():
                path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> BadValue:
    """Return an error that says why a folder cannot be written to: no permission, a full disk, or a file in use."""
    advice = "free disk space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
    return BadValue(f"cannot write into {folder}: {error.strerror}; {advice} another folder")


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files so that old files and new files never mix.

    contents   The contents of each file, by name. If the last file is missing, readers must ignore the other files.
    The last file is removed first and written last, so it is missing if the process is killed in between.
    Raises: BadValue if the folder cannot be written to. In that case, the earlier files are restored.
    """
    with _written(folder, contents) as new:
        earlier = {name: path.with_name(f"{path.name}.earlier") for name, path in new.items()}
        replaced = [name for name in reversed([*contents]) if (folder / name).exists()]
        try:
            for name in replaced:
                _replace(folder / name, earlier[name])
            for name, path in new.items():
                _replace(path, folder / name)
        except BaseException:
            for name in new:
                if earlier[name].exists():
                    os.replace(earlier[name], folder / name)
                elif name not in replaced:
                    (folder / name).unlink(missing_ok=True)
            raise
        for name in new:  # also remove files that killed processes left behind
            for path in folder.glob(f".{escape(name)}.{'[0-9a-f]' * 8}*"):
                with suppress(OSError):  # on Windows, the old file may be open, but the new files are in place
                    path.unlink()


def _replace(old: Path, new: Path) -> None:
    """Rename a file. Retry if Windows refuses because a reader or a virus scanner has one of the files open."""
    for seconds in (0.02, 0.1, 0.5):
        with suppress(PermissionError):
            return os.replace(old, new)
        time.sleep(seconds)
    return os.replace(old, new)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> bytes:
    """Encode a value as indented JSON."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def whole_folder(target: Path, marker: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` if the `with` block succeeds and is deleted if it fails.

    marker   The name of the JSON file that lists a result's files. An earlier result is replaced.
    Raises: BadValue if the folder cannot be written to or contains other files.
    """
    refuse_foreign(target, marker)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as scratch:
            folder, earlier = Path(scratch, "new"), Path(scratch, "earlier")
            folder.mkdir()
            yield folder
            files = sorted(p.name for p in folder.iterdir())
            write_json(folder / marker, {**(read_json(folder / marker) if marker in files else {}), "files": files})
            mode = folder.stat().st_mode & 0o777  # follows the umask (safetensors lets only the owner read)
            for path in folder.iterdir():
                path.chmod(mode if path.is_dir() else mode & 0o666)
            refuse_foreign(target, marker)  # check again: the block may have taken minutes
            if target.exists():
                target.replace(earlier)
            try:
                folder.replace(target)
            except OSError:  # on Windows, a file may be open
                if earlier.exists():
                    earlier.replace(target)
                raise
    except OSError as error:
        raise BadValue(f"cannot write into {target}: {error}; free disk space or choose another folder") from error


def refuse_foreign(target: Path, marker: str) -> None:
    """Check a target folder, which `whole_folder` will replace.

    Raises: BadValue for a file, the current folder, a mount point, or a folder with files that the marker doesn't list.
    """
    try:
        if target.exists() and not target.is_dir():
            raise BadValue(f"{target} is a file: choose another folder")
        if target.is_dir() and (os.path.samefile(target, ".") or os.path.ismount(target)):
            raise BadValue(f"{target} is the current folder or a mount point: choose a new folder inside it")
        present = {path.name for path in target.iterdir()} if target.is_dir() else set()
    except OSError as error:
        raise unwritable(target, error) from error
    listed = read_json(target / marker).get("files") if marker in present else []
    expected = {marker, *(listed if isinstance(listed, list) else [])}
    if foreign := sorted(present - expected):
        raise BadValue(f"the folder {target} is not empty: it contains {foreign[0]}; choose another folder")


def facts_of(path: Path) -> dict[str, Any]:
    """Return a file's size in bytes and its hash, in the form that manifests use."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def cached_json(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read a cached JSON file, or create the file with `make`. For errors, see `read_json` and `make`."""
    if not file.is_file():
        write_json(file, make())
    return read_json(file)


def read_json(path: Path | zipfile.Path) -> dict[str, Any]:
    """Read one JSON object. Raises: BadValue for any other content."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it isn't a file")  # a folder, or a pipe, which would block forever
        value = json.loads(path.read_bytes())  # in UTF-8, or in UTF-16, which PowerShell 5.1 writes
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadValue(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{path} must be a JSON object, not {type(value).__name__}")
    return value
