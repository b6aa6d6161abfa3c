"""Measure the memory that the lessons take: the most that a Jupyter kernel, and what it started, had resident.

python notebooks/memory.py                 every lesson, solved, with FAST=1
python notebooks/memory.py --full 01 05    as long as a student's; sweeps that ship with the lab are loaded
python notebooks/memory.py --wide 06       as wide as a student's (all rows, all runs side by side), with 3 steps a run
python notebooks/memory.py --kernels 40    that many idle kernels of one lab, with MiniLM and two panels (Linux)
python notebooks/memory.py --kernels 40 panels    with two panels alone

Memory depends on how many rows and runs a step has, not on how many steps there are. With FAST=1 fewer runs train side
by side, so a lesson with a sweep takes less; --wide shows what it takes, in a minute in place of half an hour. Claims
that rest on long training may fail there: the errors of their cells are kept, and the lesson goes on.

Written to data/results/lesson_memory.json, from which the lessons say what they need (lora_course/classroom/room.py).
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from build import Client, built, chosen
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from lora_lab.files import read_json, write_json
from lora_lab.kernels import forked_kernels
from lora_lab.training import device

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "data" / "results" / "lesson_memory.json"
PANELS = "import lora_lab\ndisplay(lora_lab.LoRAPanel(), lora_lab.SweepPanel())\n"
MODEL = 'model = lora_lab.load_model("minilm", num_labels=2)\nmodel(**model.dummy_inputs)'
FEW = "import lora_course.lesson as _lesson; _lesson.steps = lambda full, fast=3: min(full, 3)"


def wall(pid: int, limit: int) -> None:
    """Let Linux refuse this process, and what it starts from now on, more than `limit` bytes of writable data each."""
    if sys.platform == "linux":
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (limit, limit))


def high_water(pid: int) -> int:
    """The most bytes ever resident in one process (Linux, Windows); 0 on macOS, which tells only the current size."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    with suppress(psutil.Error):
        return int(getattr(psutil.Process(pid).memory_info(), "peak_wset", 0))
    return 0


class Watch:
    """A context that kills a process and its children when together they hold more than `limit` bytes.

    It polls every 50 ms, and asks for the high-water mark of the first process, which polls may miss. `peak` is the
    most bytes seen, `most_programs` the most children at once.
    """

    def __init__(self, pid: int, limit: int | None = None) -> None:
        self.pid, self.limit = pid, limit or 2**60
        self.peak = self.most_programs = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Watch:
        if self.limit < 2**60:
            with suppress(psutil.Error):  # it has ended already
                wall(self.pid, self.limit)
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        self._over.set()
        self._thread.join()

    @property
    def exceeded(self) -> bool:
        """Whether they ever held more memory than they may."""
        return self.peak > self.limit

    def look(self) -> None:
        """Poll once."""
        with suppress(psutil.Error):
            first = psutil.Process(self.pid)
            started = first.children(recursive=True)
            size = first.memory_info().rss + sum(child.memory_full_info().uss for child in started)
            self.peak = max(self.peak, size, high_water(self.pid))
            self.most_programs = max(self.most_programs, len(started))
            if self.exceeded:
                for process in (*started, first):
                    process.kill()

    def _poll(self) -> None:
        while not self._over.wait(0.05):
            self.look()


def watched(notebook: NotebookNode, limit: int | None = None) -> Watch:
    """Run every cell in a kernel of its own and in an empty folder; above `limit` bytes the kernel is ended.

    A cell that fails ends nothing, see `errors_of`. The environment is the caller's: FAST, LORA_LAB_HEADLESS.
    Raises: as nbclient, DeadKernelError for a kernel that was ended.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = Client(notebook, timeout=1800, allow_errors=True, resources={"metadata": {"path": folder}})
        with client.setup_kernel(), Watch(client.km.provisioner.pid, limit) as watch:
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
    return watch


def errors_of(notebook: NotebookNode) -> list[str]:
    """What the cells of a notebook that was run failed with: `MemoryError`."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


def measured(source: Path, length: str) -> dict[str, Any]:
    """What a lesson takes, and what stands beside every measurement: when, where, with which versions."""
    notebook, began = built(source, solved=True), time.monotonic()
    if length == "wide":
        notebook.cells.insert(0, new_code_cell(FEW))
    watch = watched(notebook)
    return {
        "peak_bytes": watch.peak,
        "programs": watch.most_programs,
        "errors": errors_of(notebook),
        "seconds": round(time.monotonic() - began, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": device.describe(device.available_devices()[0]),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "ipykernel", "matplotlib")},
    }


def idle_kernels(count: int, code: str) -> str:
    """What `count` idle kernels take together after running the code; pages that they share are counted once."""
    with forked_kernels() as environment, ExitStack() as stack:
        os.environ |= environment
        for _ in range(count):
            client = Client(new_notebook(cells=[new_code_cell(code)]), timeout=600)
            stack.enter_context(client.setup_kernel())
            client.execute_cell(client.nb.cells[0], 0)
        sizes = [process.memory_full_info() for process in psutil.Process().children(recursive=True)]
    together, private = sum(size.pss for size in sizes), sum(size.uss for size in sizes)
    return f"{count} idle kernels: {together / 1e9:.2f} GB, {(together - private) / 1e9:.2f} of them shared"


def main(arguments: list[str]) -> None:
    """Measure what the arguments ask for, and keep it beside what is known."""
    if arguments[:1] == ["--kernels"]:
        print(idle_kernels(int(arguments[1]), PANELS if "panels" in arguments else PANELS + MODEL))
        return
    length = next((a.removeprefix("--") for a in arguments if a in ("--full", "--wide")), "fast")
    os.environ |= {"LORA_LAB_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "FAST": "1" if length == "fast" else ""}
    for source in chosen(arguments):
        found = measured(source, length)
        words = f"{source.stem}: {found['peak_bytes'] / 1e9:.2f} GB {length}, {found['seconds']} s"
        print(words, found["errors"], flush=True)
        known = read_json(RESULTS) if RESULTS.is_file() else {}
        known[source.stem] = {**known.get(source.stem, {}), length: found}
        write_json(RESULTS, dict(sorted(known.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
