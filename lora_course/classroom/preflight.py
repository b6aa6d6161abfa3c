"""Check a machine a week before the course: report what is wrong and how to fix it.

Top-level imports are limited to the standard library: `machine` also runs from the wheel, before any installation.
"""

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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lora_course.receipts import handed_in
from lora_lab import __version__
from lora_lab.errors import BadValue, NotFound, printable
from lora_lab.files import read_json, write_json
from lora_lab.machine import container, free_port, memory

FILE = "lora-lab-preflight.json"
GIB = 2**30
MEMORY = 7 * GIB  # an "8 GB" machine reports 7.6, or less with shared graphics memory
FREE_MEMORY = 35 * 10**8  # the most that a lesson may use, as in `room.KERNEL`
CONTAINER = 4 * 10**9  # for a lesson and the Jupyter server; the system and the browser run outside the container
DISK = 4 * GIB  # in GiB: packages 1.6, models and data 0.7; plus runs, and space for pip to unpack
LETTERS = 259 - 196  # maximum length of a folder's path on Windows; the longest path inside, torch's, adds 196
SYNCED = r"onedrive|dropbox|google ?drive|icloud|mobile documents|nextcloud|box sync"
PACKAGES = "import torch, transformers, jupyterlab, ipywidgets, anywidget, matplotlib; print(torch.__version__)"
TRAINING = "from lora_course.classroom.preflight import train; train(10)"
LONGEST = 15 * 60  # maximum seconds for the course's usual run of 400 steps
PYTHON = "install Python 3.11 or 3.12 (64-bit, for yourself only: no admin rights are needed) and use it"
HUB = "use another machine, or JupyterHub, Binder or Colab in a browser (docs/install.md)"
AGAIN = "install the lab again (start.sh, start.ps1, make lab, or the wheelhouse's install.py)"
SEND = "send the file to your teacher: it contains the error"
CAUSES = {  # patterns in error messages of imports and runs, with fixes
    "DLL load failed|WinError 126": "ask an administrator to install Microsoft's Visual C++ Redistributable (x64)",
    "WinError 1455": "let Windows manage the size of the page file (System, Advanced, Performance), and restart",
    "No module named": AGAIN,
    "MemoryError|not enough memory|signal 9": "close other programs and try again",
    "signal 4": "this processor is too old for torch: use another machine, Binder or a hub",
}


@dataclass(frozen=True)
class Finding:
    """One check: whether it passed, what was found, and what to do if it failed."""

    name: str
    green: bool
    found: str
    remedy: str = ""


def facts(folder: Path, port: int = 8888, needed: int = DISK) -> dict[str, Any]:
    """Gather facts about this machine and an installation folder, using the standard library (and psutil, if found)."""
    system, arch = platform.system(), platform.machine()
    # libc_ver opens Python's executable, which the Microsoft Store's Python doesn't allow
    libc, version = platform.libc_ver() if system == "Linux" else ("", "")
    total, free = memory()
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)  # a file is refused below
    facts = {"python": sys.version_info[:3], "bits": 64 if sys.maxsize > 2**32 else 32,
             "implementation": platform.python_implementation(), "system": system, "arch": arch,
             "version": platform.mac_ver()[0] or (version if libc == "glibc" else ""),
             "rosetta": system == "Darwin" and "ARM64" in platform.version() and arch == "x86_64",
             "total": total, "free": free, "container": container()[0] == total, "folder": str(folder),
             "disk": shutil.disk_usage(existing).free, "needed": needed, "write": "", "port": port, "other_port": None,
             "drives": [os.environ[name] for name in os.environ if name.upper().startswith("ONEDRIVE")]}  # fmt: skip
    for place in (existing, Path.home()):  # Jupyter writes into the home folder
        try:
            tempfile.TemporaryFile(dir=place, prefix=".lora-lab-").close()
        except OSError as error:
            facts["write"] = f"{place}: {error.strerror or error}"
    with suppress(BadValue):
        facts["other_port"] = free_port(port)
    return facts


