"""Sweeps: train missing runs in packs, and store each run as soon as it ends.

    recipes -> those not in the store -> packs, unfinished ones first -> each Run into the store -> Swept

A sweep can be killed at any time: finished runs are on disk, and a pack resumes from its last checkpoint. A store is
locked by one sweep at a time; the operating system releases the lock if the process dies. A pack is a group of recipes
that can share a base. On a Dask cluster, a worker needs lora_lab and its assets, but not the store. Give workers one
thread each, since a process trains one pack at a time; if a worker dies, the scheduler reruns its pack.
"""

import tempfile
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lora_lab.accounting.memory import trained_by
from lora_lab.errors import BadValue, Changed, Failed, LabError, OutOfMemory, in_a_sentence, warn
from lora_lab.experiments.grid import Grid, check
from lora_lab.experiments.racing import BEHIND, UNSCORED, VALIDATED, Race
from lora_lab.experiments.results import Runs, unlike
from lora_lab.files import write_together
from lora_lab.methods.base import plain, whole
from lora_lab.methods.io import CONFIG, save_adapter
from lora_lab.training import checkpoint, device
from lora_lab.training.batches import check_fits
from lora_lab.training.member import Member, Progress
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.models import load_tokenizer, shapes_of_model
from lora_lab.training.pack import Pack, key
from lora_lab.training.progress import steps_bar
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store, failed
from lora_lab.training.tasks import check_unchanged, chosen_rows, fingerprint, task_of
from lora_lab.training.watching import training_lock

LOCK = ".sweep.lock"
MIN_PACK, MAX_PACK = 8, 32  # runs: up to 8 always save time if they fit in memory; more than 32 save no more time
TOKENS = 2048  # tokens per core and step; more do not lower the cost per token
TRAINED_BYTES = 16  # per trained fp32 parameter: the parameter, its gradient, AdamW's two moments
DEFAULT_PACK = 4  # runs per pack if memory cannot be estimated; this is rarely too many
ROOM = 0.8  # fraction of free memory that a pack may use
TIMEOUT = 5  # seconds to wait for a Dask scheduler
OnEvent = Callable[[str, dict[str, Any]], None]
Results = list[tuple[Run, dict[str, bytes]]]  # from a worker: runs, each with its adapter's files by name


