"""Tests of the memory limit of a container."""

from pathlib import Path

import psutil
import pytest

from lora_lab import machine
from lora_lab.training.device import memory_bytes
from lora_lab.training.memory_check import free_bytes

MIB = 2**20


def write_cgroup(root: Path, version: int, limit: str) -> None:
    folder, file = (root, "memory.max") if version == 2 else (root / "memory", "memory.limit_in_bytes")
    folder.mkdir(parents=True)
    own, shared = ("anon", "shmem") if version == 2 else ("total_rss", "total_shmem")
    (folder / "memory.stat").write_text(f"{own} {MIB}\nfile {3 * MIB}\n{shared} {MIB // 2}\n")
    (folder / file).write_text(limit)


@pytest.mark.parametrize("version", [1, 2])
def test_container_limit_replaces_the_machines_memory(tmp_path, monkeypatch, version):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    write_cgroup(tmp_path / "cgroup", version, f"{4 * MIB}\n")
    assert machine.container() == (4 * MIB, 1.5 * MIB)
    assert machine.memory() == (4 * MIB, 2.5 * MIB)
    assert (memory_bytes("cpu"), free_bytes("cpu")) == (4 * MIB, 2.5 * MIB)


@pytest.mark.parametrize(("version", "limit"), [(1, "9223372036854771712\n"), (2, "max\n"), (2, "")])
def test_container_without_a_limit_has_the_machines_memory(tmp_path, monkeypatch, version, limit):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    write_cgroup(tmp_path / "cgroup", version, limit)
    assert machine.memory()[0] == psutil.virtual_memory().total