def judged(seen: Mapping[str, Any]) -> list[Finding]:
    """Judge a machine's `facts`: one finding each for Python, memory, disk, ...; a red one names the first fault."""
    m = SimpleNamespace(**seen)
    version = [int(part) for part in re.findall(r"\d+", m.version)] or [0]
    total, free, disk = ("unknown" if size is None else f"{size / GIB:.1f} GiB" for size in (m.total, m.free, m.disk))
    known, scarce = m.total is not None, m.free is not None and m.free < FREE_MEMORY
    lowercase = m.folder.lower()
    instead = f"; lora-lab takes {m.other_port} instead" if m.other_port else ""
    synced = re.search(SYNCED, lowercase) or any(d and lowercase.startswith(d.lower()) for d in m.drives)
    found = {
        "python": f"{m.implementation} {'.'.join(map(str, m.python))}, {m.bits} bits",
        "platform": " ".join(filter(None, [m.system, m.version, m.arch])),
        "memory": f"{total}, {free} free" if known else "unknown until the lab is installed",
        "disk": f"{disk} free at {m.folder}",
        "write": m.folder,
        "path": m.folder,
        "port": str(m.port) if m.other_port == m.port else f"{m.port} is in use{instead}",
    }
    faults = [
        ("python", m.python < (3, 11), "too old", PYTHON),
        ("python", m.python >= (3, 15), "too new: torch may have no wheel for it", PYTHON),
        ("python", m.bits < 64 or m.implementation != "CPython", "torch has no wheel for it", PYTHON),
        ("platform", m.rosetta, "an Intel Python on Apple silicon", "install Python for Apple silicon"),
        ("platform", m.system == "Darwin" and m.arch == "x86_64", "since 2.2, torch has no wheels for Intel Macs", HUB),
        ("platform", m.system == "Darwin" and version < [14], "torch's wheels need macOS 14", "update macOS"),
        ("platform", m.system == "Windows" and m.arch != "AMD64", "several packages have no wheels for it", HUB),
        ("platform", m.system == "Linux" and version < [2, 28], "wheels need glibc 2.28 (2018), not musl", HUB),
        ("memory", known and m.container and m.total < CONTAINER, f"a container needs {CONTAINER / GIB:.1f} GiB",
         "ask the hub's administrator for a larger limit (c.Spawner.mem_limit, docs/install.md)"),
        ("memory", known and not m.container and m.total < MEMORY, "the lessons need 8 GB",
         "share a neighbor's machine, or use a hub"),
        ("memory", scarce, f"the largest lesson needs {FREE_MEMORY / GIB:.1f} GiB free",
         "close other programs and browser tabs, or restart the machine before the course"),
        ("disk", m.disk < m.needed, f"the lab needs {m.needed / GIB:.1f} GiB",
         f"free {(m.needed - m.disk) / GIB:.1f} GiB more, or choose another disk (for models and data: LORA_LAB_HOME)"),
        ("write", m.write, f"cannot be written to: {m.write}", "choose a folder of your own"),
        ("path", synced, "a synchronized folder, as in OneDrive",
         "move it elsewhere, such as to C:\\lora-lab: each installed file would be locked while it is synchronized"),
        ("path", m.system == "Windows" and len(m.folder) > LETTERS, "Windows allows at most 260 characters",
         f"choose a folder with at most {LETTERS} characters in its path, such as C:\\lora-lab"),
        ("port", m.other_port is None, "so are the ports after it", "use lora-lab --port 0, which takes any free port"),
    ]  # fmt: skip
    findings = []
    for name, text in found.items():
        fault, remedy = next(((why, fix) for part, holds, why, fix in faults if part == name and holds), ("", ""))
        findings.append(Finding(name, not fault, f"{text}: {fault}" if fault else text, remedy))
    return findings


def machine(*where: Any) -> list[Finding]:
    """Check everything that can be checked before an installation; see `facts`."""
    return judged(facts(*where))


def run_python(code: str, seconds: float = 300) -> str:
    """In a new process, run code that may crash; return its output. Raises: OSError with the output's last line."""
    try:
        process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, timeout=seconds, text=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"the process did not end within {seconds:.0f} s") from error
    if process.returncode:
        lines = process.stderr.strip().splitlines() if process.returncode > 0 else []
        raise OSError((lines or [f"the process was killed by signal {-process.returncode}"])[-1])
    return process.stdout


def check_packages() -> list[Finding]:
    return [Finding("packages", True, f"torch {run_python(PACKAGES).strip()} and the other packages can be imported")]


def check_assets() -> list[Finding]:
    """Check that models and data are complete, byte by byte."""
    from lora_lab.training.assets import ASSETS, home, problem_with

    names = [name for name, asset in ASSETS.items() if not asset.opt_in]
    problems = [f"{name} {problem}" for name in names if (problem := problem_with(name, hashes=True))]
    fetch = "run lora-lab fetch (from a USB stick: --from STICK/assets), or set LORA_LAB_HOME"
    found = f"{'; '.join(problems) or f'all {len(names)} are complete'}, in {home()}"
    return [Finding("assets", not problems, found, fetch if problems else "")]


