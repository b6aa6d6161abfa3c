"""Grading: run a student's notebook in a separate kernel, and judge its answers with the lab's checks in this process.

After each cell, the grader finds the cell's calls to checks, has the kernel evaluate their arguments, and runs the
checks here. So a printed "right", a redefined check or a patched library has no effect. Only the checks of classes,
models and panels run in the kernel, where a patched library has an effect.
"""

import ast
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import platformdirs
import psutil
from IPython.core.inputtransformer2 import TransformerManager

from lora_course import checks, predictions
from lora_course.checks.verdict import Verdict, attempt
from lora_course.classroom.kernel import REFUSED, pack, unpack
from lora_course.receipts import handed_in
from lora_lab.errors import BadValue, LabError, NotFound, printable, warn
from lora_lab.files import as_path, read_json
from lora_lab.training import device
from lora_lab.training.assets import home, shipped

GIB = 2**30
LIBRARIES = GIB // 2  # bytes that torch and other libraries may use on top of the limit
LARGEST = 64 * 2**20  # maximum size in bytes of a notebook, an answer, or a file copied with the notebook
PROGRAMS = 8  # maximum number of programs running at once
START = 120  # seconds for a kernel to start
WORDS = {True: "right", False: "not right", None: "not yet"}
ABSENT = "absent"
VERDICTS = (*WORDS.values(), ABSENT)
MODULE = "lora_course.classroom.kernel"
UNSENT = ("check_lora_linear", "check_merge", "check_bracket")  # a class, a model and a panel stay in the kernel
SKIPPED = {"solutions", "runs"}
VARIABLES = ("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "USERNAME", "HF_HOME", "LD_LIBRARY_PATH",
             "PYTHONPATH", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "LC_", "LORA_LAB_", "CUDA_",
             "PYTORCH_", "TORCH_", "OMP_", "MKL_", "OPENBLAS_")  # fmt: skip
EMPTY = {"lesson": "", "status": "failed", "words": "", "checks": [], "errors": [], "refused": [], "seconds": 0.0,
         "peak_bytes": 0, "walls": {}, "predictions": [], "cell_seconds": []}  # fmt: skip
STOPPED = threading.Event()  # set by Ctrl-C
Row = dict[str, Any]


class Ended(BaseException):
    """A student's process ended, with a status and a message. `Ended` is not an `Exception`, so no check catches it."""


@dataclass(frozen=True)
class Limits:
    """A notebook's limits. If `full`, the notebook trains for all of the lesson's steps; otherwise, FAST=1 is set."""

    seconds: float = 300
    memory_gib: float = 4
    full: bool = False


class Lesson:
    """A lesson as handed out: its name, its texts (to recognize it), and the calls to checks in its exercises.

    Raises: BadValue for a check that the lab lacks.
    """

    def __init__(self, path: Path) -> None:
        cells = cells_of(path)
        tagged = [cell for cell in cells if "exercise" in cell.metadata.get("tags", [])]
        self.name, self.texts = path.stem, _texts(cell for cell in cells if cell not in tagged)
        self.calls = [call for cell in tagged or cells for call in _calls(cell)]
        for name in {*map(_name, self.calls)} - {*checks.__all__}:
            raise BadValue(f"this version of the lab has no check {name}: update the lab or the lesson")


def cells_of(path: Path) -> list[Any]:
    """Read the cells of a notebook. Raises: NotFound; BadValue for an invalid file."""
    if not path.is_file():
        raise NotFound(f"there is no notebook {path}: pass the path of an .ipynb file")
    if path.stat().st_size > LARGEST:
        raise BadValue(f"{path.name} is {path.stat().st_size / 2**20:.0f} MiB: clear its outputs and try again")
    try:
        cells = [SimpleNamespace(**cell) for cell in read_json(path)["cells"]]
        for cell in cells:
            cell.source, cell.code = "".join(cell.source), cell.cell_type == "code"
    except (BadValue, LookupError, TypeError, AttributeError) as error:
        raise BadValue(f"{path.name} is not a notebook in nbformat 4: pass an intact .ipynb file") from error
    return cells


