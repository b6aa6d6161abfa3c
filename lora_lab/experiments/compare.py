"""Compare methods fairly: each method gets its own tuned learning rate, several seeds, and one score on test rows.

    for each method   a rate, chosen on validation (`tuning.py`)       OUT/tuning
                      n seeds at that rate, scored on the test split   OUT/runs
                      its costs, and what it forgot                    OUT/costs, OUT/afterwards
    then              each method against full fine-tuning and the probe, with Holm's correction

All methods share the model, data, data order per seed, steps, batch size and head, and the last checkpoint is scored. A
frozen base computes in this machine's fastest dtype, while trainable base weights are fp32. A comparison can be killed
at any time: the same call resumes it and gives the same result.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from lora_lab.accounting.memory import estimate
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, Changed, Failed, LabError, in_a_sentence, warn
from lora_lab.experiments.afterwards import afterwards, before, check_scorable, digest
from lora_lab.experiments.grid import check
from lora_lab.experiments.margins import packed, scores_in
from lora_lab.experiments.results import scores_of
from lora_lab.experiments.statistics import MARGIN, Verdict, check_margin, verdicts
from lora_lab.experiments.study import contenders, label
from lora_lab.experiments.sweep import ROOM, Sweep, locked, packs
from lora_lab.experiments.tuning import GROWTH, RATES, SEED, axis_of, tune
from lora_lab.experiments.workers import Say, in_processes, process_count
from lora_lab.files import as_path, cached_json, write_json
from lora_lab.methods.base import Method, is_number, make_plain, plain, whole
from lora_lab.training.batches import check_fits
from lora_lab.training.device import dtype_to_train
from lora_lab.training.measure import measure
from lora_lab.training.memory_check import need_of
from lora_lab.training.models import load_tokenizer, shapes_of_model
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe, check_fields
from lora_lab.training.runs import FINISHED, Run
from lora_lab.training.tasks import Task, load_task, task_of

OPPONENTS = ("full", "probe")  # every method is compared with these
UNSET = (  # keys of a row that are None until the method has runs
    "adapter_bytes", "predicted_bytes", "predicted_parts", "peak_bytes", "added_tokens", "lr", "edge", "trainable",
    "head", "file_bytes", "dtype", "products", "seconds", "answers", "error",
)  # fmt: skip
NO_COST = (LabError, RuntimeError, AttributeError, TypeError)  # raised if a cost cannot be computed
NOT_METRICS = ("seconds", "forgetting", "n")  # numbers from `afterwards` that are not metrics of the task
TIMED_STEPS, WARMUP_STEPS = 8, 2  # steps to time, and how many of these are warmup
MIN_STEPS = 10  # steps; fewer make a comparison meaningless
TIME_FRACTION = 0.8  # plan for this fraction of the time, since smaller packs and rare batch shapes are slower
TIMED_PROMPTS = 4  # prompts for timing generation


@dataclass(frozen=True)
class Terms:
    """What all methods share: the recipe, except for the method and the tuned setting. Raises: BadValue."""

    base: Recipe
    rates: int = RATES
    growth: int = GROWTH
    tuning_seeds: int = 1
    seeds: int = 5
    margin: float = MARGIN
    forgetting: str | None = None
    prompts: int = 0

    def __post_init__(self) -> None:
        make_plain(self)
        for name, low, high in (("rates", 1, 50), ("growth", 0, 50), ("tuning_seeds", 1, 100), ("seeds", 1, SEED)):
            whole(name, getattr(self, name), low, high)
        whole("prompts", self.prompts, 0)

    def recipe(self, method: Method) -> Recipe:
        """Return a method's recipe before tuning. `dtype` applies only to frozen bases."""
        recipe = replace(self.base, method=method)
        return replace(recipe, dtype=dtype_to_train(recipe.dtype)) if method.trains_base else recipe

    def loaded(self, download: bool = False) -> Task:
        """Check all terms and load the task. Raises: BadValue or NotFound for a missing or unsuitable model or task."""
        load_tokenizer(self.base.model, download=download)
        task, name = task_of(self.base), self.base.task
        check_margin(self.margin, shares=task.num_labels is not None)
        if task.num_labels is not None and (self.forgetting or self.prompts):
            raise BadValue(f"forgetting and prompts are for language models; {name} is a classification task")
        if self.prompts:
            check_scorable(task)
        if task.metric == "pearson":
            raise BadValue(f"the metric of {name} is a correlation, for which verdicts are not available")
        if task.validation is task.test:
            warn(f"{name}: learning rates are tuned on the same rows that are scored at the end")
        if self.forgetting and load_task(self.forgetting).num_labels is not None:
            raise BadValue(f"forgetting is measured on plain text such as shakespeare, not on {self.forgetting}")
        return task


