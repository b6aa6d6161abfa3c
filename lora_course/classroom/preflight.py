"""Check a machine a week before the course: what is wrong, and what to do about it.

Only the standard library is imported at the top: `machine` also runs from the wheel, before anything is installed.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lora_lab import __version__
from lora_lab.errors import BadValue, NotFound, printable
from lora_lab.files import read_json, write_json
from lora_lab.ports import free_port

FILE = "lora-lab-preflight.json"
GIB = 2**30
MEMORY = 7 * GIB  # an "8 GB" machine shows 7.6, or less if its graphics share it
FREE_MEMORY = 35 * 10**8  # what a lesson may take, `room.KERNEL`
CONTAINER = 4 * 10**9  # a lesson and Jupyter's server; system and browser are elsewhere
DISK = 4 * GIB  # packages 1.6, models and data 0.7, runs, and room for pip to unpack
LETTERS = 260 - 170  # in a folder's path on Windows; the longest path inside adds 170
SYNCED = r"onedrive|dropbox|google ?drive|icloud|mobile documents|nextcloud|box sync"
PACKAGES = "import torch, transformers, jupyterlab, ipywidgets, anywidget, matplotlib; print(torch.__version__)"
TRAINING = "from lora_course.classroom.preflight import train; train(10)"
LONGEST = 15 * 60  # seconds that the course's usual run of 400 steps may take
PYTHON = "install Python 3.11 or 3.12 (64-bit, for yourself only: no admin rights are needed) and use that one"
HUB = "use another machine, or JupyterHub, Binder or Colab in a browser (docs/install.md)"
AGAIN = "install the lab again (start.sh, start.ps1, make lab, or the wheelhouse's install.py)"
SEND = "send the file to your teacher: it contains the reason"
CAUSES = {  # the error message of a broken import or run, and the fix
    "DLL load failed|WinError 126": "install Microsoft's Visual C++ Redistributable (x64), which torch needs",
    "WinError 1455": "let Windows manage the size of the page file (System, Advanced, Performance), and restart",
    "No module named": AGAIN,
    "MemoryError|not enough memory|signal 9": "close other programs, and try again",
    "signal 4": "this processor is too old for torch: use another machine, Binder or a hub",
}


@dataclass(frozen=True)
class Finding:
    """One check: whether it passed, what was found, and what to do if it failed."""

    name: str
    green: bool
    found: str
    remedy: str = ""


def facts(folder: Path, port: int = 8888) -> dict[str, Any]:
    """What the standard library (and psutil, if installed) can see of this machine and of a folder to install into."""
    system, arch, (libc, version) = platform.system(), platform.machine(), platform.libc_ver()
    total, free = memory()
    there = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    seen = {"python": sys.version_info[:3], "bits": 64 if sys.maxsize > 2**32 else 32,
            "implementation": platform.python_implementation(), "system": system, "arch": arch,
            "version": platform.mac_ver()[0] or (version if libc == "glibc" else ""),
            "rosetta": system == "Darwin" and "ARM64" in platform.version() and arch == "x86_64",
            "total": total, "free": free, "container": container()[0] == total, "folder": str(folder),
            "disk": shutil.disk_usage(there).free, "needed": DISK, "write": "", "port": port, "other_port": None,
            "drives": [os.environ[name] for name in os.environ if name.startswith("OneDrive")]}  # fmt: skip
    try:
        tempfile.TemporaryFile(dir=there, prefix=".lora-lab-").close()
    except OSError as error:
        seen["write"] = error.strerror or str(error)
    with suppress(BadValue):
        seen["other_port"] = free_port(port)
    return seen


def judged(seen: Mapping[str, Any]) -> list[Finding]:
    """One finding for each part of a machine, from its `facts`; red with its first fault."""
    m = SimpleNamespace(**seen)
    version = [int(part) for part in re.findall(r"\d+", m.version)] or [0]
    total, free, disk = (f"{(size or 0) / GIB:.1f} GiB" for size in (m.total, m.free, m.disk))
    low = m.folder.lower()
    synced = re.search(SYNCED, low) or any(drive and low.startswith(drive.lower()) for drive in m.drives)
    found = {
        "python": f"{m.implementation} {'.'.join(map(str, m.python))}, {m.bits} bits",
        "platform": " ".join(filter(None, [m.system, m.version, m.arch])),
        "memory": "unknown before the lab is installed" if m.total is None else f"{total}, {free} free",
        "disk": f"{disk} free at {m.folder}",
        "write": m.folder,
        "path": m.folder,
        "port": str(m.port) if m.other_port == m.port else f"{m.port} is in use: lora-lab takes {m.other_port} instead",
    }
    known = m.total is not None
    faults = [
        ("python", m.python < (3, 11), "too old", PYTHON),
        ("python", m.python >= (3, 15), "too new: torch may have no wheel for it", PYTHON),
        ("python", m.bits < 64 or m.implementation != "CPython", "torch has no wheel for it", PYTHON),
        ("platform", m.rosetta, "an Intel Python on Apple silicon", "install the Python for Apple silicon"),
        ("platform", m.system == "Darwin" and m.arch == "x86_64", "torch has no wheels for Intel Macs since 2.2", HUB),
        ("platform", m.system == "Darwin" and version < [14], "torch's wheels need macOS 14", "update macOS"),
        ("platform", m.system == "Windows" and m.arch != "AMD64", "several packages have no wheels for it", HUB),
        ("platform", m.system == "Linux" and version < [2, 28], "wheels need glibc 2.28 (2019), not musl", HUB),
        ("memory", known and m.container and m.total < CONTAINER, f"a container needs {CONTAINER / GIB:.1f} GiB",
         "ask the hub's administrator for a larger limit (c.Spawner.mem_limit, docs/install.md)"),
        ("memory", known and not m.container and m.total < MEMORY, "the lessons need 8 GB",
         "share a machine with a neighbor, or use a hub"),
        ("memory", known and m.free < FREE_MEMORY, f"the largest lesson needs {FREE_MEMORY / GIB:.1f} GiB free",
         "close other programs and browser tabs, or restart the machine before the course"),
        ("disk", m.disk < m.needed, f"it needs {m.needed / GIB:.1f} GiB",
         f"free {(m.needed - m.disk) / GIB:.1f} GiB more, or choose another disk (for models and data: LORA_LAB_HOME)"),
        ("write", m.write, f"cannot be written to: {m.write}", "choose a folder of your own"),
        ("path", synced, "a synchronized folder, such as OneDrive's",
         "move it out, such as to C:\\lora-lab: otherwise each installed file is copied, and locked meanwhile"),
        ("path", m.system == "Windows" and len(m.folder) > LETTERS, "Windows allows 260 characters in all",
         f"choose a folder with at most {LETTERS} characters in its path, such as C:\\lora-lab"),
        ("port", m.other_port is None, "and so are the next ones", "use lora-lab --port 0, which takes any free port"),
    ]  # fmt: skip
    findings = []
    for name, words in found.items():
        wrong, remedy = next(((why, remedy) for part, holds, why, remedy in faults if part == name and holds), ("", ""))
        findings.append(Finding(name, not wrong, f"{words}: {wrong}" if wrong else words, remedy))
    return findings


def machine(folder: Path, port: int = 8888, needed: int = DISK) -> list[Finding]:
    """All that can be checked before anything is installed into a folder."""
    return judged({**facts(folder, port), "needed": needed})


def run_python(code: str, seconds: float = 300) -> str:
    """The output of code in a process of its own, which may crash. Raises: OSError with its last line."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=seconds, text=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"it did not end within {seconds:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() if done.returncode > 0 else []
        raise OSError((said or [f"it was killed by signal {-done.returncode}"])[-1])
    return done.stdout


def check_packages() -> Finding:
    """Whether the packages that the lab needs can be imported."""
    return Finding("packages", True, f"torch {run_python(PACKAGES).strip()} and the others can be imported")


def check_assets() -> Finding:
    """Whether models and data are complete, byte by byte."""
    from lora_lab.training.assets import ASSETS, home, problem_with

    wanted = [name for name, asset in ASSETS.items() if not asset.opt_in]
    wrong = [f"{name} {problem}" for name in wanted if (problem := problem_with(name, hashes=True))]
    fetch = "run lora-lab fetch (from a stick: --from STICK/assets), or set LORA_LAB_HOME"
    if wrong:
        return Finding("assets", False, f"{'; '.join(wrong)}, in {home()}", fetch)
    return Finding("assets", True, f"all {len(wanted)} are complete, in {home()}")


def check_training() -> Finding:
    """Train for ten seconds, and say how long the course's usual run would take."""
    found = json.loads(run_python(TRAINING))
    usual = 400 * found["seconds"] / found["steps"]
    words = f"{found['steps']} steps in {found['seconds']:.0f} s, loss {found['first']:.2f} to {found['last']:.2f}"
    words += f"; a run of 400 steps takes about {usual / 60:.0f} min"
    plug = "plug the machine in, choose the fastest power plan, close other programs, or share a neighbor's"
    return Finding("training", usual <= LONGEST, words, "" if usual <= LONGEST else plug)


def train(seconds: float) -> None:
    """Train minilm on rt for `seconds` seconds, keep nothing, print the result as JSON, and exit."""
    from lora_lab.training.train import train as train_run

    losses, times = list[float](), list[float]()

    def note(progress: Any) -> None:
        losses.append(progress.loss)
        times.append(time.perf_counter())
        took = times[-1] - times[0]  # since the end of the first step
        if not math.isfinite(progress.loss):
            sys.exit("the loss is NaN or infinite")
        if took > seconds or len(losses) == 400:
            found = {"steps": len(losses) - 1, "seconds": took, "first": losses[0], "last": losses[-1]}
            print(json.dumps(found), flush=True)
            os._exit(0)  # scoring would take longer than the training

    train_run("minilm", "rt", steps=400, examples=512, validations=0, store=None, callbacks=[note])


def preflight(folder: Path, port: int = 8888, say: Callable[[str], None] = lambda words: None) -> list[Finding]:
    """Every check, in the order in which one would fix things. A check that crashes is red."""

    def look(name: str, check: Callable[..., Any], *given: Any) -> list[Finding]:
        say(f"checking the {name}")
        try:
            found = check(*given)
        except Exception as error:
            said = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            remedy = next((remedy for pattern, remedy in CAUSES.items() if re.search(pattern, said)), SEND)
            return [Finding(name, False, f"it failed: {said}", remedy)]
        return found if isinstance(found, list) else [found]

    (assets,), (packages,) = look("assets", check_assets), look("packages", check_packages)
    findings = look("machine", machine, folder, port, GIB if assets.green else DISK)
    findings += [packages, assets]
    if packages.green and assets.green:
        return findings + look("training", check_training)
    return [
        *findings,
        Finding("training", False, "not tried because of the red lines above", "fix those first"),
    ]


def words(findings: Iterable[Finding]) -> str:
    """One line per finding, with what to do below each red one."""
    lines = []
    for one in findings:
        lines.append(f"{'ok ' if one.green else 'RED'}  {one.name:10}  {one.found}")
        lines += [] if one.green else [f"     {'':10}  -> {one.remedy}"]
    return "\n".join(lines)


def write_letter(findings: Sequence[Finding], wanted: Path) -> tuple[dict[str, Any], Path]:
    """Write the file to send back, without the names of user and machine; in the temporary folder if necessary."""
    private = {str(Path.home()): "~", platform.node(): "<machine>"}
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        private[getpass.getuser()] = "<user>"

    def hidden(text: str) -> str:
        for word in sorted(filter(lambda word: len(word) > 1, private), key=len, reverse=True):
            alone = rf"(?<!\w){re.escape(word)}(?!\w)"  # inside a longer word, a name stays
            text = re.sub(alone, private[word], text, flags=re.IGNORECASE)
        return text

    every = [replace(one, found=hidden(one.found), remedy=hidden(one.remedy)) for one in findings]
    system = hidden(f"{platform.system()} {platform.release()} {platform.machine()}")
    letter = {"lab": __version__, "date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(),
              "system": system, "green": all(one.green for one in every),
              "findings": [asdict(one) for one in every]}  # fmt: skip
    for path in (wanted, Path(tempfile.gettempdir()) / FILE):
        with suppress(BadValue):
            write_json(path, letter)
            return letter, path
    raise BadValue(
        f"neither {wanted} nor {tempfile.gettempdir()} can be written to: give --out FILE, such as on a stick"
    )


def letters_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The files that were sent back, by name, red ones first; a damaged file is red. Raises: NotFound without any."""
    letters = {}
    for path in folder.glob("*.json"):
        try:
            letters[path.name] = read_json(path)
            json.dumps(letters[path.name], allow_nan=False)
            summary(letters[path.name])
        except (BadValue, KeyError, TypeError, ValueError):  # truncated, or edited by hand
            letters[path.name] = {"green": False, "system": "cannot be read: ask for it again", "findings": []}
    if not letters:
        raise NotFound(f"{folder} has no file of lora-lab doctor --preflight: give the folder of returned files")
    return {name: letters[name] for name in sorted(letters, key=lambda name: (bool(letters[name]["green"]), name))}


def summary(letter: Mapping[str, Any]) -> str:
    """A file in one line: whether that machine is ready, what it is, what is red."""
    red = [found for found in letter["findings"] if not found["green"]]
    said = "; ".join(f"{found['name']} ({found['found']})" for found in red)
    return printable(f"{'ok ' if letter['green'] else 'RED'}  {letter['system']}  {said}".rstrip())


def memory() -> tuple[int | None, int | None]:
    """Total and free bytes of this machine, or of the container that this runs in; None if unknown."""
    limit, used = container()
    with suppress(ImportError):
        import psutil

        seen = psutil.virtual_memory()
        if limit is None or limit > seen.total:
            return seen.total, seen.available
        return limit, max(0, min(seen.available, limit - used))
    with suppress(ValueError, OSError, AttributeError):  # before anything is installed; Windows has no sysconf
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None, None


def container(root: Path = Path("/sys/fs/cgroup")) -> tuple[int | None, int]:
    """The bytes that this container may use (None for no limit), and the bytes its programs hold."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return int((root / "memory.max").read_text()), int(told["anon"]) + int(told["shmem"])
    return None, 0
