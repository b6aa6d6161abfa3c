"""The same sweep on a real cluster of processes, one of which is killed at work."""

import os
import signal
import threading
import time

import pytest

from lora_lab import BadValue, Grid, Store, sweep
from lora_lab.experiments.cluster import connect
from lora_lab.experiments.workers import METHOD
from tests.conftest import PLAIN

SAME = ["hash", "rank", "lr", "seed", "accuracy", "validation_accuracy", "status", "adapter_parameters"]


@pytest.fixture(scope="module")
def cluster():
    """Two workers, a process and a thread each."""
    from dask import config
    from dask.distributed import LocalCluster

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    one_import = {"distributed.worker.multiprocessing-method": METHOD}  # of torch, for all workers
    with config.set(one_import), LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as found:
        yield found


def recipes(model: str, task: str, **fields):
    shared = {"steps": 8, "batch": 8, "validations": 2, **PLAIN, **fields}
    return Grid(rank=[1, 4], lr=[1e-2, 3e-3, 1e30], seed=[0, 1]).recipes(model, task, **shared)


def test_the_cluster_gives_the_frame_that_one_machine_gives(cluster, tiny_encoder, opinions, tmp_path):
    wanted = recipes(tiny_encoder, opinions)
    here = sweep(wanted, tmp_path / "here", size=3)
    client = connect(cluster.scheduler_address)
    there = sweep(wanted, tmp_path / "there", size=3, client=client)
    assert there.packs == here.packs
    assert there.failed == here.failed == 4
    assert there.frame[SAME].equals(here.frame[SAME])
    for run in there.finished.runs:
        assert os.path.isfile(os.path.join(run.adapter, "adapter_model.safetensors"))
        assert (run.predictions == here.at(hash=run.recipe.hash).runs[0].predictions).all()
    assert sweep(wanted, tmp_path / "there", client=client).skipped == 12
    client.close()


def test_a_worker_that_dies_has_its_pack_run_again_elsewhere(cluster, tiny_encoder, opinions, tmp_path):
    wanted = recipes(tiny_encoder, opinions, steps=150, validations=3)
    client, killed = connect(cluster.scheduler_address), []

    def kill_one_at_work() -> None:
        while not killed:
            time.sleep(0.2)
            busy = [address for address, tasks in client.processing().items() if tasks]
            if len(busy) == 2:
                time.sleep(0.5)  # in the middle of a pack
                pid = client.run(os.getpid, workers=[busy[0]])[busy[0]]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill_one_at_work, daemon=True)
    killer.start()
    swept = sweep(wanted, tmp_path, size=2, client=client)
    killer.join(5)
    assert killed
    assert [run.recipe for run in swept.runs] == wanted
    assert {run.status for run in swept.runs} == {"done", "failed"}
    assert swept.failed == 4  # those that diverge, and no other
    client.close()


def test_what_has_come_back_when_it_is_stopped_is_kept(cluster, tiny_encoder, opinions, tmp_path):
    wanted, stop = recipes(tiny_encoder, opinions, steps=40), threading.Event()
    stop.set()  # heard when the first pack comes back
    client = connect(cluster.scheduler_address)
    kept = sweep(wanted, tmp_path, size=1, client=client, stop=stop)
    assert 0 < len(kept.runs) < 12
    assert {run.recipe for run in Store(tmp_path).runs()} == {run.recipe for run in kept.runs}
    assert sweep(wanted, tmp_path, client=client).skipped == len(kept.runs)
    client.close()


def test_nobody_at_the_address_is_one_sentence(monkeypatch):
    monkeypatch.setattr("lora_lab.experiments.cluster.TIMEOUT", 1)
    with pytest.raises(BadValue, match="no Dask scheduler answers at"):
        connect("tcp://127.0.0.1:1")
