"""Tests of sweeps on a real Dask cluster of two processes, one of which is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lora_lab import BadValue, Grid, Store, sweep
from lora_lab.experiments.cluster import connect
from lora_lab.experiments.workers import METHOD
from tests.conftest import PLAIN

COLUMNS = ["hash", "rank", "lr", "seed", "accuracy", "validation_accuracy", "status", "adapter_parameters"]


@pytest.fixture(scope="module")
def client(fork_server):
    """A client of a cluster with two workers, each a process with one thread."""
    from dask import config
    from dask.distributed import LocalCluster

    with (
        config.set({"distributed.worker.multiprocessing-method": METHOD}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        connect(cluster.scheduler_address) as client,
    ):
        yield client


@pytest.fixture
def grid(tiny_encoder, opinions):
    """`grid(lr=1e-2)`: recipes on the tiny encoder; with a rate of 1e30 a run diverges."""

    def make(lr=(1e-2, 3e-3, 1e30), steps=8):
        shared = {"steps": steps, "batch": 8, "validations": 2, **PLAIN}
        return Grid(rank=[1, 4], lr=lr, seed=[0, 1]).recipes(tiny_encoder, opinions, **shared)

    return make


def test_cluster_gives_the_frame_of_one_machine(client, grid, tmp_path):
    local = sweep(grid(), tmp_path / "local", size=3)
    remote = sweep(grid(), tmp_path / "remote", size=3, client=client)
    assert remote.packs == local.packs
    assert remote.failed == local.failed == 4
    assert remote.frame[COLUMNS].equals(local.frame[COLUMNS])
    for run in remote.finished.runs:
        assert Path(run.adapter, "adapter_model.safetensors").is_file()
        assert (run.predictions == local.at(hash=run.recipe.hash).runs[0].predictions).all()
    assert sweep(grid(), tmp_path / "remote", client=client).skipped == 12


def test_pack_of_a_killed_worker_is_rerun(client, grid, tmp_path):
    recipes, killed = grid(lr=1e-2, steps=200), []

    def kill_busy_worker() -> None:
        while not killed:
            time.sleep(0.1)
            busy = [address for address, tasks in client.processing().items() if tasks]
            if len(busy) == 2:
                time.sleep(0.5)  # so that it is in the middle of its pack
                assert client.processing()[busy[0]]
                pid = client.run(os.getpid, workers=[busy[0]])[busy[0]]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill_busy_worker, daemon=True)
    killer.start()
    swept = sweep(recipes, tmp_path, size=2, client=client)
    killer.join(5)
    assert killed
    assert [run.recipe for run in swept.runs] == recipes
    assert {run.status for run in swept.runs} == {"done"}


def test_stop_keeps_the_packs_that_have_returned(client, grid, tmp_path):
    stop = threading.Event()
    stop.set()  # takes effect when the first pack returns
    stopped = sweep(grid(steps=40), tmp_path, size=1, client=client, stop=stop)
    assert 0 < len(stopped.runs) < 12
    assert {run.recipe for run in Store(tmp_path).runs()} == {run.recipe for run in stopped.runs}
    assert sweep(grid(steps=40), tmp_path, client=client).skipped == len(stopped.runs)


def test_address_without_a_scheduler_is_refused(monkeypatch):
    monkeypatch.setattr("lora_lab.experiments.cluster.TIMEOUT", 1)
    with pytest.raises(BadValue, match="no Dask scheduler answers at"):
        connect("tcp://127.0.0.1:1")
