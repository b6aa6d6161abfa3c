"""Measure the peak resident memory of the lessons' kernels and their child processes: data/results/lesson_memory.json.

python notebooks/memory.py                 all solutions with FAST=1
python notebooks/memory.py --full 01 05    at full length; sweeps load the runs that ship with the lab
python notebooks/memory.py --wide 06       with all rows and all runs side by side, but 3 steps per run
python notebooks/memory.py --kernels 40    print the memory of 40 idle kernels with MiniLM and two panels (Linux)
python notebooks/memory.py --kernels 40 panels    the same with two panels only

Memory depends on the number of rows and runs per step, not on the number of steps. FAST=1 trains fewer runs side by
side, so a lesson with a sweep needs less; --wide shows what the full lesson needs, in a minute instead of half an hour.
Cells that rely on long training may fail with --wide: their errors are recorded, and the lesson continues.

If a lesson warns that memory is short, its numbers come from this file (lora_course/classroom/room.py).
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
from build import HERE, Client, built, chosen, parser_of
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from lora_lab.files import read_json, write_json
from lora_lab.kernels import forked_kernels
from lora_lab.training import device

RESULTS = HERE.parent / "data" / "results" / "lesson_memory.json"
PANELS = "import lora_lab\ndisplay(lora_lab.LoRAPanel(), lora_lab.SweepPanel())\n"
MODEL = 'model = lora_lab.load_model("minilm", num_labels=2)\nmodel(**model.dummy_inputs)'
FEW_STEPS = "import lora_course.lesson as _lesson; _lesson.steps = lambda full, fast=3: min(full, 3)"


def wall(pid: int, limit: int) -> None:
    """On Linux, limit the writable memory of a process, and of each process that it starts later, to `limit` bytes."""
    if sys.platform == "linux":
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (limit, limit))


def high_water(pid: int) -> int:
    """Return the peak resident bytes of a process on Linux and Windows, or 0 on macOS, which doesn't report it."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    with suppress(psutil.Error):
        return int(getattr(psutil.Process(pid).memory_info(), "peak_wset", 0))
    return 0


class Watch:
    """Context manager that kills a process and its children if their total memory exceeds `limit` bytes.

    It polls every 50 ms, and also reads the process's own peak, which polling may miss. `peak` is the maximum in
    bytes, `most_programs` the maximum number of children at a time.
    """

    def __init__(self, pid: int, limit: int | None = None) -> None:
        self.pid, self.limit = pid, limit
        self.peak = self.most_programs = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Watch:
        if self.limit is not None:
            with suppress(psutil.Error):  # the process has already ended
                wall(self.pid, self.limit)
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        self._done.set()
        self._thread.join()

    @property
    def exceeded(self) -> bool:
        """Whether the peak is above the limit."""
        return self.limit is not None and self.peak > self.limit

    def look(self) -> None:
        """Poll once."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            children = process.children(recursive=True)
            size = process.memory_info().rss + sum(child.memory_full_info().uss for child in children)
            self.peak = max(self.peak, size, high_water(self.pid))
            self.most_programs = max(self.most_programs, len(children))
            if self.exceeded:
                for running in (*children, process):
                    running.kill()

    def _poll(self) -> None:
        while not self._done.wait(0.05):
            self.look()


def watched(notebook: NotebookNode, limit: int | None = None) -> Watch:
    """Run all cells in a new kernel and an empty folder; kill the kernel if it exceeds `limit` bytes.

    A cell with an error doesn't stop the run, see `errors_of`. FAST and LORA_LAB_HEADLESS are read from the caller's
    environment. Raises: DeadKernelError from nbclient if the kernel was killed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = Client(notebook, timeout=1800, allow_errors=True, resources={"metadata": {"path": folder}})
        with client.setup_kernel(), Watch(client.km.provisioner.pid, limit) as watch:
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
    return watch


def errors_of(notebook: NotebookNode) -> list[str]:
    """Return the names of the errors in a notebook's outputs, such as `MemoryError`."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


def measured(source: Path, length: str) -> dict[str, Any]:
    """Run a lesson and return its measurements."""
    notebook, start = built(source, solved=True), time.monotonic()
    if length == "wide":
        notebook.cells.insert(0, new_code_cell(FEW_STEPS))
    watch = watched(notebook)
    return {
        "peak_bytes": watch.peak,
        "programs": watch.most_programs,
        "errors": errors_of(notebook),
        "seconds": round(time.monotonic() - start, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": device.describe(device.available_devices()[0]),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "ipykernel", "matplotlib")},
    }


def idle_kernels(count: int, code: str) -> str:
    """Describe the total memory of idle kernels after they ran the code; shared pages count once."""
    with forked_kernels() as environment, ExitStack() as stack:
        os.environ |= environment
        for _ in range(count):
            client = Client(new_notebook(cells=[new_code_cell(code)]), timeout=600)
            stack.enter_context(client.setup_kernel())
            client.execute_cell(client.nb.cells[0], 0)
        sizes = [process.memory_full_info() for process in psutil.Process().children(recursive=True)]
    total, private = sum(size.pss for size in sizes), sum(size.uss for size in sizes)
    return f"{count} idle kernels: {total / 1e9:.2f} GB, {(total - private) / 1e9:.2f} of them shared"


def main(arguments: list[str]) -> None:
    """Measure what the command line names."""
    parser = parser_of(__doc__, "--full", "--wide")
    parser.add_argument("--kernels", type=int, metavar="COUNT", help="see above")
    options = parser.parse_intermixed_args(arguments)
    if options.kernels is not None:
        print(idle_kernels(options.kernels, PANELS if "panels" in options.lessons else PANELS + MODEL))
        return
    length = "full" if options.full else "wide" if options.wide else "fast"
    os.environ |= {"LORA_LAB_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "FAST": "1" if length == "fast" else ""}
    for source in chosen(options.lessons):
        result = measured(source, length)
        summary = f"{source.stem}: {result['peak_bytes'] / 1e9:.2f} GB {length}, {result['seconds']} s"
        print(summary, result["errors"], flush=True)
        results = read_json(RESULTS) if RESULTS.is_file() else {}
        results[source.stem] = {**results.get(source.stem, {}), length: result}
        write_json(RESULTS, dict(sorted(results.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
