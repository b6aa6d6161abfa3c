"""Processes of their own: results in order, what they say is heard, none outlives its parent, and when they pay."""

from __future__ import annotations

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


def whoami(item: int, say) -> tuple[int, int, int]:
    """The item, the process, and its threads."""
    say(f"item {item}")
    if item == 3:
        warnings.warn("mind it", LabWarning, stacklevel=2)
        warnings.warn("a library's own", UserWarning, stacklevel=2)
    return item, os.getpid(), torch.get_num_threads()


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
    found = [done[number] for number in range(3)]
    assert [item for item, *_ in found] == [3, 1, 2]
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for *_, threads in found} == {max(1, torch.get_num_threads() // 2)}
    assert sorted(heard) == ["item 1", "item 2", "item 3", "warning: mind it"]
    assert list(in_processes(whoami, [1], 1, print, long=bool)) == [(0, (1, os.getpid(), torch.get_num_threads()))]


def test_what_is_raised_there_is_raised_here_and_nothing_goes_on(tmp_path):
    items = [tmp_path / "slept", tmp_path / "refused"]
    with pytest.raises(BadValue, match="not this one"):
        list(in_processes(sleeps, items, 2, print, long=lambda item: True))
    assert not _runs(int(items[0].read_text()))
    with pytest.raises(Failed, match="killed, perhaps because memory ran out: the same call with 1 worker resumes"):
        list(in_processes(dies, [1, 2], 2, print, long=bool))


@pytest.mark.parametrize("end", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGKILL)])
def test_processes_end_with_a_parent_that_is_interrupted_or_killed(tmp_path, end):
    words = [sys.executable, "-c", "from tests.experiments.test_workers import *; sleeping(*sys.argv[1:])"]
    parent = subprocess.Popen([*words, str(tmp_path)], start_new_session=True, stderr=subprocess.DEVNULL)
    files = [tmp_path / "a", tmp_path / "b"]
    _until(lambda: all(file.exists() and file.read_text() for file in files))
    end(parent.pid)
    parent.wait()
    _until(lambda: not any(_runs(int(file.read_text())) for file in files))


def sleeping(folder: str) -> None:
    """Two processes that sleep, for a parent that is to be killed or interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests were started in the background
    list(in_processes(sleeps, [Path(folder, "a"), Path(folder, "b")], 2, print, long=bool))


def _runs(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def _until(there) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("cores", "gib", "steps", "where", "found"),
    [
        (2, 16, 40_000, "cpu", 2),
        (8, 64, 40_000, "cpu", 3),
        (2, 1.5, 40_000, "cpu", 1),
        (2, 16, 400, "cpu", 1),
        (8, 64, 40_000, "cuda", 1),
    ],
)
def test_processes_are_as_many_as_cores_recipes_and_memory_allow(monkeypatch, cores, gib, steps, where, found):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(workers, "free_bytes", lambda where: int(gib * 2**30))
    monkeypatch.setattr(device, "choose", lambda tokens, **_: device.Choice(where, "fp32", "eager"))
    assert process_count([Recipe("minilm", "rt", m) for m in (LoRA(), FullFineTuning(), LoRA(4))], steps) == found
