import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch

from lora_lab import BadValue, FullFineTuning, LoRA, Recipe, Store, sweep
from lora_lab.errors import Failed, LabWarning
from lora_lab.experiments import workers
from lora_lab.experiments.sweep import connect
from lora_lab.experiments.workers import METHOD, in_processes, process_count
from lora_lab.training import device
from tests.conftest import assert_raises, until

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.usefixtures("fork_server"),
]


def describe_process(item: int, say) -> tuple[int, int, int, bool]:
    say(f"item {item}")
    if item == 3:
        warnings.warn("our warning", LabWarning, stacklevel=2)
        warnings.warn("a library's warning", UserWarning, stacklevel=2)
    return item, os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def kill_itself(item: int, say) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_or_fail(file: Path, say) -> None:
    """Write the process id into the file and sleep; for the file "fails", wait for "sleeps" and raise."""
    if file.name == "fails":
        until(file.with_name("sleeps").exists)
        raise BadValue("an error in a worker")
    temporary = file.with_suffix(".part")
    temporary.write_text(str(os.getpid()))
    temporary.rename(file)
    time.sleep(600)


def start_sleepers(files: list[Path]) -> None:
    list(in_processes(sleep_or_fail, files, 2, print, long=bool))


def is_running(file: Path) -> bool:
    pid = int(file.read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_results_keep_their_index_and_messages_arrive():
    messages: list[str] = []
    results = dict(in_processes(describe_process, [3, 1, 2], 2, messages.append, long=lambda item: item == 2))
    items, pids, threads, ignore_interrupt = zip(*(results[index] for index in range(3)), strict=True)
    assert items == (3, 1, 2)
    assert os.getpid() not in pids
    assert set(threads) == {max(1, torch.get_num_threads() // 2)}
    assert all(ignore_interrupt)
    assert sorted(messages) == ["item 1", "item 2", "item 3", "warning: our warning"]
    assert list(in_processes(describe_process, [1], 1, print, long=bool)) == [(0, describe_process(1, print))]


def test_workers_start_if_the_path_of_temporary_files_is_long(tmp_path):
    (folder := tmp_path / ("x" * 100)).mkdir()
    code = "import operator; from lora_lab.experiments.workers import in_processes as run;"
    code += "print(*run(operator.is_, [1, 2], 2, print, long=bool))"
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split(") (")) == ["(0, False", "1, False)\n"]


def test_error_in_a_worker_is_raised_and_ends_the_others(tmp_path):
    files = [tmp_path / "sleeps", tmp_path / "fails"]
    assert_raises("an error in a worker", start_sleepers, files)
    assert not is_running(files[0])
    with pytest.raises(Failed, match=r"memory ran out, or .*__main__.*: repeat with 1 worker to resume"):
        list(in_processes(kill_itself, [1], 2, print, long=bool))


def test_workers_end_when_their_parent_is_killed(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    parent = multiprocessing.get_context(workers.METHOD).Process(target=start_sleepers, args=(files,))
    parent.start()
    until(lambda: all(file.exists() for file in files))
    parent.kill()
    parent.join()
    until(lambda: not any(map(is_running, files)))


def test_process_count_depends_on_cores_memory_and_steps(monkeypatch):
    recipes = [Recipe("minilm", "rt", method) for method in (LoRA(), FullFineTuning(), LoRA(4))]

    def count(cores: int = 8, gib: float = 64, steps: int = 40_000, where: str = "cpu") -> int:
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(workers, "free_bytes", lambda where: int(gib * 2**30))
        monkeypatch.setattr(device, "choose", lambda tokens, **_: device.Choice(where, "fp32", "eager"))
        return process_count(recipes, steps)

    assert (count(), count(cores=2)) == (3, 2)
    assert (count(gib=1.5), count(steps=400), count(where="cuda")) == (1, 1, 1)


@pytest.fixture(scope="module")
def client(fork_server):
    from dask import config
    from dask.distributed import LocalCluster

    with (
        config.set({"distributed.worker.multiprocessing-method": METHOD}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        connect(cluster.scheduler_address) as client,
    ):
        yield client


@pytest.fixture
def recipes(grid):
    return lambda **fields: grid(**{"lr": (1e-2, 3e-3, 1e30), "seed": [0, 1], "steps": 8, "validations": 2, **fields})


def test_cluster_gives_the_frame_of_one_machine(client, recipes, tmp_path):
    local = sweep(recipes(), tmp_path / "local", size=3)
    run = local.finished.runs[0]  # in the other store, it is trained but not scored, as after a sweep with `choose`
    shutil.copytree(run.adapter, tmp_path / "remote" / run.recipe.hash)
    Store(tmp_path / "remote").add(replace(run, status="unscored", metrics={}, predictions=None))
    remote = sweep(recipes(), tmp_path / "remote", size=3, client=client)
    assert remote.packs == local.packs
    assert remote.failed == local.failed == 4
    columns = ["hash", "rank", "lr", "seed", "accuracy", "validation_accuracy", "status", "adapter_parameters"]
    assert remote.frame[columns].equals(local.frame[columns])
    for run in remote.finished.runs:
        assert Path(run.adapter, "adapter_model.safetensors").is_file()
        assert (run.predictions == local.at(hash=run.recipe.hash).runs[0].predictions).all()
    assert sweep(recipes(), tmp_path / "remote", client=client.scheduler.address).skipped == 12


def test_pack_of_a_killed_worker_is_rerun(client, recipes, tmp_path):
    planned, killed = recipes(lr=1e-2, steps=200), []

    def kill_busy_worker() -> None:
        while not killed:
            time.sleep(0.1)
            busy = [address for address, tasks in client.processing().items() if tasks]
            if len(busy) == 2:
                time.sleep(0.5)  # so that the worker is in the middle of its pack
                assert client.processing()[busy[0]]
                pid = client.run(os.getpid, workers=[busy[0]])[busy[0]]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill_busy_worker, daemon=True)
    killer.start()
    swept = sweep(planned, tmp_path, size=2, client=client)
    killer.join(5)
    assert killed
    assert [run.recipe for run in swept.runs] == planned
    assert {run.status for run in swept.runs} == {"done"}


def test_pack_whose_runs_do_not_return_is_sent_once(recipes, tmp_path, monkeypatch):
    sent, empty = [], Mock(result=lambda: [])
    monkeypatch.setattr("dask.distributed.as_completed", lambda futures: futures)
    client = Mock(map=lambda function, packs, **options: sent.extend(packs) or [empty])
    assert sweep(recipes(lr=1e-2, seed=0), tmp_path, client=client).runs == ()
    assert len(sent) == 1


def test_stop_keeps_the_packs_that_have_returned(client, recipes, tmp_path):
    stop = threading.Event()
    stop.set()  # takes effect when the first pack returns
    stopped = sweep(recipes(steps=40), tmp_path, size=1, client=client, stop=stop)
    assert 0 < len(stopped.runs) < 12
    assert {run.recipe for run in Store(tmp_path).runs()} == {run.recipe for run in stopped.runs}
    assert sweep(recipes(steps=40), tmp_path, client=client).skipped == len(stopped.runs)


def test_end_of_the_cluster_is_reported_and_finished_runs_are_kept(client, recipes, tmp_path):
    def end() -> None:
        while not Store(tmp_path).runs():
            time.sleep(0.1)
        client.cancel([Future(key, client) for key in client.futures])  # what a client does when its scheduler is gone

    from dask.distributed import Future

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(Failed, match="the Dask cluster has stopped"):
        sweep(recipes(lr=1e-2, seed=range(8), steps=100), tmp_path, size=1, client=client)
    assert 0 < len(Store(tmp_path).runs()) < 8


def test_address_without_a_scheduler_is_refused(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr("lora_lab.experiments.sweep.TIMEOUT", 1)
    assert_raises("no Dask scheduler answers", sweep, recipes(), tmp_path, client="tcp://127.0.0.1:1")
