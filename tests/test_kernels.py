"""Kernels that are forked from one process: what they have, and what ends them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from lora_lab.kernels import forked_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
OWNER = "from lora_lab.kernels import forked_kernels as f\nwith f() as e: print(e['JUPYTER_PATH'], flush=True); input()"


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """A process that has kernels forked, which Jupyter uses here."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout
        monkeypatch.setenv("JUPYTER_PATH", folder := p.stdout.readline().strip())
        yield psutil.Process(p.pid)
        p.kill()
        shutil.rmtree(folder)


def start(folder: Path) -> tuple[KernelManager, BlockingKernelClient]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env={**os.environ, "LORA_LAB_STUDENT": "Ada"})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(60)
    return manager, client


def printed(client: BlockingKernelClient, code: str) -> str:
    """What the code printed, or the name of the error that it ended with."""
    said: list[str] = []
    client.execute_interactive(
        code, timeout=60, output_hook=lambda m: said.append(m["content"].get("text", m["content"].get("ename", "")))
    )
    return "".join(said).strip()


def test_a_forked_kernel_is_a_kernel_and_ends_with_those_it_depends_on(owner: psutil.Process, tmp_path: Path):
    manager, client = start(tmp_path)
    code = "import os, sys; print('torch' in sys.modules, 'lora_lab' in sys.modules, os.getcwd(), os.getenv('{}'))"
    assert printed(client, code.format("LORA_LAB_STUDENT")) == f"True False {tmp_path} Ada"
    pid = "import os; print(os.getpid())"
    (server,) = owner.children()
    first = int(printed(client, pid))
    assert psutil.Process(first).ppid() == server.pid

    waiting = client.execute("import time; print('waits', flush=True); time.sleep(60)")
    while client.get_iopub_msg(timeout=60)["content"].get("text") != "waits\n":
        pass
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=60)
    assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (waiting, "KeyboardInterrupt")
    client.execute_interactive("mine = 1", timeout=60)
    manager.restart_kernel()
    client.wait_for_ready(60)
    assert printed(client, "print('torch' in __import__('sys').modules); mine") == "True\nNameError"
    assert not psutil.pid_exists(first)

    second, mine = start(tmp_path)
    os.kill(int(printed(mine, pid)), signal.SIGSEGV)
    while second.is_alive():  # until Jupyter has seen it
        time.sleep(0.05)

    server.kill()
    forked = psutil.Process(int(printed(client, pid)))  # goes on
    second.restart_kernel()
    mine.wait_for_ready(60)
    assert printed(mine, "print('torch' in __import__('sys').modules)") == "False"  # an ordinary kernel
    second.shutdown_kernel(now=True)

    owner.kill()
    psutil.wait_procs([forked], timeout=60)
    assert not forked.is_running() or forked.status() == psutil.STATUS_ZOMBIE
    manager.shutdown_kernel(now=True)


def test_elsewhere_jupyter_starts_its_own_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lora_lab.kernels.sys.platform", "darwin")
    with forked_kernels() as environment:
        assert environment == {}
