"""Install the lab from a wheelhouse: no network, one command, the standard library alone.

    manifest.json        lab, made, targets, and for each file its size in bytes and its sha256
    windows-3.11.txt     a lock: name==version --hash=sha256:..., a line for each wheel, in pip's own form
    wheels/  assets/     the files

It runs out of the lab's own wheel: finds the lock for this machine, reads its files to the last byte, makes a venv, has
pip install the wheels without an index, unpacks models and data, and writes a script that opens the workbench.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from lora_course.classroom.preflight import machine, words
from lora_lab.errors import BadValue, Failed, LabError, nearest
from lora_lab.files import read_json, write_atomically

MANIFEST = "manifest.json"
PLATFORMS = {
    "linux": "Linux (x86-64)", "windows": "Windows (x86-64)", "macos-arm64": "macOS 14 or newer (Apple silicon)"
}  # fmt: skip
SYSTEMS = {("linux", "x86_64"): "linux", ("windows", "amd64"): "windows", ("darwin", "arm64"): "macos-arm64"}
SH = '#!/bin/sh\n# Open the workbench.\ncd "$(dirname "$0")" && exec .venv/bin/python -m lora_course "$@"\n'
CMD = '@echo off\r\ncd /d "%~dp0"\r\n.venv\\Scripts\\python -m lora_course %*\r\nif errorlevel 1 pause\r\n'


@dataclass(frozen=True)
class Target:
    """A kind of machine: `Target("windows", "3.11")`. Raises: BadValue where the lab has no wheels for it."""

    platform: str
    python: str

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise BadValue(f"no platform '{self.platform}'; did you mean {nearest(self.platform, PLATFORMS)}?")
        if not re.fullmatch(r"3\.\d\d", self.python) or self.python < "3.11":
            raise BadValue(f"'{self.python}' is no Python that the lab runs on: give 3.11 or newer, such as 3.12")

    @property
    def name(self) -> str:
        """What its lock is called: windows-3.11."""
        return f"{self.platform}-{self.python}"

    def __str__(self) -> str:
        return f"{PLATFORMS[self.platform]}, Python {self.python}"


def named(name: str) -> Target:
    """The target of a name such as windows-3.11."""
    where, _, python = name.rpartition("-")
    return Target(where, python)


def here() -> tuple[str, str]:
    """The platform ("" where there are no wheels for it) and the Python that run this."""
    kind = SYSTEMS.get((platform.system().lower(), platform.machine().lower()), "")
    return kind, f"{sys.version_info.major}.{sys.version_info.minor}"


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


def check(folder: Path, wanted: Iterable[str] | None = None) -> dict[str, Any]:
    """The manifest, once its files are read to the last byte; only the `wanted` ones, if given. Raises: Failed.

    A stick that was pulled out too early is the usual fault: the file is there, and half of it is zeros.
    """
    manifest, wrong = manifest_of(folder), []
    for name in wanted or manifest["files"]:
        facts, path = manifest["files"][name], folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != facts["bytes"] or facts_of(path) != facts:
            wrong.append(f"{name} has changed, or was copied in part")
    if wrong:
        raise Failed(f"{wrong[0]} (1 of {len(wrong)} such files in {folder}): copy the folder once more")
    return manifest


def main(house: Path, arguments: Sequence[str] | None = None) -> None:
    """The command line of install.py; every error becomes one sentence."""
    parser = argparse.ArgumentParser(description="Install the lab from this folder, without network.")
    parser.add_argument("--to", type=Path, default=Path.home() / "lora-lab", help="the folder that it goes into")
    parser.add_argument("--no-assets", action="store_true", help="no models and data: LORA_LAB_HOME names a folder")
    parser.add_argument("--preflight", action="store_true", help="look at the machine; install nothing")
    chosen = parser.parse_args(arguments)
    folder = chosen.to.expanduser().absolute()
    try:
        if chosen.preflight:
            print(words(machine(folder)))
        else:
            install(house, folder, assets=not chosen.no_assets)
    except (LabError, OSError) as error:
        sys.exit(f"install: {error}")


def install(house: Path, folder: Path, *, assets: bool = True) -> None:
    """Install from the wheelhouse `house` into `folder`; again does no harm.

    Raises: BadValue where it isn't for this machine, or the folder will not do; Failed for a damaged copy.
    """
    target = fitting(house)
    print(f"lora_lab for {target}, into {folder}", flush=True)
    for one in machine(folder):
        if one.red and one.name in ("disk", "write", "path"):  # found before minutes of work
            raise BadValue(f"{one.found}: {one.remedy}")
    print("reading the files", flush=True)
    manifest = manifest_of(house)
    wanted = [*manifest["targets"][target.name], f"{target.name}.txt"]
    check(house, wanted + [name for name in manifest["files"] if assets and name.startswith("assets/")])
    python = make_venv(folder)
    pip = next((house / "wheels").glob("pip-*.whl")) / "pip"  # Python runs it without unpacking
    quiet = ["--disable-pip-version-check", "--no-input", "-q", "--no-deps"]
    here_only = ["--no-index", "--find-links", str(house / "wheels"), "--require-hashes"]
    _run("install the packages", python, pip, "install", *quiet, *here_only, "-r", house / f"{target.name}.txt")
    if assets:
        print("unpacking models and data (a minute)", flush=True)
        _run("unpack models and data", python, "-m", "lora_course", "fetch", "--from", house / "assets")
    write_atomically(folder / ".venv" / ".lab", f"{house}\n".encode())  # make's stamp: nobody installs twice
    start = folder / ("start.cmd" if os.name == "nt" else "start.sh")
    if not start.exists():  # a clone has its own
        write_atomically(start, (CMD if os.name == "nt" else SH).encode())
    how = f"double-click {start}" if os.name == "nt" else f'sh "{start}"'
    print(f"done. Open the workbench: {how}", flush=True)


def fitting(house: Path) -> Target:
    """The target of a wheelhouse that this machine is. Raises: BadValue, naming what the wheelhouse is for."""
    targets = [named(name) for name in manifest_of(house)["targets"]]
    where, python = here()
    pythons = [target.python for target in targets if target.platform == where]
    if python in pythons:
        return Target(where, python)
    if pythons:
        use = f"run install.py with Python {' or '.join(pythons)}, or ask for a wheelhouse with --python {python}"
        raise BadValue(f"this is Python {python}, and the folder has no wheels for it here: {use}")
    this = next(one for one in machine(house) if one.name == "platform")
    why = this.remedy or "ask for a wheelhouse for this machine: lora-lab wheelhouse --platform"
    raise BadValue(f"this folder is for {'; '.join(map(str, targets))}, and this machine is {this.found}: {why}")


def make_venv(folder: Path) -> Path:
    """The Python of a virtual environment without pip, which the lock brings; one of another Python is replaced."""
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        old = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
    except OSError:  # none there, or the Python that it was made of is gone
        old = ""
    if old != here()[1]:
        venv.create(folder / ".venv", with_pip=False, symlinks=os.name != "nt", clear=True)
    return python


def _run(what: str, *command: str | Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHONPATH"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONUTF8": "1"}  # no index, mirror or proxy of this machine's settings
    if subprocess.run(list(map(str, command)), env=env).returncode:
        raise Failed(f"could not {what}: the reason stands above; the command may be run again")
