"""Install the lab from a wheelhouse: no network, one command, the standard library alone.

this machine -> the lock that fits it -> its files, read to the last byte -> a venv -> pip, which reads no index
-> the models and data, unpacked where they live -> a script that opens the workbench
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from lora_course.classroom.preflight import machine
from lora_course.classroom.preflight.findings import words
from lora_course.classroom.wheelhouse import contents
from lora_course.classroom.wheelhouse.contents import ASSETS, WHEELS
from lora_course.classroom.wheelhouse.targets import Target, named, this_platform, this_python
from lora_lab.errors import BadValue, Failed, LabError
from lora_lab.files import write_atomically

STAMP = ".lab"  # in the venv: what it was installed from, the same as make's, so that nobody installs twice
SH = '#!/bin/sh\n# Open the workbench.\ncd "$(dirname "$0")" && exec .venv/bin/python -m lora_course "$@"\n'
CMD = "\r\n".join(
    [
        "@echo off",
        "rem Open the workbench.",
        'cd /d "%~dp0"',
        r".venv\Scripts\python -m lora_course %*",
        "if errorlevel 1 pause",
        "",
    ]
)


def main(house: Path, arguments: Sequence[str] | None = None) -> None:
    """The command line of install.py; every error becomes one sentence."""
    parser = argparse.ArgumentParser(description="Install the lab from this folder, without network.")
    parser.add_argument("--to", type=Path, default=Path.home() / "lora-lab", help="the folder that it goes into")
    parser.add_argument(
        "--no-assets", action="store_true", help="leave models and data: LORA_LAB_HOME names a shared folder"
    )
    parser.add_argument("--preflight", action="store_true", help="look at the machine; install nothing")
    chosen = parser.parse_args(arguments)
    folder = chosen.to.expanduser().absolute()
    try:
        if chosen.preflight:
            print(words(machine.look(folder, folder)))
            return
        install(house, folder, assets=not chosen.no_assets)
    except (LabError, OSError) as error:
        sys.exit(f"install: {error}")


def install(house: Path, folder: Path, *, assets: bool = True) -> None:
    """Install from the wheelhouse `house` into `folder`.

    Raises: BadValue where this machine is none of those that it is for, or has no room; Failed for a damaged copy.
    """
    target = fitting(house)
    print(f"lora_lab for {target.words}, into {folder}", flush=True)
    if bad := [one for one in machine.look_at_folder(folder) if not one.green]:  # it would fail only after minutes
        raise BadValue(f"{bad[0].found}: {bad[0].remedy}")
    _verify(house, target, assets)
    python = make_venv(folder)
    _run([str(python), str(_pip(house)), *pip_words(house, target)], "install the packages", PYTHONUTF8="1")
    if assets:
        print("unpacking models and data (a minute)", flush=True)
        _run([str(python), "-m", "lora_course", "fetch", "--from", str(house / ASSETS)], "unpack models and data")
    write_atomically(folder / ".venv" / STAMP, f"{house}\n".encode())
    print(f"done. Open the workbench: {_write_start(folder)}", flush=True)


def fitting(house: Path, where: str | None = None, python: str | None = None) -> Target:
    """The target of a wheelhouse that this machine is.

    Raises: BadValue, naming what the wheelhouse is for, where it is none of them.
    """
    where, python = where or this_platform(), python or this_python()
    held = [named(name) for name in contents.manifest_of(house)["targets"]]
    for target in held:
        if (target.platform, target.python) == (where, python):
            return target
    pythons = [target.python for target in held if target.platform == where]
    if pythons:
        use = f"run install.py with Python {' or '.join(pythons)}, or ask for a wheelhouse with --python {python}"
        raise BadValue(f"this is Python {python}, and the folder has no wheels for it here: {use}")
    there = "; ".join(target.words for target in held)
    finding = machine.look_at_platform()
    why = finding.remedy or "ask for a wheelhouse for this machine: lora-lab wheelhouse --platform"
    raise BadValue(f"this folder is for {there}, and this machine is {finding.found}: {why}")


def make_venv(folder: Path) -> Path:
    """A virtual environment without pip, which the lock brings (Debian's Python cannot make one with); its python.

    One of another Python that is there is made anew: the wheels are for this one.
    """
    place = folder / ".venv"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _is_this_python(python):
        venv.create(place, with_pip=False, symlinks=os.name != "nt", clear=True)
    return python


def _is_this_python(python: Path) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip() == this_python()
    except OSError:  # not there, or the Python that it was made of is gone
        return False


def pip_words(house: Path, target: Target) -> list[str]:
    """What pip is told: these wheels, these hashes, no index, nothing of its user's settings."""
    exactly = [
        "--no-index",
        "--find-links",
        str(house / WHEELS),
        "--require-hashes",
        "-r",
        str(house / f"{target.name}.txt"),
    ]
    return ["install", "--disable-pip-version-check", "--no-input", "-q", "--no-deps", *exactly]


def _verify(house: Path, target: Target, assets: bool) -> None:
    print("reading the files", flush=True)
    manifest = contents.manifest_of(house)
    wanted = [*manifest["targets"][target.name], f"{target.name}.txt"]
    wanted += [name for name in manifest["files"] if assets and name.startswith(f"{ASSETS}/")]
    if wrong := contents.problems(house, wanted):
        raise Failed(f"{wrong[0]} ({len(wrong)} such files): copy the folder once more")


def _pip(house: Path) -> Path:
    """pip inside its own wheel, which Python runs without unpacking it."""
    return next((house / WHEELS).glob("pip-*.whl")) / "pip"


def _run(command: list[str], what: str, **environment: str) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHONPATH"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, **environment}  # no index, mirror or proxy of this machine's settings
    if subprocess.run(command, env=env).returncode:
        raise Failed(f"could not {what}: what was wrong stands above; the command may be run again")


def _write_start(folder: Path) -> str:
    """A script that opens the workbench; returns how it is started."""
    if os.name == "nt":
        write_atomically(folder / "start.cmd", CMD.encode())
        return f"double-click {folder / 'start.cmd'}"
    if not (folder / "start.sh").exists():  # a clone has its own
        write_atomically(folder / "start.sh", SH.encode())
    return f'sh "{folder / "start.sh"}"'
