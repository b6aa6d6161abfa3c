import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from jupyter_client.manager import KernelManager

from lora_lab.kernels import forked_kernels

OWNER = "from lora_lab.kernels import forked_kernels as f\nwith f() as e: print(e['JUPYTER_PATH'], flush=True); input()"


@pytest.fixture
def owner(monkeypatch):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        monkeypatch.setenv("JUPYTER_PATH", folder := p.stdout.readline().strip())
        yield psutil.Process(p.pid)
        p.kill()
        shutil.rmtree(folder)


def start(folder):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env={**os.environ, "LORA_LAB_STUDENT": "Ada"})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(60)
    return manager, client


def printed(client, code: str) -> str:
    """Run code in a kernel; return what it printed, or the name of its error."""
    texts: list[str] = []
    client.execute_interactive(
        code, timeout=60, output_hook=lambda m: texts.append(m["content"].get("text", m["content"].get("ename", "")))
    )
    return "".join(texts).strip()


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_forked_kernels_survive_restarts_and_end_with_their_owner(owner, tmp_path):
    manager, client = start(tmp_path)
    code = "import os, sys; print('torch' in sys.modules, 'lora_lab' in sys.modules, os.getcwd(), os.getenv('{}'))"
    assert printed(client, code.format("LORA_LAB_STUDENT")) == f"True False {tmp_path} Ada"
    (tmp_path / "mine.py").write_text("x = 5")
    assert printed(client, "import mine; print(mine.x)") == "5"
    pid = "import os; print(os.getpid())"
    (server,) = owner.children()
    first = int(printed(client, pid))
    assert psutil.Process(first).ppid() == server.pid

    request = client.execute("import time; print('waiting', flush=True); time.sleep(60)")
    while client.get_iopub_msg(timeout=60)["content"].get("text") != "waiting\n":
        pass
    time.sleep(0.5)  # an interrupt that comes while `print` is still running could be lost
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=60)
    assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (request, "KeyboardInterrupt")
    client.execute_interactive("x = 1", timeout=60)
    manager.restart_kernel()
    client.wait_for_ready(60)
    assert printed(client, "print('torch' in __import__('sys').modules); x") == "True\nNameError"
    assert not psutil.pid_exists(first)

    second, its_client = start(tmp_path)
    draw = "import numpy, torch; print(numpy.random.rand(), torch.rand(1).item())"
    assert not {*printed(client, draw).split()} & {*printed(its_client, draw).split()}
    os.kill(int(printed(its_client, pid)), signal.SIGSEGV)
    while second.is_alive():  # until Jupyter notices
        time.sleep(0.05)
    server.kill()
    forked = psutil.Process(int(printed(client, pid)))  # keeps running
    second.restart_kernel()
    its_client.wait_for_ready(60)
    assert printed(its_client, "print('torch' in __import__('sys').modules)") == "False"  # an ordinary kernel
    second.shutdown_kernel(now=True)

    owner.kill()
    psutil.wait_procs([forked], timeout=60)
    assert not forked.is_running() or forked.status() == psutil.STATUS_ZOMBIE
    manager.shutdown_kernel(now=True)


def test_kernels_are_not_forked_on_other_systems(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lora_lab.kernels.sys.platform", "darwin")
    with forked_kernels() as environment:
        assert environment == {}