def recognize(name: str, cells: Sequence[Any], known: Sequence[Lesson]) -> Lesson | None:
    """Return the lesson that shares the most cells with a notebook, or else the lesson that the file is named after."""
    texts = _texts(cells)
    best = max(known, key=lambda lesson: len(lesson.texts & texts), default=None)
    return best if best and best.texts & texts else next((lesson for lesson in known if lesson.name in name), None)


def _texts(cells: Iterable[Any]) -> set[str]:
    """Return the cells' sources without whitespace, leaving out those short enough to occur in any notebook."""
    return {text for cell in cells if len(text := "".join(cell.source.split())) >= 30}


def _calls(cell: Any) -> list[ast.Call]:
    """Find the calls to checks in a cell, even after %time; return [] if the cell is neither Python nor IPython."""
    source = re.sub(r"^( *)%(%\w+.*|time(it)? (?! *-))", r"\1", cell.source, flags=re.MULTILINE) if cell.code else ""
    try:
        nodes = list(ast.walk(ast.parse(TransformerManager().transform_cell(source))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node for node in nodes if isinstance(node, ast.Call) and _name(node).startswith("check_")]


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _constants(call: ast.Call) -> dict[Any, Any]:
    """Return a call's constants by position or keyword, without `...`."""
    arguments = [*enumerate(call.args), *((keyword.arg, keyword.value) for keyword in call.keywords)]
    return {key: node.value for key, node in arguments if isinstance(node, ast.Constant) and node.value is not ...}


class Kernel:
    """A student's process in the folder `place`. All methods raise Ended once the process has exited or timed out."""

    def __init__(self, place: Path, limits: Limits, environment: dict[str, str], walls: Sequence[str]) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        file, self.memory = str(place / ".kernel.json"), int(min(limits.memory_gib, 1e6) * GIB) + LIBRARIES
        ip, transport = ("", "tcp") if os.name == "nt" else (str(place / ".kernel"), "ipc")
        write_connection_file(file, ip=ip, transport=transport)
        command = [*walls, sys.executable, "-P", "-m", MODULE, file, str(self.memory)]  # -P: no imports from `place`
        alone: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        alone |= {"start_new_session": True, "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        self.process = subprocess.Popen(command, cwd=place, env=environment, **alone)  # Ctrl-C doesn't reach it
        self.started: set[psutil.Process] = {psutil.Process(self.process.pid)}
        self.limits, self.deadline, self.peak, self.programs = limits, time.monotonic() + START, 0, 0
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        self.client.start_channels(iopub=False, stdin=False, hb=False, control=False)
        self.client.shell_channel.socket.maxmsgsize = LARGEST

    def close(self) -> None:
        """Kill the process and everything that it started."""
        self.client.stop_channels()
        for process in self.started:  # including orphans
            with suppress(psutil.Error):
                process.kill()
        if os.name != "nt":
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check_limits(self) -> None:
        """Raise Ended after Ctrl-C, after the process has exited, or once it has exceeded a limit."""
        with suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            children = parent.children(recursive=True)
            self.started.update(children)
            size = parent.memory_info().rss + sum(child.memory_full_info().uss for child in children)
            self.peak, self.programs = max(self.peak, size), max(self.programs, len(children))
        if self.peak > self.memory:
            raise Ended("memory", f"stopped{{}}: it used more than {self.limits.memory_gib:g} GiB")
        if self.programs > PROGRAMS:
            raise Ended("programs", "stopped{}: it started too many programs")
        if self.process.poll() is not None:
            raise Ended("left", "its process exited by itself{}")
        if STOPPED.is_set() or time.monotonic() >= self.deadline:
            raise Ended("time", f"stopped{{}} after {self.limits.seconds:g} s")

    def execute(self, source: str, **expressions: str) -> dict[str, Any]:
        """Run code, evaluate expressions, and return the kernel's reply."""
        message = self.client.execute(
            source, store_history=False, user_expressions=expressions, allow_stdin=False, stop_on_error=False
        )
        while True:
            self.check_limits()
            with suppress(Empty):
                reply = self.client.get_shell_msg(timeout=0.05)
                if reply["parent_header"].get("msg_id") == message:
                    return dict(reply["content"])

    def value(self, call: str) -> Any:
        """Call a function of `kernel.py` and return its value, or None if the call raises."""
        try:
            reply = self.execute("", value=f"__import__('{MODULE}', fromlist=['*']).{call}")
            return json.loads(bytes.fromhex(reply["user_expressions"]["value"]["data"]["text/plain"].strip("'")))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    def function(self, index: int) -> Callable[..., Any]:
        """Return a proxy for a function of the notebook, given its index in `kernel.FUNCTIONS`."""

        def call(*arguments: Any) -> Any:
            reply = self.value(f"call({index}, {json.dumps(pack(arguments))!r})") or {}
            if "value" in reply:
                return unpack(reply["value"], self.function)
            name = str(reply.get("raised", "ValueError"))[:60]
            types = {"TypeError": TypeError, "IndexError": IndexError}  # the checks have hints for these
            raise types.get(name, type(name, (Exception,), {}))(reply.get("words", "the return value can't be sent"))

        return call

    def judge(self, call: ast.Call) -> dict[str, str]:
        """Judge a call's arguments as they are now; return {} if the notebook can't evaluate them."""
        name = _name(call)
        function, first = ("judge", [ast.Constant(name)]) if name in UNSENT else ("answer", [])
        answer = self.value(ast.unparse(ast.Call(ast.Name(function), [*first, *call.args], call.keywords)))
        if answer is None:
            return {}

        def judged() -> Verdict:
            if name in UNSENT:
                return Verdict(*answer)
            arguments, keywords = unpack(answer, self.function)
            return getattr(checks, name).__wrapped__(*arguments, **keywords)  # the wrapper counts tries

        verdict = attempt(judged)
        return {"verdict": WORDS[verdict.passed], "words": verdict.words[:300]}


def grade(
    path: str | Path, *, limits: Limits = Limits(), jobs: int = 1, known: Sequence[Lesson] | None = None
) -> Generator[Row, None, None]:
    """Grade a notebook, or all notebooks below a folder; yield each one's row, as `lora-lab grade --json` prints it.

    Zip files are not opened, and a warning says so.
    known   Lessons to choose from, instead of the lab's.
    Raises: NotFound if there is no notebook; BadValue if `path` is "" or not a notebook, or if a limit is NaN.
    """
    if path == "":  # which would mean the current folder
        raise BadValue("pass the path of a notebook or folder to grade, not ''")
    if math.isnan(limits.seconds) or math.isnan(limits.memory_gib):  # such a limit would never stop a notebook
        raise BadValue(f"pass numbers as limits, not {limits.seconds:g} seconds and {limits.memory_gib:g} GiB")
    top = as_path(path).resolve()
    root, notebooks = (top.parent, [top]) if top.is_file() else (top, handed_in(top, ".ipynb"))
    if top.is_file():
        cells_of(top)  # raises for an unreadable file; in a folder, only that file's row fails
    if packed := handed_in(top, ".zip"):
        warn(f"zip files are not opened, such as {packed[0].relative_to(top)}: unzip them to grade their notebooks")
    notebooks = [path for path in notebooks if path.is_file() and not SKIPPED & {*path.relative_to(root).parts}]
    if not notebooks:
        raise NotFound(f"there is no notebook in {path}: pass a file or a folder of .ipynb files")
    known = [Lesson(lesson) for lesson in sorted(shipped("notebooks").glob("*.ipynb"))] if known is None else known
    device.measured(device.available_devices()[0])  # measure once here, not in every kernel

    def grade_one(notebook: Path) -> Row:
        row: Row = {"file": notebook.relative_to(root).as_posix(), **deepcopy(EMPTY)}
        started = time.monotonic()
        try:
            _grade(notebook, row, limits, known)
        except LabError as error:
            row |= {"status": "unreadable", "words": str(error)[:300]}
        except Exception as error:  # the other notebooks are still graded
            row["words"] = f"the grader stopped with {type(error).__name__}: {error}"[:300]
        verdicts = [check["verdict"] for check in row["checks"]]
        row |= {word.replace(" ", "_"): verdicts.count(word) for word in VERDICTS}
        return row | {"of": len(verdicts), "seconds": round(time.monotonic() - started, 2)}

    STOPPED.clear()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            pending = {pool.submit(grade_one, notebook) for notebook in notebooks}
            while pending:
                done, pending = wait(pending, 0.2, FIRST_COMPLETED)  # without a time limit, Windows ignores Ctrl-C
                yield from (future.result() for future in done)
        finally:
            STOPPED.set()  # after Ctrl-C, ends the notebooks that are running
            pool.shutdown(cancel_futures=True)


def _grade(notebook: Path, row: Row, limits: Limits, known: Sequence[Lesson]) -> None:
    """Fill in a notebook's row."""
    cells = cells_of(notebook)
    lesson = recognize(notebook.stem, cells, known)
    if lesson is None:
        row |= {"status": "unknown", "words": "its cells match no lesson: pass the lesson with --lesson"}
        return
    row["lesson"] = lesson.name
    unanswered = {"verdict": ABSENT, "words": "the notebook does not answer this exercise", "calls": 0}
    row["checks"] = [{"check": ast.unparse(call), **unanswered} for call in lesson.calls]
    short = "/tmp" if os.name != "nt" and len(tempfile.gettempdir()) > 60 else None  # socket paths: at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="lora_lab-", dir=short, ignore_cleanup_errors=True) as scratch:
        place = Path(scratch).resolve()
        for path in notebook.parent.iterdir():  # files that cells may read, such as data, but no other notebook
            plain = path.is_file() and not path.is_symlink() and path.name[0] != "."
            if plain and ".ipynb" not in path.name.lower() and path.stat().st_size <= LARGEST:
                with suppress(PermissionError):  # a file that belongs to somebody else, or is open on Windows
                    shutil.copyfile(path, place / path.name)  # writable, even if the original is not
        log, walls, environment = place / predictions.FILE, _walls(place), _environment(place, limits.full)
        for line in (logged := list(predictions.lines(log))):  # the name that seeds the numbers in the exercises
            environment["LORA_LAB_STUDENT"] = line["student"].replace("\0", " ").encode("utf-8", "replace").decode()
        row["walls"] = {"network": bool(walls), "files": bool(walls)}
        with closing(Kernel(place, limits, environment | {"JPY_SESSION_NAME": notebook.name}, walls)) as kernel:
            where = ""
            try:
                ready = kernel.execute(f"__import__('{MODULE}', fromlist=['*']).prepare({str(place)!r})")
                if ready["status"] != "ok":
                    raise RuntimeError(f"{ready['ename']}: {ready['evalue']}")
                kernel.deadline = time.monotonic() + limits.seconds
                for number, cell in enumerate(cell for cell in cells if cell.code):
                    where = f" in code cell {number + 1}"
                    _run(kernel, number, cell, lesson, row)
                where = ""
                for check, call in zip(row["checks"], lesson.calls, strict=True):
                    if check["verdict"] == ABSENT and "..." not in check["check"]:
                        check |= kernel.judge(call)
                row["status"] = "ran"
            except Ended as end:
                row |= {"status": end.args[0], "words": end.args[1].format(where)}
        row |= {"peak_bytes": kernel.peak, "predictions": list(predictions.lines(log))[len(logged) :][:1000]}
    full = "MemoryError|DefaultCPUAllocator"  # torch raises a RuntimeError that names its allocator
    if row["status"] == "ran" and any(re.search(full, error["type"] + error["words"]) for error in row["errors"]):
        row |= {"status": "memory", "words": "a cell needed more memory than the limit; the others ran"}
    messages = [error["words"] for error in row["errors"]]
    row["refused"] = [message.partition(REFUSED)[2].removesuffix(">") for message in messages if REFUSED in message]


def _run(kernel: Kernel, number: int, cell: Any, lesson: Lesson, row: Row) -> None:
    """Run a cell, then judge its calls that have the same check and constants as a call in the lesson."""
    started = time.monotonic()
    reply = kernel.execute(cell.source)
    if reply.get("status") == "error":
        words = {"type": str(reply.get("ename"))[:300], "words": str(reply.get("evalue"))[:300]}
        row["errors"].append({"cell": number, **words})
    for call in _calls(cell):
        for check, expected in zip(row["checks"], lesson.calls, strict=True):
            same = _name(call) == _name(expected) and _constants(expected).items() <= _constants(call).items()
            if same and (verdict := kernel.judge(call)):
                check |= verdict | {"calls": check["calls"] + 1}  # the last call counts
    row["cell_seconds"].append(time.monotonic() - started)  # includes the cell's checks, which may train


def _walls(place: Path) -> list[str]:
    """Return a bubblewrap command for a sandbox with no network and only `place` writable; [] if it can't run."""
    command = ["bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc"]
    command += ["--bind", str(place), str(place), "--unshare-all", "--die-with-parent"]
    works = shutil.which("bwrap") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else []


def _environment(place: Path, full: bool) -> dict[str, str]:
    """Return the environment variables that a computation needs (so no cloud keys), with a separate home directory."""
    from matplotlib import get_cachedir  # reuse its font list: making one takes seconds

    cache = place / ".home" / ".cache" / "lora_lab"
    cache.mkdir(parents=True)
    with suppress(OSError):  # this machine's measured speed
        shutil.copy(Path(platformdirs.user_cache_dir("lora_lab")) / "machine.json", cache)
    folders = dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "USERPROFILE", "IPYTHONDIR"), str(place / ".home"))
    folders |= dict.fromkeys(("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"), str(cache.parent))
    fixed = {"LORA_LAB_HEADLESS": "1", "LORA_LAB_HOME": str(home()), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg",
             "MPLCONFIGDIR": get_cachedir(), "FAST": "" if full else "1", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)} | folders | fixed
    kept.pop("LORA_LAB_STUDENT", None)  # the teacher's own name
    return kept


