"""Tests of work in processes: order, messages, errors, the end of the parent, and the number of processes."""

import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
import torch

from lora_lab import BadValue, LoRA, Recipe
from lora_lab.errors import Failed, LabWarning
from lora_lab.experiments import workers
from lora_lab.experiments.workers import in_processes, process_count
from lora_lab.methods.full import FullFineTuning
from lora_lab.training import device

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.usefixtures("fork_server"),
]


def describe_process(item: int, say) -> tuple[int, int, int, bool]:
    """Return the item, the process id, its number of threads, and whether it ignores Ctrl-C."""
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
        wait_until(file.with_name("sleeps").exists)
        raise BadValue("an error in a worker")
    temporary = file.with_suffix(".part")
    temporary.write_text(str(os.getpid()))
    temporary.rename(file)
    time.sleep(600)


def start_sleepers(files: list[Path]) -> None:
    list(in_processes(sleep_or_fail, files, 2, print, long=bool))


def is_running(file: Path) -> bool:
    """Whether the process whose id is in the file is running."""
    pid = int(file.read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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


def test_error_in_a_worker_is_raised_and_ends_the_others(tmp_path):
    files = [tmp_path / "sleeps", tmp_path / "fails"]
    with pytest.raises(BadValue, match="an error in a worker"):
        start_sleepers(files)
    assert not is_running(files[0])
    with pytest.raises(Failed, match="killed, perhaps because memory ran out: repeat with 1 worker to resume"):
        list(in_processes(kill_itself, [1], 2, print, long=bool))


def test_workers_end_when_their_parent_is_killed(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    parent = multiprocessing.get_context(workers.METHOD).Process(target=start_sleepers, args=(files,))
    parent.start()
    wait_until(lambda: all(file.exists() for file in files))
    parent.kill()
    parent.join()
    wait_until(lambda: not any(map(is_running, files)))


def test_process_count_depends_on_cores_memory_and_steps(monkeypatch):
    recipes = [Recipe("minilm", "rt", method) for method in (LoRA(), FullFineTuning(), LoRA(4))]

    def count(cores: int = 8, gib: float = 64, steps: int = 40_000, where: str = "cpu") -> int:
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(workers, "free_bytes", lambda where: int(gib * 2**30))
        monkeypatch.setattr(device, "choose", lambda tokens, **_: device.Choice(where, "fp32", "eager"))
        return process_count(recipes, steps)

    assert (count(), count(cores=2)) == (3, 2)
    assert (count(gib=1.5), count(steps=400), count(where="cuda")) == (1, 1, 1)
