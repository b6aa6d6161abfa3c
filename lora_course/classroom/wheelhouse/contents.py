"""What lies in a wheelhouse, written down: a lock for each kind of machine, and a manifest with every file's hash.

    manifest.json        lab, made, targets, and for each file its size in bytes and its sha256
    windows-3.11.txt     the lock: name==version --hash=sha256:..., a line a wheel, in pip's own form
    wheels/  assets/     the files

Only the standard library is used here: the installer reads it before anything is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.files import read_json

MANIFEST = "manifest.json"
WHEELS, ASSETS = "wheels", "assets"


@dataclass(frozen=True)
class Locked:
    """One wheel of a lock: its name, its version, and the hash that its bytes must have."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def lock_of(report: dict[str, Any]) -> list[Locked]:
    """The wheels that a report of pip (`pip install --dry-run --report`) names, in alphabetical order.

    Raises: BadValue where one has no hash, which no index should do.
    """
    found = []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        sha = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha:
            raise BadValue(f"the index gives no sha256 for {name} {version}; use one that does")
        found.append(Locked(name, version, sha))
    return sorted(found, key=lambda one: one.name.lower())


def read_lock(path: Path) -> list[Locked]:
    """The wheels of a lock file. Raises: BadValue when it is not one."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        parts = [line.replace(" --hash=sha256:", "==").split("==") for line in lines]
        return [Locked(name, version, sha) for name, version, sha in parts]
    except (OSError, ValueError) as error:
        raise BadValue(f"{path} is not a list of locked wheels: {error}") from error


def facts_of(path: Path) -> dict[str, Any]:
    """A file's size in bytes and its hash."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a wheelhouse. Raises: BadValue when the folder is none, or was not finished."""
    if not (folder / MANIFEST).is_file():
        raise BadValue(f"{folder} is not a wheelhouse: it has no {MANIFEST}; make one with: lora-lab wheelhouse")
    manifest = read_json(folder / MANIFEST)
    if not manifest.get("targets") or not manifest.get("files"):
        raise BadValue(f"{folder} was not finished: run lora-lab wheelhouse for it once more")
    return manifest


def problems(folder: Path, wanted: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the files of a wheelhouse, in words; `wanted` are the only ones to look at, else all.

    A stick that was pulled out too early is the commonest fault: the file is there and half of it is zeros.
    """
    files = manifest_of(folder)["files"]
    names = files if wanted is None else wanted
    return [f"{name} {problem}" for name in names if (problem := _problem(folder / name, files[name]))]


def _problem(path: Path, facts: dict[str, Any]) -> str:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != facts["bytes"]:
        return f"has {path.stat().st_size:,} bytes, not {facts['bytes']:,}"
    return "" if facts_of(path) == facts else "has changed"
