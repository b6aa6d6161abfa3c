"""Many runs: those that the store has are left alone, the rest train in packs, and each is kept the moment it is there.

    recipes -> not yet in the store -> unfinished packs first -> packs -> Run by Run into the store -> Runs, a frame

It may be killed at any moment: finished runs are on disk, and the pack in hand goes on from its last checkpoint. One
sweep at a time works on a store; the operating system lets the lock go when its process dies.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.grid import Grid, check
from lora_lab.experiments.plan import ROOM, packs
from lora_lab.experiments.racing import BEHIND, SCORING, UNSCORED, VALIDATED, Choice, Race
from lora_lab.experiments.results import Runs, unlike, warn_of
from lora_lab.methods.io import CONFIG, save_adapter
from lora_lab.training import checkpoint
from lora_lab.training.device import AUTO, choose, environment, split_dtype
from lora_lab.training.loop import Callback, Member
from lora_lab.training.models import load_tokenizer
from lora_lab.training.pack import Pack
from lora_lab.training.progress import sweep_bar
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store, dtype_of, failed
from lora_lab.training.tasks import check_unchanged, drawn, fingerprint, load_task, typical_tokens
from lora_lab.training.training_lock import training_lock

LOCK = ".sweep.lock"
Note = Callable[[str, dict[str, Any]], None]  # an event and what there is to say of it
Watch = Callable[[Recipe], Sequence[Callback]]


@dataclass(frozen=True)
class Swept(Runs):
    """The runs of all recipes asked for, in the order asked for, and how they came about; seconds of wall time."""

    packs: tuple[int, ...] = ()
    skipped: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()  # on the runs that the store had
    choice: Choice | None = None

    @property
    def failed(self) -> int:
        """Runs that came to nothing, each with its reason in `error`."""
        return sum(run.status == "failed" for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """As `lora-lab sweep --json` prints it."""
        runs = [run.to_json() for run in self.runs]
        counts = {"skipped": self.skipped, "failed": self.failed, "seconds": self.seconds}
        chosen = self.choice.to_json() if self.choice else {}
        return {"runs": runs, "packs": list(self.packs), "notes": list(self.notes), **counts, **chosen}


def sweep(
    what: Grid | Iterable[Recipe],
    store: Store | str | Path = "runs",
    *,
    model: str = "minilm",
    task: str = "rt",
    solo: bool = False,
    choose: bool = False,
    scored: bool = True,
    again: bool = False,
    size: int | None = None,
    room: float = ROOM,
    client: Any = None,
    stop: threading.Event | None = None,
    note: Note = lambda event, facts: None,
    callbacks: Watch | None = None,
    download: bool = False,
    pack: Callable[..., Pack] = Pack,
    serves: Callable[[Run], bool] = lambda run: True,
    part: str = "",
    **fields: Any,
) -> Swept:
    """Make all runs that the store does not have yet: sweep(Grid(rank=[1, 8], seed=range(5)), task="rt", steps=400).

    what        a grid, for which `model`, `task` and `fields` say what all recipes share, or the recipes themselves
    solo        one after another in place of packs, for comparison
    choose      find the best configuration: seeds in stages, those that lie behind stop at half-time or later, and only
                the chosen one and its rivals are scored on the test rows, see `experiments/racing.py`
    scored      False for choosing a rate: runs are validated, never scored on the test split, and keep no adapter
    again       run failed ones once more
    size        lanes a pack at most; from memory and speed when None
    room        share of the free memory that a pack may take
    client      a Dask `Client`: packs go to its workers, see `experiments/cluster.py`
    stop        set it to end after the present step: what has finished is kept, the rest goes on next time
    note        hears "plan", "pack", "run" and what belongs to them, for progress
    callbacks   for each recipe, called with every step of it
    pack        what lays runs side by side: a `Pack` that measures more than others do, on this machine
    serves      whether a run that the store has needs no running again: it has what this `pack` measures
    part        a name of this sweep's own, with which it shares the store with others of other recipes and other names
    Raises: BadValue, NotFound for a grid that cannot be, a store that cannot be written or that another sweep works on,
    Changed where the store has runs that one's own file made when it held something else; before anything is trained.
    """
    started = time.perf_counter()
    if client is not None and (choose or not scored):
        raise BadValue("a cluster's runs are scored and kept whole: choose on this machine, without client or --dask")
    if client is not None and pack is not Pack:
        raise BadValue("a cluster's packs measure what every run does and no more: run this here, without client")
    wanted = list(dict.fromkeys(what.recipes(model, task, **fields) if isinstance(what, Grid) else what))
    if not wanted:
        raise BadValue("the grid is empty: give at least one rank, one rate and one seed")
    check(wanted)
    race = Race(wanted) if choose else None
    if client is None:
        _check_there(wanted, download)
    kept = store if isinstance(store, Store) else Store(store)
    kept.check_writable()
    with locked(kept.folder, part), sweep_bar() as bar:
        had, stop = _kept(kept, wanted, again, choose, serves), stop or threading.Event()
        skipped, sizes = len(had), list[int]()
        notes = _otherwise(had.values(), download) if client is None else ()
        _tidy(kept, [recipe for recipe in wanted if recipe.hash not in had], part)
        if race:
            for run in had.values():
                race.note(run)

        def tell(event: str, facts: dict[str, Any]) -> None:
            if event == "run":
                had[facts["run"].recipe.hash] = facts["run"]
                bar.ended(facts["run"].recipe)
                if race:
                    race.note(facts["run"])
            note(event, facts)

        def watch(recipe: Recipe) -> list[Callback]:
            return [bar.callback(recipe), *(callbacks(recipe) if callbacks else ())]

        def make(recipes: Sequence[Recipe]) -> Pack:
            made = pack(recipes, callbacks=watch, download=download)
            made.scores_stopped, made.scores_untrained, made.scores_test = False, scored, scored and not choose
            made.judge = race.judge if race else made.judge
            return made

        for asked in race.stages() if race else [wanted]:
            if race and stop.is_set():
                break
            left = [recipe for recipe in asked if recipe.hash not in had]
            plan = list(_plan(kept, left, 1 if solo else size, room, resume=client is None))
            groups = [group for group, _ in plan]
            if race:
                race.pauses &= len(groups) > 1
            sizes += map(len, groups)
            bar.left(left)
            tell("plan", {"packs": [len(group) for group in groups], "skipped": skipped, "runs": len(left)})
            if client is not None:
                from lora_lab.experiments.cluster import run_on

                run_on(client, groups, kept, note=tell, stop=stop)
            for group, paths in plan if client is None else ():
                with training_lock(stop):
                    if stop.is_set():
                        break
                    _run_pack(kept, group, paths, tell, stop, make, partial(_keep, kept, scored, race))
        found = {run.recipe.hash: run for run in map(kept.find, wanted) if run is not None}
        choice = None
        if client is None and not stop.is_set():
            checkpoint.forget(kept.folder, wanted)
            tested = race.choice(kept, found.values()).runs if race else found.values()
            left = [run.recipe for run in tested if run.status == UNSCORED and scored]
            for group in packs(left, size=1 if solo else size, room=room):
                with training_lock(stop):
                    if not stop.is_set():
                        found |= _scored(kept, [found[recipe.hash] for recipe in group], download)
            choice = race.choice(kept, found.values()) if race else None
    runs = tuple(found[recipe.hash] for recipe in wanted if recipe.hash in found)
    warn_of(unlike(runs))
    return Swept(runs, tuple(sizes), skipped, time.perf_counter() - started, notes, choice)


def _check_there(recipes: Sequence[Recipe], download: bool) -> None:
    """Raises: BadValue or NotFound for a model or a task that is not on this machine, or has too few texts."""
    first = {(r.model, r.task, r.text_column, r.label_column, r.max_length, r.examples): r for r in recipes}
    for recipe in first.values():
        load_tokenizer(recipe.model, download=download)
        text, label = recipe.text_column, recipe.label_column
        data = load_task(recipe.task, max_length=recipe.max_length, text=text, label=label, download=download)
        drawn(data, recipe.examples, recipe.subset)


@contextmanager
def locked(folder: Path, part: str = "") -> Iterator[None]:
    """The store, or a part of it, for oneself. Raises: BadValue when another sweep works on it."""
    lock = FileLock(folder / f"{LOCK}{part}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadValue(f"another sweep works on {folder}: wait for it, or give this one a folder of its own") from None
    try:
        yield
    finally:
        lock.release()


def _tidy(store: Store, left: Sequence[Recipe], part: str) -> None:
    """Take away what a process left half written of these runs when it was killed; no sweep is writing them now.

    Nothing else that begins with a dot: the folder may be a project's, or somebody's home.
    """
    files = [] if part else [*(store.folder / checkpoint.FOLDER).glob(".*.safetensors.*")]  # a part's may be others'
    for recipe in left:
        files += [*store.folder.glob(f".{recipe.hash}.json.*"), *store.adapter_folder(recipe).glob(".*")]
    for file in filter(Path.is_file, files):
        file.unlink(missing_ok=True)


def _kept(
    store: Store, wanted: Sequence[Recipe], again: bool, choose: bool, serves: Callable[[Run], bool]
) -> dict[str, Run]:
    """Those that need no running, by hash. Raises: Changed where one was made when one's own file was another."""
    now = {task: fingerprint(task) for task in {recipe.task for recipe in wanted}}
    hashes = {recipe.hash for recipe in wanted}
    found = {recipe.hash: run for recipe in wanted if (run := store.find(recipe)) is not None}
    had = {}
    for name, run in found.items():
        stays = {"failed": not again, UNSCORED: (store.adapter_folder(run.recipe) / CONFIG).is_file()}
        stays[BEHIND] = choose and run.environment.get(BEHIND) in hashes
        if serves(run) if run.status in FINISHED else stays.get(run.status, False):
            had[name] = run
    for run in [*had.values(), *(run for run in found.values() if run.status in FINISHED)]:
        check_unchanged(run.recipe.task, run.environment.get("data"), now[run.recipe.task])
    return had


