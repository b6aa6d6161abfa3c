"""Train packs as tasks of a Dask cluster: recipes are sent as plain settings; records and adapter files come back.

A worker needs lora_lab and its assets, not the store. If it dies, the scheduler runs its pack elsewhere. Start workers
with one thread each, since a process trains one pack at a time.
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
Made = list[tuple[Run, dict[str, bytes]]]  # runs, each with its adapter's files by name


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
    """Send every pack to the cluster, and store each result as it arrives; after `stop`, only those already done."""
    from dask.distributed import as_completed

    settings = [[recipe.settings() for recipe in pack] for pack in packs]
    sent = dict(zip(client.map(train_pack, settings, pure=False, retries=2), packs, strict=True))
    for future in as_completed(list(sent)):  # type: ignore[no-untyped-call]
        made: Made = [] if future.status in ("cancelled", "error") else future.result()
        if future.status == "error":
            made = [(failed(recipe, in_a_sentence(future.exception())), {}) for recipe in sent[future]]
        for run, files in made:
            folder = store.adapter_folder(run.recipe)
            if files:
                write_together(folder, files)
            store.add(run := replace(run, adapter=str(folder) if files else None))
            ended(run)
        if stop.is_set():
            client.cancel([one for one in sent if not one.done()])


def train_pack(settings: Sequence[Mapping[str, Any]]) -> Made:
    """Train a pack on a worker; if it cannot be set up, train its runs one by one."""
    recipes, made = [recipe_from(one) for one in settings], Made()

    def keep(member: Member, run: Run) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = [] if run.error else sorted(Path(save_adapter(member.model, folder)).iterdir())
            files.sort(key=lambda file: file.name == CONFIG)  # the config last: without it the others are not read
            made.append((run, {file.name: file.read_bytes() for file in files}))

    try:
        with training_lock():
            Pack(recipes).run(keep)
    except LabError as error:
        if len(recipes) == 1:
            return [(failed(recipes[0], str(error)), {})]
        return [one for own in settings for one in train_pack([own])]
    return made