@dataclass(frozen=True)
class Swept(Runs):
    """The runs of all recipes, in the order of the recipes. `seconds` is wall time; for `choice`, see `Race.choice`."""

    packs: tuple[int, ...] = ()
    skipped: int = 0
    seconds: float = 0.0
    choice: dict[str, Any] | None = None

    @property
    def failed(self) -> int:
        """Number of failed runs; each has an `error`."""
        return sum(run.status == "failed" for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Return what `lora-lab sweep --json` prints."""
        counts = {"skipped": self.skipped, "failed": self.failed, "seconds": self.seconds}
        runs = [run.to_json() for run in self.runs]
        return {"runs": runs, "packs": list(self.packs), **counts, **(self.choice or {})}


def sweep(
    what: Grid | Recipe | Iterable[Recipe],
    store: Store | str | Path = "runs",
    *,
    choose: bool = False,
    again: bool = False,
    size: int | None = None,
    client: Any = None,
    stop: threading.Event | None = None,
    on_event: OnEvent | None = None,
    download: bool = False,
    **fields: Any,
) -> Swept:
    """Train all runs that the store lacks: sweep(Grid(rank=[1, 8], seed=range(5)), task="rt", steps=400).

    what       A recipe, recipes, or a grid whose recipes share `fields` (by default, the model minilm and the task rt).
    choose     Find the best configuration: from halfway on, stop runs that fall behind, and score only the best
               configuration and its rivals on the test rows; see `experiments/racing.py`.
    again      Retry failed runs.
    size       The maximum number of runs per pack. The default depends on memory and speed; 1 trains runs one by one.
    client     A Dask `Client` whose workers train the packs, or the address of its scheduler; see `connect`.
    stop       An event that ends the sweep after the current step. Finished runs are kept; repeat the call to resume.
    on_event   Called with ("pack", {recipes}), ("step", {recipe, progress}) and ("run", {run}).
    download   Allow downloads from the model hub.
    Raises, before training: BadValue or NotFound for an impossible grid; BadValue for a store in use or not writable;
    Changed if a data file, model or `start` has changed since the store's runs were trained on it.
    """
    if isinstance(what, Grid):
        what = what.recipes(fields.pop("model", "minilm"), fields.pop("task", "rt"), **fields)
    elif fields:
        raise BadValue(f"only a grid takes {', '.join(fields)}; these recipes already have their own values")
    recipes = list(what) if isinstance(what, Iterable) else [what]
    if not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise BadValue(f"pass a Grid, a Recipe or a list of recipes, not {what!r}")
    options = {"again": again, "client": client, "stop": stop, "on_event": on_event, "download": download}
    return Sweep(store, size, **options).run(recipes, choose)  # type: ignore[arg-type]


@dataclass
class Sweep:
    """Train the runs of a sweep, with these options in addition to those of `sweep`:

    room     The fraction of free memory that a pack may use.
    scored   If False, only validate: compute no test scores and save no adapters.
    pack     `Pack`, or a subclass that takes more measurements.
    lock     False if the caller already holds the store's lock.
    """

    store: Store | str | Path
    size: int | None = None
    room: float = ROOM
    scored: bool = True
    again: bool = False
    client: Any = None
    stop: threading.Event | None = None
    on_event: OnEvent | None = None
    download: bool = False
    pack: Callable[..., Pack] = Pack
    lock: bool = True

    def run(self, recipes: Iterable[Recipe], choose: bool = False) -> Swept:
        """Train the runs. Raises: see `sweep`."""
        started, wanted = time.perf_counter(), list(dict.fromkeys(recipes))
        self._stop, self._report = self.stop or threading.Event(), self.on_event or (lambda event, facts: None)
        if self.client is not None and (choose or not self.scored or self.pack is not Pack):
            raise BadValue("a cluster cannot choose a configuration: sweep on this machine, without client or --dask")
        if self.client is not None and not hasattr(self.client, "map"):
            self.client = connect(self.client)
        if not wanted:
            raise BadValue("the grid is empty: pass at least one rank, learning rate and seed")
        check(wanted)
        self._race = race = Race(wanted) if choose else None
        if self.client is None:  # models and tasks must be on this machine, with enough texts
            fields = ("model", "task", "text_column", "label_column", "max_length", "examples")
            kinds = ((r.method.positions(True), *(getattr(r, f) for f in fields), r.method.name) for r in wanted)
            for recipe in dict(zip(kinds, wanted, strict=True)).values():
                load_tokenizer(recipe.model, download=self.download)
                chosen_rows(task := task_of(recipe), recipe.examples, recipe.subset)
                check_fits(shapes_of_model(recipe.model, download=self.download), task, recipe.method)
        self._store = store = Store(self.store)
        with locked(store.folder) if self.lock else nullcontext(), steps_bar() as self._bar:
            self._seen = dict[Recipe, int]()  # the step of each run on the progress bar
            self._done = self._kept(wanted)
            skipped, sizes, choice = len(self._done), list[int](), None
            for stage in race.stages(self._done.values()) if race else [wanted]:
                left = [recipe for recipe in stage if recipe not in self._done]
                for computed in {tuple(recipe.computed.items()) for recipe in left if self.client is None}:
                    device.choose(1, **dict(computed))  # raises for a device, dtype or attention that is missing
                self._bar.total += sum(recipe.steps for recipe in left)
                self._bar.refresh()
                for pause in (True, False) if race else (False,):
                    sizes += self._train(left, pause)
                    left = [recipe for recipe in left if recipe not in self._done and not self._stop.is_set()]
                if self._stop.is_set():
                    break
            if self.client is None and not self._stop.is_set():
                for saved in checkpoint.unfinished(store.folder):
                    if all(recipe in wanted or store.find(recipe) for recipe in saved.recipes):  # all have ended
                        saved.path.unlink(missing_ok=True)
                finalists = race.finalists(store, self._done.values()) if race else [list(self._done.values())]
                unscored = [run.recipe for runs in finalists for run in runs if run.status == UNSCORED]
                for group in packs(unscored, size=self.size, room=self.room) if self.scored else ():
                    with training_lock(self._stop):
                        if not self._stop.is_set():
                            self._score([self._done[recipe] for recipe in group])
                choice = race.choice(store, self._done.values()) if race else None
        runs = tuple(self._done[recipe] for recipe in wanted if recipe in self._done)
        warn(unlike(runs))
        return Swept(runs, tuple(sizes), skipped, time.perf_counter() - started, choice)

    def _kept(self, wanted: Sequence[Recipe]) -> dict[Recipe, Run]:
        """Return stored runs that need no training, by recipe. Raises: Changed if the data or model has changed."""
        names = {name for recipe in wanted for name in (recipe.task, recipe.model, recipe.start)}
        self._fingerprints = {name: fingerprint(name) for name in names}
        hashes, kept = {recipe.hash for recipe in wanted}, {}
        own = any(self._fingerprints.values())  # with a user's own files, check that no run used an earlier version
        for run in self._store.runs(hashes) if own else filter(None, map(self._store.find, wanted)):
            unscored = run.status == UNSCORED and self.client is None  # a cluster has no store, so it repeats the run
            if (
                run.status in FINISHED
                or (run.status == "failed" and not self.again)
                or (unscored and (self._store.adapter_folder(run.recipe) / CONFIG).is_file())
                or (run.status == BEHIND and self._race and run.environment.get(BEHIND) in hashes)
            ):
                check_unchanged(run.recipe, run.environment, self._fingerprints)
                if run.recipe.hash in hashes:
                    kept[run.recipe] = run
        return kept

    def _train(self, left: Sequence[Recipe], pause: bool) -> list[int]:
        """Train the runs, interrupted ones first, in packs of runs that are at the same step; return the packs' sizes.

        pause   in a race, whether packs pause halfway if there are several; the next call regroups the remaining runs
        """
        steps, paths = dict.fromkeys(left, 0), dict[Recipe, Path]()
        for saved in checkpoint.unfinished(self._store.folder) if self.client is None else ():
            for recipe in saved.recipes:
                if saved.step > steps.get(recipe, saved.step):  # false for recipes that are not in `left`
                    steps[recipe], paths[recipe] = saved.step, saved.path
        groups = [
            group
            for step in sorted(set(steps.values()), reverse=True)
            for group in packs([r for r in left if steps[r] == step], size=self.size, room=self.room)
        ]
        if self.client is not None:
            self._train_on_cluster(groups)
            return [len(group) for group in groups]
        if self._race:
            self._race.pauses = pause and len(groups) > 1
        for group in groups:
            with training_lock(self._stop):
                if not self._stop.is_set():
                    self._train_pack(group, {paths[recipe] for recipe in group if recipe in paths})
        return [len(group) for group in groups]

    def _train_pack(self, recipes: list[Recipe], paths: Iterable[Path] = ()) -> None:
        """Train one pack and store its runs.

        If setup fails or memory runs out, continue with half of the runs at a time, from the last checkpoint.
        """
        self._report("pack", {"recipes": recipes})
        path = checkpoint.path_of(self._store.folder, recipes)
        try:
            pack = self.pack(recipes, callbacks=lambda r: [partial(self._on_step, r)], download=self.download)
        except (LabError, torch.OutOfMemoryError) as error:  # a GPU may lack room for all adapters
            reason = in_a_sentence(error)
        else:
            pack.scores_stopped, pack.scores_ends = False, self.scored and self._race is None
            pack.judge = self._race.judge if self._race else pack.judge
            pack.on_checkpoint = lambda pack: checkpoint.write(pack, path)
            if paths:
                checkpoint.restore(pack, *sorted(paths))
            try:
                pack.run(self._on_end, self._stop)
                if pack.stopped:  # the next sweep resumes the pack
                    checkpoint.write(pack, path)
                else:
                    path.unlink(missing_ok=True)
                return
            except OutOfMemory as error:
                reason = str(error)
            del pack  # frees its memory; inside the handler above, the traceback would still hold the pack
        if len(recipes) == 1:
            self._ended(failed(recipes[0], reason))
            return
        left, paths = [r for r in recipes if r not in self._done], [path] if path.is_file() else paths
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            if half and not self._stop.is_set():
                self._train_pack(half, paths)

    def _train_on_cluster(self, packs: Sequence[Sequence[Recipe]]) -> None:
        """Send packs to the cluster, and store the runs and adapter files that come back."""
        from dask.distributed import CancelledError, as_completed

        futures = dict(zip(self.client.map(train_pack, packs, pure=False, retries=2), packs, strict=True))
        for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
            try:
                results: Results = future.result()
            except CancelledError as error:
                if not self._stop.is_set():
                    raise Failed("the Dask cluster has stopped: restart it and rerun the command to resume") from error
                results = []
            except Exception as error:
                results = [(failed(recipe, in_a_sentence(error)), {}) for recipe in futures[future]]
            for run, files in results:
                try:
                    check_unchanged(run.recipe, run.environment, self._fingerprints)
                except Changed:
                    reason = "a worker has another version of the data or the model: copy this machine's files there"
                    run, files = failed(run.recipe, reason), {}
                folder = self._store.adapter_folder(run.recipe)
                if files:
                    write_together(folder, files)
                self._ended(replace(run, adapter=str(folder) if files else None))
            if self._stop.is_set():
                self.client.cancel([pending for pending in futures if not pending.done()])

    def _on_step(self, recipe: Recipe, progress: Progress) -> None:
        self._reach(recipe, progress.step)
        self._report("step", {"recipe": recipe, "progress": progress})

    def _reach(self, recipe: Recipe, step: int) -> None:
        """Advance the progress bar to a run's `step`; when a run ends, even early, pass its total number of steps."""
        self._bar.update(step - self._seen.get(recipe, 0))
        self._seen[recipe] = step

    def _on_end(self, member: Member, run: Run) -> None:
        """Save the adapter (unless the sweep is unscored or the run fell behind), then the record."""
        race = self._race
        if race and run.status == BEHIND:
            run = replace(run, environment=run.environment | {BEHIND: race.out[race.recipes[run.recipe]]})
        elif run.error is None and self.scored:
            run = replace(run, adapter=str(save_adapter(member.model, self._store.adapter_folder(run.recipe))))
            if member.right is not None:
                self._store.add_rows(run.recipe, VALIDATED, member.right)
            run = replace(run, status=UNSCORED) if race else run
        self._ended(run)

    def _ended(self, run: Run) -> None:
        self._store.add(run)
        self._done[run.recipe] = run
        self._reach(run.recipe, run.recipe.steps)
        if self._race:
            self._race.record(run)
        self._report("run", {"run": run})

    def _score(self, runs: Sequence[Run]) -> None:
        """Score trained runs on the test rows as one pack, and store their new records."""
        started = time.perf_counter()
        pack = Pack([run.recipe for run in runs], adapters=self._store.adapter_folder, download=self.download)
        scores = pack.score("test")
        seconds = (time.perf_counter() - started) / len(runs)
        for run, score in zip(runs, scores, strict=True):
            scored = self._done[run.recipe] = replace(
                run,
                status="done" if run.history["step"][-1] == run.recipe.steps else "early",
                metrics=score.metrics,
                predictions=score.predictions,
                seconds=run.seconds + seconds,
            )
            self._store.add(scored)


def locked(folder: Path) -> AbstractContextManager[Any]:
    """Lock a store for a `with` block. Raises: BadValue if the store is not writable or another sweep is using it."""
    Store(folder).check_writable()
    try:
        lock = FileLock(folder / LOCK, mode=0o666).acquire(timeout=0)  # others may share the folder
    except Timeout:
        raise BadValue(f"another sweep is using {folder}: wait for it, or choose another folder") from None
    for file in (folder / checkpoint.FOLDER).glob(".*.safetensors.*"):
        file.unlink(missing_ok=True)  # partial files from a killed process; for full fine-tuning, they take gigabytes
    return lock


def connect(address: str) -> Any:
    """Connect to the Dask scheduler at an address such as tcp://10.0.0.5:8786. Raises: BadValue."""
    try:
        from dask.distributed import Client

        return Client(address, timeout=TIMEOUT)  # type: ignore[no-untyped-call]
    except ImportError:
        raise BadValue("--dask needs Dask: pip install 'lora-lab[dask]'") from None
    except (OSError, TypeError, ValueError) as error:
        raise BadValue(f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`") from error


def train_pack(recipes: Sequence[Recipe]) -> Results:
    """Train a pack on a worker, in a temporary store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results()
        for run in Sweep(folder, len(recipes)).run(recipes).runs:
            files = list(Path(run.adapter).glob("adapter_*")) if run.adapter else []
            files.sort(key=lambda file: file.name == CONFIG)  # config last: without it, the other files are not read
            results.append((run, {file.name: file.read_bytes() for file in files}))
    return results


# ---- packs


def packs(recipes: Sequence[Recipe], *, size: int | None = None, room: float = ROOM) -> list[list[Recipe]]:
    """Group recipes into packs with at most `size` runs each (None: chosen automatically).

    Pack sizes are similar. If `size` allows it, all but the last are multiples of the number of parallel parts.
    """
    # Runs with equal targets and similar ranks are grouped, because smaller adapters are padded.
    groups, result = defaultdict[Any, list[Recipe]](list), []
    for recipe in sorted(recipes, key=lambda r: (str(getattr(r.method, "targets", "")), getattr(r.method, "rank", 0))):
        groups[key(recipe)].append(recipe)
    for group in groups.values():
        most = pack_size(group, room) if size is None else whole("size", plain(size))
        even, parts = ceil(len(group) / ceil(len(group) / most)), len(device.cut(MAX_PACK, "cpu"))
        step = min(most, ceil(even / parts) * parts)
        result += [group[i : i + step] for i in range(0, len(group), step)]
    return result


def pack_size(group: Sequence[Recipe], room: float = ROOM) -> int:
    """Return how many runs (at least 1) fit in free memory and still lower the cost per run.

    Memory includes activations for all rows and each run's own parameters. On a CPU, the cost per run falls as the pack
    grows, until every core has `TOKENS` tokens per step.
    """
    first = group[0]
    try:
        trained = {method: trained_by(method, first.model) for method in {recipe.method for recipe in group}}
        largest = max(trained, key=trained.__getitem__)
        need = need_of(replace(first, method=largest))
        free = room * free_bytes(need.setup.device)

        def bytes_of(runs: int) -> int:
            return need.bytes(batch=runs * need.setup.batch) + (runs - 1) * TRAINED_BYTES * trained[largest]

        fitting = bisect_right(range(1, MAX_PACK + 1), free, key=bytes_of)
    except LabError:
        return min(DEFAULT_PACK, len(group))
    typical = first.batch * max(16, need.setup.seq // 2)  # rows have at most seq tokens, and on average half as many
    parts = len(device.cut(MAX_PACK, "cpu"))
    cheaper = max(MIN_PACK, ceil(TOKENS * parts / typical)) if need.setup.device == "cpu" else MAX_PACK
    return max(1, min(MAX_PACK, len(group), fitting, cheaper))