def _otherwise(had: Iterable[Run], download: bool) -> tuple[str, ...]:
    """What is to be said of runs whose dtype was left to a machine that took another than this one would."""
    now, found = dict[Any, str | None](), Counter[tuple[str, str]]()
    for run in had:
        recipe, computed = run.recipe, run.recipe.computed
        if run.dtype is None or AUTO not in (split_dtype(computed["dtype"])[1], computed["products"]):
            continue
        asked = recipe.task, recipe.text_column, recipe.label_column, recipe.max_length, *computed.values()
        if asked not in now:
            now[asked] = _dtype_now(recipe, download)
        if (here := now[asked]) not in (None, run.dtype):
            found[run.dtype, str(here)] += 1
    return tuple(
        f"{count} of the runs from before were trained in {then}, and this machine would train them in {here}"
        for (then, here), count in found.items()
    )


def _dtype_now(recipe: Recipe, download: bool) -> str | None:
    text, label = recipe.text_column, recipe.label_column
    with suppress(LabError):  # a device that is not here trains nothing, and what it has trained is there already
        task = load_task(recipe.task, max_length=recipe.max_length, text=text, label=label, download=download)
        return dtype_of(environment(choose(typical_tokens(task), **recipe.computed)))
    return None


def _plan(
    store: Store, left: Sequence[Recipe], size: int | None, room: float, *, resume: bool
) -> Iterator[tuple[list[Recipe], set[Path]]]:
    """Packs to run, with the checkpoints that their runs go on from; those first that were broken off.

    Runs that were broken off at the same step stand together, whatever packs they were in.
    """
    new, at_step = {recipe.hash: recipe for recipe in left}, dict[int, dict[Recipe, Path]]()
    for one in sorted(checkpoint.unfinished(store.folder), key=lambda one: -one.step) if resume else ():
        for name in {recipe.hash for recipe in one.recipes} & new.keys():
            at_step.setdefault(one.step, {})[new.pop(name)] = one.path
    for step in [*at_step, 0]:
        paths = at_step.get(step, {})
        together = [recipe for recipe in left if (recipe in paths if paths else recipe.hash in new)]
        for pack in packs(together, size=size, room=room):
            yield pack, {paths[recipe] for recipe in pack if paths}