def check_training() -> list[Finding]:
    """Train for ten seconds, and estimate the time of the course's usual run."""
    result = json.loads(run_python(TRAINING))
    usual = 400 * result["seconds"] / result["steps"]
    text = f"{result['steps']} steps in {result['seconds']:.0f} s, loss {result['first']:.2f} to {result['last']:.2f}"
    text += f"; a run of 400 steps takes about {usual / 60:.0f} min"
    remedy = "plug the machine in, choose the fastest power plan, close other programs, or share a neighbor's machine"
    return [Finding("training", usual <= LONGEST, text, "" if usual <= LONGEST else remedy)]


def train(seconds: float) -> None:
    """Train minilm on rt for `seconds` seconds, keep nothing, print the result as JSON, and exit."""
    from lora_lab.training.train import train as train_run

    losses, times = list[float](), list[float]()

    def note(progress: Any) -> None:
        losses.append(progress.loss)
        times.append(time.perf_counter())
        elapsed = times[-1] - times[0]  # since the end of the first step
        if not math.isfinite(progress.loss):
            sys.exit("the loss is NaN or infinite")
        if elapsed > seconds or len(losses) == 400:
            result = {"steps": len(losses) - 1, "seconds": elapsed, "first": losses[0], "last": losses[-1]}
            print(json.dumps(result), flush=True)
            os._exit(0)  # scoring would take longer than the training

    train_run("minilm", "rt", steps=400, examples=512, validations=0, store=None, callbacks=[note])


def preflight(folder: Path, port: int = 8888, say: Callable[[str], None] = lambda words: None) -> list[Finding]:
    """Run every check, in the order in which problems should be fixed. A check that crashes counts as red."""

    def run(name: str, check: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
        say(f"checking the {name}")
        try:
            return check(*arguments)
        except Exception as error:
            message = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            remedy = next((remedy for pattern, remedy in CAUSES.items() if re.search(pattern, message)), SEND)
            return [Finding(name, False, f"the check failed: {message}", remedy)]

    (assets,), (packages,) = run("assets", check_assets), run("packages", check_packages)
    findings = [*run("machine", machine, folder, port, GIB if assets.green else DISK), packages, assets]
    if packages.green and assets.green:
        return findings + run("training", check_training)
    return [*findings, Finding("training", False, "not tried because of the red lines above", "fix those first")]


def words(findings: Iterable[Finding]) -> str:
    """Format one line per finding, with the remedy below each red finding."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok ' if finding.green else 'RED'}  {finding.name:10}  {finding.found}")
        lines += [] if finding.green else [f"     {'':10}  -> {finding.remedy}"]
    return "\n".join(lines)


def write_letter(findings: Sequence[Finding], path: Path) -> dict[str, Any]:
    """Write the file for the teacher, without user or machine names, and return its content."""
    private = {str(Path.home()): "~", platform.node(): "<machine>"}
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        private[getpass.getuser()] = "<user>"

    def hidden(text: str) -> str:
        for word in sorted(filter(lambda word: len(word) > 1, private), key=len, reverse=True):
            pattern = rf"(?<!\w){re.escape(word)}(?!\w)"  # whole words only
            text = re.sub(pattern, private[word], text, flags=re.IGNORECASE)
        return text

    system = hidden(f"{platform.system()} {platform.release()} {platform.machine()}")
    hidden_findings = [{**asdict(one), "found": hidden(one.found), "remedy": hidden(one.remedy)} for one in findings]
    letter = {"lab": __version__, "date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(),
              "system": system, "green": all(one.green for one in findings), "findings": hidden_findings}  # fmt: skip
    write_json(path, letter)
    return letter


def letters_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files that were sent back, and sort red or damaged ones first. Raises: NotFound if no file exists."""
    letters = {}
    for path in handed_in(folder, ".json"):
        name = path.relative_to(folder).as_posix()
        try:
            letters[name] = read_json(path)
            summary(letters[name])
        except (BadValue, KeyError, TypeError):  # truncated, or edited by hand
            letters[name] = {"green": False, "system": "cannot be read: ask for it again", "findings": []}
    if not letters:
        raise NotFound(f"{folder} has no file from lora-lab doctor --preflight: pass the folder with returned files")
    return {name: letters[name] for name in sorted(letters, key=lambda name: (bool(letters[name]["green"]), name))}


def summary(letter: Mapping[str, Any]) -> str:
    """Summarize a file in one line: whether the machine is ready, its system, and the red checks."""
    red = [finding for finding in letter["findings"] if not finding["green"]]
    faults = "; ".join(f"{finding['name']} ({finding['found']})" for finding in red)
    return printable(f"{'ok ' if letter['green'] else 'RED'}  {letter['system']}  {faults}".rstrip())
