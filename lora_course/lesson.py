"""Functions that all lessons share: start, predictions, receipts, and stored runs.

    lesson.start("03")                                  title, minutes, name and seed
    lesson.predict("points by rank", low=1, high=5)     a sealed range; lesson.skip(...) makes no prediction
    lesson.reveal("points by rank", 1.2, "points")      whether the range contains the result
    lesson.note("accuracy", run.metrics["accuracy"])
    lesson.receipt()                                    one line for the teacher

See `predictions` for how predictions are stored, and `receipts` for the format of receipts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from html import escape
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
from IPython import display, get_ipython
from IPython.core.pylabtools import print_figure

from lora_course.classroom.room import number as number_of
from lora_course.classroom.room import room_for
from lora_course.predictions import calibration, predict, reveal, skip  # noqa: F401
from lora_course.receipts import CURRENT, draw, key_of, note, receipt, seed_of  # noqa: F401
from lora_course.receipts import student as named
from lora_lab.errors import NotFound, printable, switched_on
from lora_lab.files import read_json, write_atomically
from lora_lab.lazy import pd, torch
from lora_lab.training.assets import shipped

FAST = switched_on("FAST")  # whether lessons are shortened

if TYPE_CHECKING:
    from lora_lab.training.runs import Run


def start(number: str, student: str | int = "") -> None:
    """Start a lesson: print its title, its length and computing time in minutes, and the student's name and seed.

    Also set up Colab, and warn if this machine has too little memory. `student` overrides LORA_LAB_STUDENT.
    Raises: NotFound for an unknown lesson.
    """
    prepare_colab()
    files = {number_of(path.stem): path for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    _check_name(number, files, "lesson")
    if student:  # an environment variable cannot hold NUL or lone surrogates
        os.environ["LORA_LAB_STUDENT"] = str(student).replace("\0", " ").encode(errors="replace").decode()
    before, now = key_of(CURRENT.student), key_of(name := named() or CURRENT.student)
    if CURRENT.lesson != number or (before and now and now != before):  # rerunning the first cell keeps everything
        CURRENT.lesson, CURRENT.checks, CURRENT.ranges, CURRENT.notes = number, {}, [], {}
    CURRENT.student = name
    title, minutes, machine = estimate(files[number])
    needs = "an unknown part" if machine is None else "less than one" if machine < 0.5 else f"{machine:.0f}"
    print(f"{title}\nAbout {minutes:.0f} minutes (estimated), of which the computer needs {needs}.")
    if memory := room_for(number):
        print(memory)
    if "matplotlib.pyplot" in sys.modules:  # the lesson draws
        sys.modules["matplotlib.pyplot"].style.use(Path(__file__).with_name("plots") / "lesson.mplstyle")
        if get_ipython():
            import_module("matplotlib_inline.backend_inline").set_matplotlib_formats("retina")  # sharp on every screen
    if named():
        print(printable(f"{named()}, seed {seed_of()}"))


def prepare_colab() -> None:
    """On Colab, enable custom widgets, fetch models and data, and use fp16 on a GPU without bf16, such as a T4.

    This function was written from Colab's documentation and tested with a mock, but not on Colab.
    """
    if "google.colab" not in sys.modules:
        return
    from lora_lab.training import assets

    import_module("google.colab.output").enable_custom_widget_manager()
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        os.environ.setdefault("LORA_LAB_DTYPE", "fp16")
    print(f"Colab: widgets on, dtype {os.environ.get('LORA_LAB_DTYPE', 'as measured')}")
    assets.fetch([name for name, asset in assets.ASSETS.items() if not asset.opt_in], print)


def estimate(notebook: Path) -> tuple[str, float, float | None]:
    """Return a lesson's title, minutes (1 per 100 words, 4 per exercise), and computing minutes (None: unknown)."""
    cells = read_json(notebook)["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    exercises = sum("exercise" in cell["metadata"].get("tags", []) for cell in cells)
    measured = read_json(shipped("data/results/lesson_times.json")).get(notebook.stem)
    machine = measured["seconds"] / 60 if measured else None
    minutes = sum(len(text.split()) for text in texts) / 100 + 4 * exercises + (machine or 0)
    return texts[0].split("\n")[0].lstrip("# "), minutes, machine


def steps(full: int, fast: int = 40) -> int:
    """Return the number of training steps: `full`, or at most `fast` with FAST=1."""
    return min(full, fast) if FAST else full


def reference(name: str) -> Run:
    """Return a run that ships with the lab; `environment` says when and on what hardware it ran. Raises: NotFound."""
    from lora_lab.training.runs import Store

    folder = shipped("data/results")
    _check_name(name, (run.stem for run in folder.glob("*.json") if run.with_suffix("").is_dir()), "reference run")
    return replace(Store(folder).read(name), adapter=str(folder / name))


def reference_comparison(name: str) -> dict[str, Any]:
    """Return a comparison that ships with the lab, as `lora-lab compare --json` prints it. Raises: NotFound."""
    folder = shipped("data/results/compare")
    _check_name(name, (path.stem for path in folder.glob("*.json")), "reference comparison")
    return read_json(folder / f"{name}.json")


def reference_reproductions() -> dict[str, dict[str, Any]]:
    """Return the results of `lora-lab reproduce` that ship with the lab, by item."""
    from lora_course.paper.reproduce.run import kept

    return {result["item"]: result for result in kept(shipped("data/results/reproduce"))}


def workplace(lesson: str) -> Path:
    """Return a lesson's run folder: runs/LESSON or, with FAST=1, one that all kernels of a parent process share."""
    if not FAST:
        return Path("runs") / lesson
    parent = psutil.Process(os.getppid())
    return Path(tempfile.gettempdir()) / f"lora_lab-{parent.pid}-{parent.create_time():.2f}" / lesson


def small(task: str, folder: Path, rows: int = 300) -> str:
    """Return the task or, with FAST=1, a CSV of its first `rows` training texts, so that scoring takes less time."""
    if not FAST:
        return task
    from lora_lab.training.tasks import load_task

    full = load_task(task)
    table = pd.DataFrame({"text": full.train.texts, "label": [full.labels[n] for n in full.train.labels]})[:rows]
    file = folder / f"{task}.csv"
    write_atomically(file, table.to_csv(index=False).encode())
    return str(file)


def catch_up(name: str, store: Path) -> str:
    """Copy a sweep that ships with the lab into a store, so that running the same sweep there trains nothing.

    Return a sentence with the number of runs, their hardware and their dates. Raises: NotFound.
    """
    from lora_lab.experiments.results import collect, records

    folder = shipped("data/results/sweeps")
    _check_name(name, (path.stem for path in folder.glob("*.zip")), "reference sweep")
    collect([sweep := folder / f"{name}.zip"], store)
    environments = [record["environment"] for record in records(sweep)]
    dates = sorted({environment["date"] for environment in environments})
    hardware = ", ".join(sorted({str(environment["hardware"]) for environment in environments}))
    count = f"{len(environments)} run{'s' * (len(environments) != 1)}"
    return f"copied {count} of ours, made on {hardware} from {dates[0]} to {dates[-1]}; a sweep won't repeat them"


SHOW = "this.closest('div').querySelectorAll('p').forEach((p, i) => p.hidden = i != this.value)"


def slider(name: str, figures: Mapping[str, tuple[Any, str]]) -> display.HTML:
    """Return a slider over {title: (figure, alt text)} that needs no kernel. Without scripts, all figures are shown."""
    track = f'type="range" min="0" max="{len(figures) - 1}" value="0" style="width: 16em; accent-color: #0072B2"'
    parts = [f'<label>{name}<br><input {track} oninput="{SHOW}"></label>']
    for title, (figure, alt) in figures.items():
        data = print_figure(figure, dpi=200, bbox_inches=None, base64=True)
        import_module("matplotlib.pyplot").close(figure)  # otherwise, the notebook shows it again
        more = f'alt="{escape(alt)}"' + """ onload="this.closest('p').hidden = true\"""" * (len(parts) > 1)
        picture = f'<img width="{100 * figure.get_figwidth():.0f}" src="data:image/png;base64,{data}" {more}>'
        parts.append(f"<p><b>{escape(title)}</b><br>{picture}</p>")
    return display.HTML(f"<div>{''.join(parts)}</div>")


def _check_name(name: str, names: Iterable[str], kind: str) -> None:
    """Raise NotFound, listing all names, if `name` is not one of them."""
    if name not in (names := sorted(names)):
        raise NotFound(f"there is no {kind} '{name}'; available: {', '.join(names) or 'none'}")


def milliseconds(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each function's median time; every round times all functions, so a short slowdown affects them all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, function in ways.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}
