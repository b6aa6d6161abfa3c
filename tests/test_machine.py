"""The memory of a container: its limit counts, and what its programs hold."""

from pathlib import Path

import psutil
import pytest

from lora_lab import machine
from lora_lab.training.device import memory_bytes
from lora_lab.training.memory_check import free_bytes

MIB = 2**20


def limits(root: Path, version: int, limit: str) -> None:
    folder, file = (root, "memory.max") if version == 2 else (root / "memory", "memory.limit_in_bytes")
    folder.mkdir(exist_ok=True)
    own, shared = ("anon", "shmem") if version == 2 else ("total_rss", "total_shmem")
    (folder / "memory.stat").write_text(f"{own} {MIB}\nfile {3 * MIB}\n{shared} {MIB // 2}\n")
    (folder / file).write_text(limit)


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_and_what_its_programs_hold(tmp_path, monkeypatch, version):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    limits(tmp_path, version, f"{4 * MIB}\n")  # less than any machine has
    assert machine.container() == (4 * MIB, 1.5 * MIB)
    assert machine.memory() == (4 * MIB, 2.5 * MIB)
    assert (memory_bytes("cpu"), free_bytes("cpu")) == (4 * MIB, 2.5 * MIB)


def test_without_a_limit_it_is_the_machine(tmp_path, monkeypatch):
    for version, limit in ((1, "9223372036854771712\n"), (2, "max\n"), (2, "")):
        folder = tmp_path / f"{version}{len(limit)}"
        folder.mkdir()
        monkeypatch.setattr(machine, "CGROUPS", folder)
        limits(folder, version, limit)
        assert machine.memory()[0] == psutil.virtual_memory().total, (version, limit)