TERM_NAMES = [field.name for field in fields(Terms) if field.name != "base"]  # what a comparison takes besides a recipe


@dataclass(frozen=True)
class Comparison:
    """The results of all methods under the same conditions.

    about   the JSON of the comparison without its methods
    rows    one entry of the JSON per method; an entry's `error` says why the entry is empty or lacks runs
    runs    {label: finished runs by seed}
    """

    about: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    runs: Mapping[str, Sequence[Run]]

    @cached_property
    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """{label: {"full": verdict, "probe": verdict}} for every method with stored answers."""
        scores = scores_in({"methods": self.rows})
        judged: dict[str, dict[str, Verdict]] = {name: {} for name in scores}
        for opponent in OPPONENTS:
            labels = [row["label"] for row in self.rows if row["method"] == opponent and row["label"] in scores]
            if labels and len(scores) > 1:
                against = opponent if opponent in labels else labels[0]  # "full" rather than "full top 2"
                for name, verdict in verdicts(scores, against, self.about["margin"]).items():
                    judged[name][opponent] = verdict
        return judged

    def to_json(self) -> dict[str, Any]:
        """Return what `lora-lab compare --json` prints."""
        judged = {name: {who: verdict.to_json() for who, verdict in own.items()} for name, own in self.verdicts.items()}
        return {**self.about, "methods": [{**row, "against": judged.get(row["label"], {})} for row in self.rows]}


