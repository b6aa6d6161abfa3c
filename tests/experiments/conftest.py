import multiprocessing

import pytest

from lora_lab import Grid, Recipe
from lora_lab.experiments.workers import METHOD
from tests.conftest import PLAIN


@pytest.fixture
def grid(tiny_encoder, opinions):
    """`grid(rank=[1, 2], steps=12)` returns recipes on the tiny encoder; by default, it returns four."""

    def make(rank=(1, 4), lr=(1e-2, 3e-3), seed=0, **fields) -> list[Recipe]:
        fields = {"steps": 6, "batch": 8, "validations": 3, **PLAIN, **fields}
        return Grid(rank=rank, lr=lr, seed=seed).recipes(tiny_encoder, opinions, **fields)

    return make


def on_step(callback):
    """Return an `on_event` for sweeps that passes on the progress of steps only."""
    return lambda event, facts: callback(facts["progress"]) if event == "step" else None


@pytest.fixture(scope="session")
def fork_server():
    """Start Python's fork server with torch and Dask imported, so that worker processes start in milliseconds."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(["lora_lab.experiments.workers", "distributed", "pytest"])
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OMP_NUM_THREADS", "1")
            forkserver.ensure_running()
