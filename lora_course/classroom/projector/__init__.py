"""The three main panels on a projector: a page without code, by Voila, on this machine alone and without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_lab.errors import Failed, NotFound
from lora_lab.ports import free_port
from lora_lab.training.assets import home

TEMPLATES = Path(__file__).parent  # Voila's own page asks a CDN for its icons, ours does not
PANELS = """
from lora_lab import RankPanel
RankPanel("picture")
---
from lora_lab import MemoryPanel
MemoryPanel("llama-3-8b")
---
from lora_lab import TrainPanel
TrainPanel("minilm", "rt", store={store!r})
"""


def show(store: str = "runs", *, port: int = 8866, browser: bool = True, say: Callable[[str], None] = print) -> None:
    """Serve the page on 127.0.0.1 behind a token until it is interrupted.

    store   the folder of runs that the training panel reads and writes
    Raises: NotFound where Voila is not installed; Failed when it does not come up.
    """
    if importlib.util.find_spec("voila") is None:
        raise NotFound("the page for a projector needs Voila: pip install 'lora-lab[show]'")
    token, port = secrets.token_hex(16), free_port(port)
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(Path(folder), Path(store).expanduser().resolve())
        server = subprocess.Popen(_command(page, port), env=_environment(token), stderr=subprocess.DEVNULL)
        try:
            _wait_until_up(server, port)
            address = f"http://127.0.0.1:{port}/?token={token}"
            say(f"the panels are shown at {address} (Ctrl+C ends it)")
            if browser:
                webbrowser.open(address)
            server.wait()
        except KeyboardInterrupt:
            say("closing the page")
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def write_page(folder: Path, store: Path) -> Path:
    """The notebook whose outputs are the page."""
    sources = PANELS.format(store=str(store)).strip().split("\n---\n")
    empty: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [{**empty, "source": source, "id": f"panel-{n}"} for n, source in enumerate(sources)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    page = folder / "panels.ipynb"
    page.write_text(json.dumps(notebook), encoding="utf-8")
    return page


def _command(page: Path, port: int) -> list[str]:
    options = {
        "Voila.ip": "127.0.0.1",
        "Voila.port": port,
        "Voila.open_browser": False,
        "Voila.auto_token": True,  # the one in JUPYTER_TOKEN: other users can read a command line
        "VoilaConfiguration.template": "lora-lab",
    }
    return [sys.executable, "-m", "voila", str(page), *(f"--{name}={value}" for name, value in options.items())]


def _environment(token: str) -> dict[str, str]:
    path = os.pathsep.join([str(TEMPLATES), *filter(None, [os.environ.get("JUPYTER_PATH")])])
    return {**os.environ, "JUPYTER_PATH": path, "JUPYTER_TOKEN": token, "LORA_LAB_HOME": str(home())}


def _wait_until_up(server: subprocess.Popen[bytes], port: int, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Failed(f"Voila ended at once (exit {server.returncode}); run: {sys.executable} -m voila")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise Failed(f"Voila did not answer within {seconds:.0f} s")