def compare(
    model: str,
    task: str,
    methods: str | Method | Iterable[str | Method],
    store: str | Path = "compared",
    *,
    say: Say = lambda message: None,
    again: bool = False,
    download: bool = False,
    stop: threading.Event | None = None,
    on_result: Callable[[Comparison], None] | None = None,
    workers: int | None = 1,
    minutes: float | None = None,
    pack: Callable[..., Pack] = Pack,
    **terms: Any,
) -> Comparison:
    """Compare methods on a task: compare("minilm", "rt", "probe,lora,lora:rank=1,full", steps=200, seeds=5).

    methods  names or methods, see `contenders`
    store    folder for tuning, runs, and comparison.json
    say      called with progress messages
    stop     an event; set it to end after the current step; the same call resumes the comparison
    on_result  called after each method with the comparison so far
    workers  number of methods to run at once, each in a process with its share of the cores; None: automatic. With
             several workers, omit `stop`, and guard a script with `if __name__ == "__main__":`, as workers import it.
    minutes  total time, which determines `steps`; see `steps_within`
    again, pack   as in `Sweep`; for example, `pack` may use another loss
    terms    fields of `Terms` and of `Recipe`
    Raises: BadValue or NotFound for impossible terms, before any training; Changed, see `sweep`. A method that fails
    or doesn't fit the model is recorded with its error, and the others continue.
    """
    for name, instead in (("method", "methods"), ("lr", "rates"), ("seed", "seeds")):
        if name in terms:
            raise BadValue(f"a comparison sets {name} itself: pass {instead} instead of {name}={terms[name]!r}")
    if workers is not None:
        workers = whole("workers", plain(workers))
        if stop and workers > 1:
            raise BadValue("stop works only with workers=1")
    if minutes is not None and "steps" in terms:
        raise BadValue("pass steps or minutes, not both")
    own = {name: terms.pop(name) for name in TERM_NAMES if name in terms}
    check_fields(terms)
    recipe = Recipe(model, task, **{"validations": 0, **terms})
    shared, entries, out = Terms(recipe, **own), contenders(methods), as_path(store)
    data, stopped = shared.loaded(download), stop.is_set if stop else lambda: False
    base, problems = None, list[LabError]()
    shapes = shapes_of_model(model, download=download)
    for recipe in map(shared.recipe, entries):
        try:
            check([recipe])
            check_fits(shapes, data, recipe.method)
            break  # one method that can run is enough
        except LabError as problem:
            problems.append(problem)
    else:
        raise problems[0]
    if minutes is not None:
        steps = steps_within(plain(minutes), shared, data, entries, out, say, download=download)
        shared = replace(shared, base=replace(shared.base, steps=steps))
    recipes = [shared.recipe(method) for method in entries]
    if shared.forgetting and not stopped():  # before processes share the cores
        base = before(recipes[0], shared.forgetting, out / "afterwards", download=download)
    if workers is None:
        steps = len(entries) * (shared.rates + shared.seeds) * shared.base.steps
        workers = 1 if stop else process_count(recipes, steps)
    if workers > 1:
        say(f"running {workers} methods at once, each in its own process")
    about = {
        **{name: getattr(shared.base, name) for name in ("model", "task", "steps", "batch")},
        **{"margin": shared.margin, "growth": shared.growth, "metric": data.metric},
        "seeds": list(range(shared.seeds)),
        "tuning_seeds": [SEED + n for n in range(shared.tuning_seeds)],
        "rates": {label(method): axis_of(method).grid(shared.rates) for method in entries},
    }
    finished = dict[int, tuple[dict[str, Any], list[Run], float]]()
    options = {"again": again, "download": download, "stop": stop, "room": ROOM / workers, "lock": False, "pack": pack}
    with locked(out / "tuning"), locked(out / "runs"):
        work = partial(_result, shared, data.metric, base, out, options)
        for number, result in in_processes(work, entries, workers, say, long=lambda method: bool(method.trains_base)):
            finished[number] = result
            rows, each, seconds = zip(*(finished[key] for key in sorted(finished)), strict=True)
            environment = dict(next((runs[0].environment for runs in each if runs), {}))
            environment.pop("pack", None)
            shown = {**about, "seconds": sum(seconds), "environment": environment}
            comparison = Comparison(shown, rows, {row["label"]: runs for row, runs in zip(rows, each, strict=True)})
            if on_result and not stopped():  # a stopped method may lack some of its runs
                on_result(comparison)
    if not stopped() and any(each):
        write_json(out / "comparison.json", comparison.to_json())
    return comparison


