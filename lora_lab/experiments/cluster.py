"""Train packs on a Dask cluster: recipes go out as plain settings; records and adapter files come back.

A worker needs lora_lab and its assets, but not the store. If a worker dies, the scheduler reruns its pack elsewhere.
Start workers with one thread each, since a process trains one pack at a time.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, LabError, in_a_sentence
from lora_lab.files import write_together
from lora_lab.methods.io import CONFIG, save_adapter
from lora_lab.training.loop import Member
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import Run, Store, failed
from lora_lab.training.training_lock import training_lock

TIMEOUT = 5  # seconds
Results = list[tuple[Run, dict[str, bytes]]]  # runs, each with its adapter's files by name


def connect(address: str) -> Any:
    """Connect to the Dask scheduler at an address such as tcp://10.0.0.5:8786. Raises: BadValue."""
    try:
        from dask.distributed import Client
    except ImportError:
        raise BadValue("--dask needs Dask: pip install 'lora-lab[dask]'") from None
    try:
        return Client(address, timeout=TIMEOUT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BadValue(f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`") from error


def run_on(
    client: Any, packs: Sequence[Sequence[Recipe]], store: Store, ended: Callable[[Run], None], stop: threading.Event
) -> None:
    """Send every pack to the cluster and store results as they arrive; after `stop`, only those already done."""
    from dask.distributed import as_completed

    settings = [[recipe.settings() for recipe in pack] for pack in packs]
    futures = dict(zip(client.map(train_pack, settings, pure=False, retries=2), packs, strict=True))
    for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
        results: Results = [] if future.status in ("cancelled", "error") else future.result()
        if future.status == "error":
            results = [(failed(recipe, in_a_sentence(future.exception())), {}) for recipe in futures[future]]
        for run, files in results:
            folder = store.adapter_folder(run.recipe)
            if files:
                write_together(folder, files)
            store.add(run := replace(run, adapter=str(folder) if files else None))
            ended(run)
        if stop.is_set():
            client.cancel([pending for pending in futures if not pending.done()])


def train_pack(settings: Sequence[Mapping[str, Any]]) -> Results:
    """Train a pack on a worker; if its setup fails, train its runs one by one."""
    recipes, results = [recipe_from(values) for values in settings], Results()

    def keep(member: Member, run: Run) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = [] if run.error else sorted(Path(save_adapter(member.model, folder)).iterdir())
            files.sort(key=lambda file: file.name == CONFIG)  # config last: without it, the other files are not read
            results.append((run, {file.name: file.read_bytes() for file in files}))

    try:
        with training_lock():
            Pack(recipes).run(keep)
    except LabError as error:
        if len(recipes) == 1:
            return [(failed(recipes[0], str(error)), {})]
        return [result for values in settings for result in train_pack([values])]
    return results
