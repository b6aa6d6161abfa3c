"""Notebook kernels that start immediately and share memory. On Linux, one process imports the libraries, then forks.

A kernel that imports torch and transformers itself takes seconds to start, and uses 0.3 GB that no other process
shares. A forked kernel inherits these libraries and shares their memory with its parent until either process writes to
it. The parent imports the libraries but not the lab, so a restarted kernel runs the lab's code as it is on disk.

For each connection file, Jupyter starts a small process, `python kernels.py SOCKET FILE`. The small process asks the
forking process, `python kernels.py NUMBER`, for a kernel, and exits when the kernel exits. If the forking process
doesn't answer, the small process becomes an ordinary kernel.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

LIBRARIES = (
    "anywidget",
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "pandas",
    "sklearn.linear_model",
    "torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.tokenization_utils_tokenizers",
)


@contextlib.contextmanager
def forked_kernels() -> Iterator[dict[str, str]]:
    """Start the forking process, and yield the environment variables that make Jupyter use its kernels (on Linux only).

    The kernels end when the context ends, or when the process that entered the context ends.
    """
    if sys.platform != "linux":  # macOS has fork, but its libraries don't survive a fork
        yield {}
        return
    with (
        tempfile.TemporaryDirectory(prefix="kernels-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        socket.socket(socket.AF_UNIX) as listening,  # a socket's path is limited to 107 bytes, so use /tmp
    ):
        spec, address = Path(folder, "kernels", "python3", "kernel.json"), f"{folder}/socket"
        shutil.copytree(Path(str(files("ipykernel")), "resources"), spec.parent)  # the logos
        argv = [sys.executable, "-S", __file__, address, "-f", "{connection_file}"]
        about = {"display_name": "Python 3 (ipykernel)", "language": "python", "interrupt_mode": "message"}
        spec.write_text(json.dumps({**about, "argv": argv}), encoding="utf-8")
        listening.bind(address)
        listening.listen()  # from now on, connections wait in a queue
        number = listening.fileno()
        command = [sys.executable, __file__, str(number)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number], start_new_session=True) as server:
            listening.close()
            try:
                yield {"JUPYTER_PATH": os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))}
            finally:
                server.terminate()  # the server may still be importing; its stdin closes next, which ends its kernels


def serve(number: str) -> None:
    """Fork a kernel for each connection to the socket with this file descriptor, until stdin is closed."""
    # Drop this folder from sys.path: its modules would hide libraries. (-P would also hide the files beside notebooks.)
    sys.path[:] = (folder for folder in sys.path if folder != os.path.dirname(__file__))
    with socket.socket(fileno=int(number)) as listening:
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # otherwise, garbage collection in a kernel would write to all objects and so copy their memory
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # avoid zombie processes
        while sys.stdin not in select.select([sys.stdin, listening], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()  # otherwise, after the server exits, clients would still connect and wait
                return run(connection)
            connection.close()
        return shutil.rmtree(Path(listening.getsockname()).parent)  # in case the folder's creator was killed


def run(connection: socket.socket) -> None:
    """Run the kernel that a connected process asks for, until that process ends or the server's stdin is closed."""
    import numpy
    import torch
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # so that an interrupt reaches only this kernel
    numpy.random.seed()  # otherwise, unseeded draws would be the same in all kernels
    torch.seed()
    asked = json.loads(connection.makefile().readline())
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    ends = [connection.fileno(), os.dup(0)]  # ipykernel replaces file descriptor 0
    threading.Thread(target=lambda: (select.select(ends, [], []), os._exit(0)), daemon=True).start()
    IPKernelApp.launch_instance(asked["arguments"], parent_handle=1)  # 1: don't watch the parent


def ask(address: str, *arguments: str) -> None:
    """Ask for a forked kernel and wait until the kernel ends. If no server answers, become an ordinary kernel."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
            connection.sendall(json.dumps(asked).encode() + b"\n")
            connection.recv(1)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])


if __name__ == "__main__":
    (serve if len(sys.argv) == 2 else ask)(*sys.argv[1:])