def _result(
    terms: Terms, metric: str, base: float | None, out: Path, options: dict[str, Any], method: Method, say: Say
) -> tuple[dict[str, Any], list[Run], float]:
    """Tune, train and score one method; return its row, runs and seconds, even after an error."""
    name, axis, runs, seconds = label(method), axis_of(method), list[Run](), 0.0
    row: dict[str, Any] = {
        **{"method": method.name, "label": name, "settings": method.settings(), "tried": [], "runs": []},
        **{metric: spread([]), **dict.fromkeys(UNSET)},
    }
    try:
        say(f"{name}: tuning {axis.name} over {', '.join(f'{value:g}' for value in axis.grid(terms.rates))}")
        tries = {"rates": terms.rates, "growth": terms.growth, "seeds": terms.tuning_seeds}
        recipe = terms.recipe(method)
        tuning = tune(recipe, out / "tuning", **tries, **options)
        best, seconds = tuning.best, tuning.seconds
        row["edge"] = tuning.edge
        row["tried"] = [{axis.name: t.value, "validation": t.validation, "each": t.each} for t in tuning.tried]
        edge = ", the edge of the grid" if tuning.edge else ""
        say(f"{name}: best {axis.name} {best.value:g} of {len(tuning.tried)}{edge}, validation {best.validation:.4g}")
        tuned = axis.set(recipe, best.value)
        swept = Sweep(out / "runs", **options).run(tuned.at_seed(seed) for seed in range(terms.seeds))
        runs = [run for run in swept.runs if run.status in FINISHED]
        cause = next((run.error for run in swept.runs if run.error), None)
        row["error"] = cause and (f"{len(swept) - len(runs)} of {len(swept)} seeds failed: {cause}" if runs else cause)
        if runs:
            folder, download = out / "afterwards", options["download"]
            later = [afterwards(run, terms.forgetting, terms.prompts, folder, download=download) for run in runs]
            seconds += sum(run.seconds for run in runs) + sum(scores["seconds"] for scores in later)
            generated = [k for k, v in later[0].items() if isinstance(v, int | float) and k not in NOT_METRICS]
            values = [{**run.metrics, **extra} for run, extra in zip(runs, later, strict=True)]
            run = runs[0]
            files = list(Path(run.adapter).glob("*.safetensors")) if run.adapter else []
            scores = [scores_of(run) for run in runs if run.predictions is not None]
            row |= {
                "settings": run.recipe.method.settings(),
                "lr": run.recipe.lr if axis.name == "lr" else None,
                **{name: spread([v[name] for v in values if name in v]) for name in (metric, *generated)},
                "trainable": run.adapter_parameters,
                "head": run.head_parameters,
                "file_bytes": sum(file.stat().st_size for file in files) or None,
                "dtype": run.environment["dtype"],
                "products": run.environment.get("products", run.environment["dtype"]),
                "seconds": fmean(run.seconds for run in runs),
                "answers": packed(np.stack(scores)) if len(scores) == terms.seeds else None,  # pairing needs all seeds
                "runs": [run.recipe.hash for run in runs],
            }
            if base is not None:
                after = spread([v["forgetting"] for v in values])
                row["forgetting"] = {"task": terms.forgetting, "before": base, "after": after}
            row |= cached_json(out / "costs" / f"{run.recipe.hash}-costs.json", partial(costs_of, run.recipe))
            say(f"{name}: {metric} {', '.join(f'{v:.4g}' for v in row[metric]['each'])}; {seconds:.0f} s in total")
    except Changed:
        raise
    except Exception as error:  # any error: the other methods' results must not be lost
        row["error"] = in_a_sentence(error)
        say(f"{name}: failed: {row['error']}")
    return row, runs, seconds


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, standard deviation (None for fewer than two values), count, and the values."""
    mean, std = fmean(values) if values else None, stdev(values) if len(values) > 1 else None
    return {"mean": mean, "std": std, "n": len(values), "each": list(values)}


def costs_of(recipe: Recipe) -> dict[str, Any]:
    """Return the memory costs of a single run in bytes, except those that cannot be predicted or measured.

    adapter_bytes     size of the adapter file, from the architecture
    predicted_bytes   predicted peak of a step; `predicted_parts` splits it by category
    peak_bytes        peak of a real step on the longest batch, tracked tensor by tensor; none for a probe. In a stored
                      run, `peak_bytes` is the peak of a process that trains a whole pack.
    added_tokens      tokens added to every row; a prefix adds none
    """
    try:
        need = need_of(recipe)
    except LabError:
        return {}
    costs: dict[str, Any] = {"added_tokens": recipe.method.added_tokens}
    with suppress(*NO_COST):
        labels = need.setup.num_labels if need.architecture.task == "encoder" else None
        costs["adapter_bytes"] = params(recipe.model, recipe.method, labels).adapter_bytes
    with suppress(*NO_COST):
        predicted = estimate(recipe.model, recipe.method, need.setup)
        costs |= {"predicted_bytes": predicted.peak, "predicted_parts": dict(predicted.categories)}
    with suppress(*NO_COST):
        costs["peak_bytes"] = measure(recipe.model, recipe.method, **vars(need.setup)).peak
    return costs


# ---- a time budget


class Timing(NamedTuple):
    """One method's times in seconds: to set up a pack and, for each run, to take one step and to validate once."""

    load: float
    step: float
    validation: float