def in_words(row: Row) -> str:
    """Format a row as text."""
    words = [f"{row['file']}: {row['right']} of {row['of']} right" if row["of"] else f"{row['file']}: not graded"]
    words += [f"{count} {word}" for word in VERDICTS[1:] if (count := row[word.replace(" ", "_")])]
    words += [f"{row['status']}, {row['seconds']:.1f} s", row["words"], *row["refused"][:1]]
    return printable("; ".join(filter(None, words)))


def table(rows: Sequence[Row]) -> str:
    """Format one CSV line per notebook, with a column for every check in the lessons."""
    lines = []
    for row in rows:
        errors = [f"cell {error['cell'] + 1}: {error['type']}" for error in row["errors"]]
        joined = {"errors": "; ".join(errors), "refused": "; ".join(row["refused"])}
        verdicts = {f"{row['lesson']}: {check['check']}": check["verdict"] for check in row["checks"]}
        lines.append({**row, **joined, "peak_mib": row["peak_bytes"] // 2**20, **verdicts})
    fixed = ["file", "lesson", "status", "right", "not_right", "not_yet", "absent", "of", "seconds", "peak_mib",
             "errors", "refused", "words"]  # fmt: skip
    columns = [*fixed, *dict.fromkeys(name for line in lines for name in line if name not in {*fixed, *EMPTY})]
    return predictions.as_csv(columns, [[line.get(name, "") for name in columns] for line in lines])
