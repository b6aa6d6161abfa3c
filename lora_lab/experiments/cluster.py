"""Train packs on a Dask cluster: recipes go out as plain settings; records and adapter files come back.

A worker needs lora_lab and its assets, but not the store. If a worker dies, the scheduler reruns its pack elsewhere.
Start workers with one thread each, since a process trains one pack at a time.
"""

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, in_a_sentence
from lora_lab.files import write_together
from lora_lab.methods.io import CONFIG
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import Run, Store, failed

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
    client: Any, sweep: Callable[..., Any], packs: Sequence[Sequence[Recipe]], store: Store,
    ended: Callable[[Run], None], stop: threading.Event,
) -> None:  # fmt: skip
    """Send packs to the cluster, whose workers use the class `sweep`; call `ended` with each run that arrives."""
    from dask.distributed import as_completed

    settings = [[recipe.settings() for recipe in pack] for pack in packs]
    futures = dict(zip(client.map(partial(train_pack, sweep), settings, pure=False, retries=2), packs, strict=True))
    for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
        results: Results = [] if future.status in ("cancelled", "error") else future.result()
        if future.status == "error":
            results = [(failed(recipe, in_a_sentence(future.exception())), {}) for recipe in futures[future]]
        for run, files in results:
            folder = store.adapter_folder(run.recipe)
            if files:
                write_together(folder, files)
            ended(replace(run, adapter=str(folder) if files else None))
        if stop.is_set():
            client.cancel([pending for pending in futures if not pending.done()])


def train_pack(sweep: Callable[..., Any], settings: Sequence[Mapping[str, Any]]) -> Results:
    """Train a pack on a worker, in a store of its own that is then deleted."""
    with tempfile.TemporaryDirectory() as folder:
        swept, results = sweep(folder, len(settings)).run(map(recipe_from, settings)), Results()
        for run in swept.runs:
            files = sorted(Path(run.adapter).glob("adapter_*")) if run.adapter else []
            files.sort(key=lambda file: file.name == CONFIG)  # config last: without it, the other files are not read
            results.append((run, {file.name: file.read_bytes() for file in files}))
    return results
