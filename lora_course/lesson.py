"""What the lessons share: their beginning and length, a place for runs, runs to catch up with.

    lesson.start("03")                                  title, minutes, name and seed
    lesson.predict("points by rank", low=1, high=5)     sealed; lesson.skip(...) for no prediction
    lesson.reveal("points by rank", 1.2, "points")      inside or outside
    lesson.note("accuracy", run.metrics["accuracy"])
    lesson.receipt()                                    one line for the teacher

Predictions are kept as `predictions` says, and receipts are made and read in `receipts`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lora_course.classroom import colab
from lora_course.classroom.room import number as number_of
from lora_course.classroom.room import room_for
from lora_course.experiments.flops import operations  # noqa: F401
from lora_course.predictions import calibration, fast, in_full, log, predict, reveal, skip  # noqa: F401
from lora_course.receipts import CURRENT, draw, note, receipt, seed_of  # noqa: F401
from lora_lab.errors import NotFound
from lora_lab.files import read_json, write_atomically
from lora_lab.training.assets import shipped

FAST = fast()

if TYPE_CHECKING:
    from lora_course.claims.cards import Verdict as Claimed
    from lora_lab.training.runs import Run


def start(number: str, student: str = "") -> None:
    """Begin a lesson: print its title, its minutes and the machine's share of them, and the student's name and seed.

    Says so where this machine has too little memory for it, and makes Colab ready.

    student  a name for this session, in the place of LORA_LAB_STUDENT

    Raises: NotFound, naming the lessons there are.
    """
    colab.ready()
    files = {number_of(path.stem): path for path in shipped("notebooks").glob("*[0-9]_*.ipynb")}
    _must_be_there(number, files, "lesson")
    if CURRENT.lesson != number:  # a first cell that is run again forgets nothing
        CURRENT.lesson, CURRENT.checks, CURRENT.ranges, CURRENT.notes = number, {}, [], {}
    title, minutes, machine = estimate(files[number])
    share = "an unmeasured part" if machine is None else "less than one" if machine < 0.5 else f"{machine:.0f}"
    print(f"{title}\n{minutes:.0f} minutes (estimated), {share} of them your machine's")
    if "too little" in (memory := room_for(number)):
        print(memory)
    if student:
        os.environ["LORA_LAB_STUDENT"] = student
    if name := os.environ.get("LORA_LAB_STUDENT"):
        print(f"{name}, seed {seed_of()}")


def estimate(notebook: Path) -> tuple[str, float, float | None]:
    """A lesson's title, its minutes, and those of them that are the machine's; None where nobody has measured it.

    100 words a minute, 4 minutes an exercise, and the seconds of its cells in data/results/lesson_times.json.
    """
    cells = read_json(notebook)["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    exercises = sum("exercise" in cell["metadata"].get("tags", []) for cell in cells)
    measured = read_json(shipped("data/results/lesson_times.json")).get(notebook.stem)
    machine = measured["seconds"] / 60 if measured else None
    minutes = sum(len(text.split()) for text in texts) / 100 + 4 * exercises + (machine or 0)
    return texts[0].split("\n")[0].lstrip("# "), minutes, machine


def steps(full: int, fast: int = 40) -> int:
    """How many steps a lesson trains: `full`, or with FAST=1 only enough for an illustration."""
    return min(full, fast) if FAST else full


def compare(what: str, guess: float | None, found: float, unit: str = "") -> str:
    """A guess beside what was counted or measured, in words; both go into the log of predictions, too."""
    log(what, found, unit, guess=guess)
    unit = f" {unit}" if unit and unit != "%" else unit
    if guess is None:
        return f"{what}: {in_full(found)}{unit}. You made no guess."
    off = guess - found
    apart = "" if unit == " times" else unit  # "246 times too low" would read as a factor
    side = "exactly right" if off == 0 else f"{in_full(abs(off), 3)}{apart} too {'high' if off > 0 else 'low'}"
    return f"{what}: you said {in_full(guess)}{unit}, it is {in_full(found)}{unit}: {side}."


def eta(training_steps: int) -> str:
    """About how long a run of minilm on rt takes on this machine, from the speed that was measured on it."""
    from lora_lab.training import device

    choice = device.choose(tokens=device.LENGTHS[0])
    times = device.measured(choice.device)
    speed = device.key(choice.dtype, choice.attention, device.LENGTHS[0])
    a_step = 6 * times.get(speed, max(times.values()))  # six layers; a dtype that is only used by order is not timed
    seconds = 5 + 1.6 * a_step * training_steps  # 5 s to load; head, embeddings, optimizer, validation: about 0.6 more
    illustration = " (FAST: an illustration)" if FAST else ""
    return f"about {seconds:.0f} s for {training_steps} steps on this machine{illustration}"


def reference(name: str) -> Run:
    """A run that ships with the lab; its environment says when and where it was made. Raises: NotFound."""
    from lora_lab.training.runs import Store

    folder = shipped("data/results")
    adapters = (path.name for path in folder.glob("*/"))
    _must_be_there(name, (one for one in adapters if (folder / f"{one}.json").is_file()), "reference run")
    return replace(Store(folder).read(name), adapter=str(folder / name))


def reference_comparison(name: str) -> dict[str, Any]:
    """A comparison that ships with the lab, as `lora-lab compare --json` printed it. Raises: NotFound."""
    from lora_course.claims.claim_tests.evidence import comparison

    return comparison(name)


def reference_styles() -> dict[str, Any]:
    """Three voices on smollm2 that ship with the lab, measured, with their recipes and where and when."""
    return read_json(shipped("data/results/styles/smollm2.json"))


def reference_reproductions() -> dict[str, dict[str, Any]]:
    """What `lora-lab reproduce` found for us, by item, with sizes and where and when."""
    from lora_course.paper.reproduce.run import kept

    return {found["item"]: found for found in kept(shipped("data/results/reproduce"))}


def workplace(lesson: str) -> Path:
    """The store of a lesson's sweeps: runs/LESSON, beside the notebook.

    With FAST=1 it belongs to the program that runs the lessons: the unsolved one finds what the solved one has trained.
    """
    if not FAST:
        return Path("runs") / lesson
    import psutil

    runner = psutil.Process(os.getppid())
    return Path(tempfile.gettempdir()) / f"lora_lab-{runner.pid}-{runner.create_time():.0f}" / lesson


def small(task: str, folder: Path, rows: int = 300) -> str:
    """The task itself; with FAST=1 a file of its first `rows` training texts, because scoring takes longest."""
    if not FAST:
        return task
    import pandas as pd

    from lora_lab.training.tasks import load_task

    full = load_task(task)
    labels = [full.labels[number] for number in full.train.labels[:rows]]
    table = pd.DataFrame({"text": full.train.texts[:rows], "label": labels})
    file = folder / f"{task}.csv"
    write_atomically(file, table.to_csv(index=False).encode())
    return str(file)


def catch_up(name: str, store: Path) -> str:
    """Copy the runs of a sweep that ships with the lab into a store, where a sweep that asks for them finds them done.

    Returns how many there are, and when and where they were made. Raises: NotFound, naming the sweeps there are.
    """
    from lora_lab.experiments.collect import collect
    from lora_lab.experiments.results import records

    folder = shipped("data/results/sweeps")
    _must_be_there(name, (path.stem for path in folder.glob("*.zip")), "reference sweep")
    collect([study := folder / f"{name}.zip"], store)
    made = [record["environment"] for record in records(study)]
    dates = sorted({environment["date"] for environment in made})
    hardware = ", ".join(sorted({str(environment["hardware"]) for environment in made}))
    number = f"{len(made)} run{'s' * (len(made) != 1)}"
    return f"{number} of ours, made on {hardware} from {dates[0]} to {dates[-1]}; a sweep finds them done"


def _must_be_there(name: str, there: Iterable[str], what: str) -> None:
    """Raises NotFound, naming those there are, where this is none of them."""
    names = sorted(there)
    if name not in names:
        raise NotFound(f"no {what} is called '{name}'; there are {', '.join(names) or 'none'}")


def milliseconds(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """What each way takes: the median of so many rounds, asked in turn, so that a busy moment hits all."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(times) for name, times in took.items()}


def claim(name: str, **premises: Any) -> Claimed:
    """A claim's card with the verdict that the machine computes, to be shown; `claim("one_24gb_card", gpu_gb=48)`.

    Raises: as `claims.cards.judge`.
    """
    from lora_course.claims.cards import judge

    return judge(name, **premises)