def steps_within(
    minutes: float, terms: Terms, task: Task, methods: Sequence[Method], out: Path, say: Say, *, download: bool = False
) -> int:
    """Return and cache the steps per run that take about `minutes` in total. Raises: BadValue for fewer than MIN_STEPS.

    seconds(steps) = sum over methods of   packs * load                                  for tuning and final runs
                                         + runs * (steps * step + validation)            for tuning, including growth
                                         + runs * (steps * step + test)                  for the final seeds
                                         + runs * afterwards                             for forgetting and generation

    `step` is one run's share of a step's time, measured on a few real steps of a pack as large as in tuning.
    """
    if not is_number(minutes) or not 0 < minutes < 1e6:
        raise BadValue(f"minutes must be a positive number, not {minutes!r}: it is the total time")

    def compute() -> dict[str, int]:
        fixed, slope, errors, tuned = 0.0, 0.0, list[LabError](), terms.tuning_seeds * (terms.rates + terms.growth)
        tests = len(task.test) / len(task.validation)
        for method in methods:
            axis, base, later = axis_of(method), terms.recipe(method), 0.0
            try:
                pack = packs([axis.set(base, value) for value in axis.grid(terms.rates)])[0]
                timing = pack_timed(pack, download)
                if terms.forgetting or terms.prompts:  # time one short run with few prompts
                    with TemporaryDirectory() as folder:
                        short = replace(pack[0], steps=1, validations=0)
                        run = Sweep(folder, download=download).run([short]).runs[0]
                        scored = partial(afterwards, run, folder=Path(folder) / "afterwards", download=download)
                        later = scored(forgetting=terms.forgetting, prompts=0)["seconds"]
                        if few := min(TIMED_PROMPTS, terms.prompts):
                            later += scored(forgetting=None, prompts=few)["seconds"] * terms.prompts / few
            except LabError as error:  # the comparison will report the error too
                say(f"{label(method)}: not timed: {error}")
                errors.append(error)
                continue
            say(f"{label(method)}: {timing.step:.3f} s per step, in a pack of {len(pack)}")
            together = method.can_pack and not base.dropout  # if so, tuning, growth and final seeds form one pack each
            loads = 3 if together else tuned + terms.seeds
            fixed += loads * timing.load + tuned * timing.validation + terms.seeds * (tests * timing.validation + later)
            slope += timing.step * (tuned + terms.seeds)
        if errors and not slope:
            raise errors[0]  # a number of steps that rests on no timing must not be cached
        if not slope:
            return {"steps": max(MIN_STEPS, terms.base.steps)}
        steps = int((TIME_FRACTION * 60 * minutes - fixed) / slope)
        if steps < MIN_STEPS:
            needed = ceil((fixed + MIN_STEPS * slope) / TIME_FRACTION / 60)
            takes = f"{MIN_STEPS} steps take about {needed} minutes; allow at least {needed}"
            raise BadValue(f"{minutes:g} minutes is too short: {takes}")
        return {"steps": steps}

    key = [minutes, asdict(replace(terms, base=replace(terms.base, steps=1))), [label(method) for method in methods]]
    file = out / "budget" / f"{digest(json.dumps(key, sort_keys=True))}.json"
    steps = int(cached_json(file, compute)["steps"])
    say(f"{steps} steps per run, about {minutes:g} minutes in total")
    return steps


def pack_timed(pack: Sequence[Recipe], download: bool = False) -> Timing:
    """Time one run of a pack over a few steps, in a temporary store. Raises: Failed if the run fails."""
    pack = [replace(recipe, steps=TIMED_STEPS, validations=1, seed=SEED) for recipe in pack]
    stamps = [time.perf_counter()]

    def on_event(event: str, facts: dict[str, Any]) -> None:
        if event == "step" and facts["recipe"] == pack[0]:
            stamps.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        swept = Sweep(folder, len(pack), scored=False, on_event=on_event, download=download).run(pack)
    if error := swept.runs[0].error:
        raise Failed(error)
    if len(stamps) <= TIMED_STEPS:  # the method does not train in steps
        return Timing(swept.seconds / len(pack), 0.0, 0.0)
    spans = [b - a for a, b in pairwise(stamps)]
    step = median(spans[WARMUP_STEPS:-1])
    shared = swept.runs[0].environment.get("pack", len(pack))  # 1 if the runs cannot share a pack
    return Timing(max(0.0, spans[0] - step), step / shared, max(0.0, spans[-1] - step) / shared)
