"""Packs on the workers of a Dask cluster: one laptop's `LocalCluster`, a classroom of machines, or a queue's GPUs.

    caller: recipes as plain settings -> worker: trains the pack -> caller: records and adapter files into the store

A worker needs lora_lab and its assets, not the store: what it makes comes back as bytes. A worker that dies has its
pack run again elsewhere by the scheduler. A process trains one pack at a time, for torch's threads and random numbers
are shared within it: start workers with one thread each, and on a machine with several GPUs one worker for each.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, LabError
from lora_lab.files import write_together
from lora_lab.methods.io import CONFIG, save_adapter
from lora_lab.training.loop import Member
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import Run, Store, failed
from lora_lab.training.training_lock import training_lock

Note = Callable[[str, dict[str, Any]], None]
TIMEOUT = 5  # seconds in which a scheduler answers
RETRIES = 2  # of a pack that raised; one whose worker died is run again by the scheduler itself


@dataclass(frozen=True)
class Shipped:
    """A run as it travels: the record, and the adapter's files by name."""

    run: Run
    files: dict[str, bytes]


def connect(address: str) -> Any:
    """A client of the Dask scheduler at this address, such as tcp://10.0.0.5:8786.

    Raises: BadValue where Dask is not installed or nobody answers.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise BadValue("--dask needs Dask: pip install 'lora-lab[dask]'") from None
    try:
        return Client(address, timeout=TIMEOUT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BadValue(f"no Dask scheduler answers at {address}: start one with dask scheduler ({error})") from error


def run_on(
    client: Any, packs: Sequence[Sequence[Recipe]], store: Store, *, note: Note, stop: threading.Event | None,
) -> None:  # fmt: skip
    """Send every pack to the cluster and keep each result as it comes back; a pack that fails is recorded as failed.

    Once `stop` is set no pack is waited for, and those that have come back are kept all the same.
    """
    from dask.distributed import as_completed

    sent = {
        client.submit(train_pack, [recipe.settings() for recipe in pack], pure=False, retries=RETRIES): pack
        for pack in packs
    }
    for future in as_completed(list(sent)):  # type: ignore[no-untyped-call]
        for run in [] if future.cancelled() else _arrived(future, sent[future], store):
            note("run", {"run": run})
        if stop is not None and stop.is_set():
            client.cancel([f for f in sent if not f.done()])


def _arrived(future: Any, pack: Sequence[Recipe], store: Store) -> list[Run]:
    """The runs of a pack, in the store."""
    if future.status == "error":
        reason = f"{type(future.exception()).__name__}: {future.exception()}"
        runs = [failed(recipe, reason) for recipe in pack]
        for run in runs:
            store.add(run)
        return runs
    return [_keep(store, shipped) for shipped in future.result()]


def _keep(store: Store, shipped: Shipped) -> Run:
    folder, run = store.adapter_folder(shipped.run.recipe), shipped.run
    if shipped.files:
        write_together(folder, shipped.files)
    run = replace(run, adapter=str(folder) if shipped.files else None)
    store.add(run)
    return run


def train_pack(settings: Sequence[Mapping[str, Any]]) -> list[Shipped]:
    """On a worker: train a pack and return what came of it."""
    with training_lock():
        return _trained([recipe_from(one) for one in settings])


def _trained(recipes: Sequence[Recipe]) -> list[Shipped]:
    """What came of each; a pack that cannot be trained is tried run by run."""
    shipped: list[Shipped] = []

    def keep(lane: Member, run: Run) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved = save_adapter(lane.model, folder) if run.error is None else Path(folder)
            files = sorted(saved.iterdir(), key=lambda file: file.name == CONFIG)  # the config last: see _keep
            shipped.append(Shipped(run, {file.name: file.read_bytes() for file in files}))

    try:
        Pack(recipes).run(keep)
    except LabError as error:
        if len(recipes) == 1:
            return [Shipped(failed(recipes[0], str(error)), {})]
        return [one for recipe in recipes for one in _trained([recipe])]
    return shipped
