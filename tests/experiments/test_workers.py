"""Processes of their own: results in order, what they say is heard, none outlives its parent, and when they pay."""

import os
import signal
import subprocess
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

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def whoami(item: int, say) -> tuple[int, int, int, bool]:
    """The item, the process, its threads, and whether Ctrl-C is left to the parent."""
    say(f"item {item}")
    if item == 3:
        warnings.warn("mind it", LabWarning, stacklevel=2)
        warnings.warn("a library's own", UserWarning, stacklevel=2)
    return item, os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def dies(item: int, say) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps(item: Path, say) -> None:
    if item.name == "refused":
        _until(item.with_name("slept").exists)
        raise BadValue("not this one")
    item.write_text(str(os.getpid()))
    time.sleep(600)


def test_items_come_back_in_order_from_processes_that_share_cores_and_are_heard():
    heard: list[str] = []
    done = dict(in_processes(whoami, [3, 1, 2], 2, heard.append, long=lambda item: item == 2))
    items, processes, threads, quiet = zip(*(done[number] for number in range(3)), strict=True)
    assert items == (3, 1, 2)
    assert os.getpid() not in processes
    assert set(threads) == {max(1, torch.get_num_threads() // 2)}
    assert all(quiet)
    assert sorted(heard) == ["item 1", "item 2", "item 3", "warning: mind it"]
    assert list(in_processes(whoami, [1], 1, print, long=bool)) == [(0, whoami(1, print))]


def test_what_is_raised_there_is_raised_here_and_nothing_goes_on(tmp_path):
    items = [tmp_path / "slept", tmp_path / "refused"]
    with pytest.raises(BadValue, match="not this one"):
        list(in_processes(sleeps, items, 2, print, long=lambda item: True))
    assert not _runs(int(items[0].read_text()))
    with pytest.raises(Failed, match="killed, perhaps because memory ran out: repeat with 1 worker to resume"):
        list(in_processes(dies, [1], 2, print, long=bool))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    words = [sys.executable, "-c", "from tests.experiments.test_workers import *; sleeping(*sys.argv[1:])"]
    parent = subprocess.Popen([*words, str(tmp_path)], start_new_session=True, stderr=subprocess.DEVNULL)
    files = [tmp_path / "a", tmp_path / "b"]
    _until(lambda: all(file.exists() and file.read_text() for file in files))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _until(lambda: not any(_runs(int(file.read_text())) for file in files))


def sleeping(folder: str) -> None:
    """Two processes that sleep, for a parent that is to be killed."""
    list(in_processes(sleeps, [Path(folder, "a"), Path(folder, "b")], 2, print, long=bool))


def _runs(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def _until(there) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_are_as_many_as_cores_recipes_and_memory_allow(monkeypatch):
    recipes = [Recipe("minilm", "rt", method) for method in (LoRA(), FullFineTuning(), LoRA(4))]

    def count(cores: int = 8, gib: float = 64, steps: int = 40_000, where: str = "cpu") -> int:
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(workers, "free_bytes", lambda where: int(gib * 2**30))
        monkeypatch.setattr(device, "choose", lambda tokens, **_: device.Choice(where, "fp32", "eager"))
        return process_count(recipes, steps)

    assert (count(), count(cores=2)) == (3, 2)
    assert (count(gib=1.5), count(steps=400), count(where="cuda")) == (1, 1, 1)
