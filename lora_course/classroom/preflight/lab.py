"""What can be seen of the lab itself: its packages, its models and data, ten seconds of training; and every check.

Nothing heavy is imported here. Packages are tried in a process of their own: where torch is broken, or brings the
process down, that is found and said like anything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lora_course.classroom.preflight import machine
from lora_course.classroom.preflight.findings import Finding, green, red

HEAVY = "torch, transformers, jupyterlab, ipywidgets, anywidget, matplotlib"
LONGEST = 15 * 60  # seconds that the course's usual run of 400 steps may take
AGAIN = "install the lab once more (start.sh, start.ps1, make lab, or install.py of the wheelhouse)"
CAUSES = {  # what the last line of a broken import or run says, and what helps
    "DLL load failed": "install Microsoft's Visual C++ Redistributable (x64), which torch needs, and try again",
    "WinError 126": "install Microsoft's Visual C++ Redistributable (x64), which torch needs, and try again",
    "WinError 1455": "let Windows manage the page file's size (System, Advanced, Performance), and restart",
    "No module named": AGAIN,
    "MemoryError": "close other programs, and try again",
    "not enough memory": "close other programs, and try again",
    "ended by signal 9": "the system ended it, most likely for memory: close other programs, and try again",
    "ended by signal 4": "this processor lacks what torch was built for: use another machine, or Binder or a hub",
}
Run = Callable[[list[str]], str]


def run_python(words: list[str], seconds: float = 300) -> str:
    """What Python prints, run with these words in a process of its own. Raises: OSError with the last line it said."""
    try:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, timeout=seconds, errors="replace", text=True
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"it had not ended after {seconds:.0f} s") from error
    if done.returncode < 0:
        raise OSError(f"it was ended by signal {-done.returncode}")
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return done.stdout


def check_packages(run: Run = run_python) -> Finding:
    """Whether the packages that the lab stands on start."""
    try:
        version = run(["-c", f"import {HEAVY}; print(torch.__version__)"]).strip()
    except OSError as error:
        return red("packages", f"they do not start: {error}", remedy_for(str(error), AGAIN))
    return green("packages", f"torch {version} and the others start")


def check_assets(problems: Mapping[str, str], home: str) -> Finding:
    """The models and data: each one's problem, "" for none."""
    wrong = [f"{name} {problem}" for name, problem in problems.items() if problem]
    if wrong:
        remedy = "with a network: lora-lab fetch; from a stick: lora-lab fetch --from its folder assets"
        return red("assets", f"{'; '.join(wrong)}, in {home}", f"{remedy}; or set LORA_LAB_HOME to the shared folder")
    return green("assets", f"all {len(problems)} are whole, in {home}")


def check_training(run: Run = run_python) -> Finding:
    """Ten seconds of training, and whether the course's usual run would end in good time."""
    try:
        found = json.loads(run(["-m", "lora_course.classroom.preflight.ten_seconds"]))
    except (OSError, ValueError) as error:
        return red("training", f"it failed: {error}", remedy_for(str(error), "send the file back: it holds the reason"))
    a_step = found["seconds"] / found["steps"]
    words = (
        f"{found['steps']} steps in {found['seconds']:.0f} s, loss {found['first']:.2f} to {found['last']:.2f}, "
        f"{found['bytes'] / machine.GIB:.1f} GiB; a run of 400 steps takes about {400 * a_step / 60:.0f} min"
    )
    if 400 * a_step > LONGEST:
        slow = "plug the machine in, choose the power plan for speed, end what runs beside it; else share a neighbour's"
        return red("training", words, slow)
    return green("training", words)


def remedy_for(said: str, otherwise: str) -> str:
    """What helps against an error, known by a piece of its words."""
    return next((remedy for piece, remedy in CAUSES.items() if piece in said), otherwise)


def preflight(folder: Path, port: int = 8888, say: Callable[[str], None] = lambda words: None) -> list[Finding]:
    """Every check, in the order in which a person would mend things. A check that fails itself is red, not an error."""
    say("looking at the machine")
    assets = guarded("assets", look_at_assets)
    home = assets_home() or folder
    findings = guarded_all("machine", lambda: machine.look(folder, home, port, assets_there=assets.green))
    say("starting torch and the others")
    packages = guarded("packages", check_packages)
    findings += [packages, assets]
    if packages.green and assets.green:
        say("training for ten seconds")
        return [*findings, guarded("training", check_training)]
    return [*findings, red("training", "not tried, for what is red above", "mend that, then run this once more")]


def look_at_assets() -> Finding:
    """The assets of this machine, read to the last byte."""
    from lora_lab.training.assets import ASSETS, home, problem_with

    wanted = [name for name, asset in ASSETS.items() if not asset.opt_in]
    return check_assets({name: problem_with(name, hashes=True) for name in wanted}, str(home()))


def assets_home() -> Path | None:
    """Where the assets are, or are to be; None where a package is missing that knows it."""
    try:
        from lora_lab.training.assets import home
    except ImportError:
        return None
    return home()


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding, or that the check itself failed."""
    (found,) = guarded_all(name, lambda: [check()])
    return found


def guarded_all(name: str, checks: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of several checks, or one that says why there are none."""
    try:
        return checks()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        report = remedy_for(said, "send the file back: it holds the reason")
        return [red(name, f"it could not be looked at: {said}", report)]