def _run_pack(
    store: Store, recipes: list[Recipe], paths: set[Path], note: Note, stop: threading.Event,
    make: Callable[[Sequence[Recipe]], Pack], keep: Callable[[Member, Run], Run],
) -> None:  # fmt: skip
    """One pack into the store; an error of the pack as a whole is recorded for each of its runs."""
    note("pack", {"recipes": recipes})
    try:
        pack = make(recipes)
    except LabError as error:
        if len(recipes) == 1:
            store.add(failed(recipes[0], str(error)))
            note("run", {"run": store.find(recipes[0])})
            return
        for recipe in recipes:  # perhaps only one of them is at fault
            _run_pack(store, [recipe], set(), note, stop, make, keep)
        return
    if paths:
        checkpoint.restore(pack, *paths)
    where = checkpoint.path_of(store.folder, recipes)
    pack.written = lambda p: checkpoint.write(p, where)

    pack.run(lambda lane, run: note("run", {"run": keep(lane, run)}), stop)
    if pack.stopped:  # goes on next time
        checkpoint.write(pack, where)
    else:
        where.unlink(missing_ok=True)


def _keep(store: Store, scored: bool, race: Race | None, lane: Member, run: Run) -> Run:
    """Save a lane's adapter, unless it was trained for choosing alone or lies behind, then the record that names it."""
    if race and run.status == BEHIND:
        run = replace(run, environment=run.environment | {BEHIND: race.out[race.recipes[run.recipe]]})
    elif run.error is None and scored:
        run = replace(run, adapter=str(save_adapter(lane.model, store.adapter_folder(run.recipe))))
        if lane.right is not None:
            store.add_rows(run.recipe, VALIDATED, lane.right)
        run = replace(run, status=UNSCORED) if race else run
    store.add(run)
    return run


def _scored(store: Store, runs: Sequence[Run], download: bool) -> dict[str, Run]:
    """Runs that were trained and validated, by hash, with the scores of their test rows: all as one pack."""
    began = time.perf_counter()
    pack, scored = Pack([run.recipe for run in runs], adapters=store.adapter_folder, download=download), {}
    scores = pack.score("test")
    took = (time.perf_counter() - began) / len(runs)
    for run, score in zip(runs, scores, strict=True):
        status = "done" if run.history["step"][-1] == run.recipe.steps else "early"
        now = replace(
            run, status=status, metrics=score.metrics, predictions=score.predictions, seconds=run.seconds + took,
            environment=run.environment | {SCORING: took},
        )  # fmt: skip
        store.add(now)
        scored[run.recipe.hash] = now
    return scored
