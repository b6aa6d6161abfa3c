"""Kernels that start at once: a process that has imported the libraries of the lessons forks one for each.

To import them takes some five seconds a lesson. Each kernel is a fresh process of its own, in which nothing of the lab
has been imported. `python warm.py SOCKET` forks; `python warm.py SOCKET FILE` is what Jupyter starts as the kernel of a
connection file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def kernels(folder: Path) -> Iterator[str]:
    """Start the process that forks; yield what JUPYTER_PATH must be to have its kernels."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-S", __file__, str(folder / "socket")]
    spec.write_text(json.dumps({"argv": [*command, "{connection_file}"], "display_name": "Python 3"}))
    with subprocess.Popen([sys.executable, __file__, str(folder / "socket")], stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()  # it listens
        yield str(folder)
        server.terminate()


def serve(address: str) -> None:
    """Fork a kernel for everyone who connects, until terminated."""
    import anywidget  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401
    from ipykernel.kernelapp import IPKernelApp  # noqa: F401
    from transformers import BertForSequenceClassification, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    signal.signal(signal.SIGCHLD, reap)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print(flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                return run(connection)
            connection.close()


def reap(*_: object) -> None:
    """Take leave of the kernels that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(connection: socket.socket) -> None:
    """Be the kernel of the process at the other end, and end when it does."""
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told = json.loads(connection.makefile().readline())
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    threading.Thread(target=lambda: (connection.recv(1), os._exit(0)), daemon=True).start()
    sys.argv = ["ipykernel_launcher.py", "-f", *told["arguments"]]
    sys.path[0] = ""  # as in a kernel
    IPKernelApp.launch_instance()


def stand_for(address: str, *arguments: str) -> None:
    """Have a kernel forked, and last as long as it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent before it is ended
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        told = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        connection.sendall(json.dumps(told).encode() + b"\n")
        connection.recv(1)


if __name__ == "__main__":
    (serve if len(sys.argv) == 2 else stand_for)(*sys.argv[1:])
