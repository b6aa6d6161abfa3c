"""Show the three main panels on a projector: a Voila page without code, served offline and only to this machine."""

import importlib.util
import os
import secrets
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_lab.errors import NotFound
from lora_lab.files import write_json
from lora_lab.machine import free_port, jupyter_app
from lora_lab.training.assets import home
from lora_lab.workbench import serving

PANELS = ('lab.RankPanel("picture")', 'lab.MemoryPanel("llama-3-8b")', 'lab.TrainPanel("minilm", "rt", store={!r})')
OPTIONS = {
    "Voila.ip": "127.0.0.1",
    "Voila.open_browser": False,
    "Voila.auto_token": True,  # from JUPYTER_TOKEN, because other users can read command lines
    "VoilaConfiguration.template": "lora-lab",  # in voila/, because Voila's own template loads icons from a CDN
}


def show(store: str = "runs", *, port: int = 8866, browser: bool = True, say: Callable[[str], None] = print) -> None:
    """Serve the page on 127.0.0.1, protected by a token, until interrupted.

    store   The folder of runs that the training panel reads and writes.
    Raises: NotFound if Voila is not installed; Failed if it does not start within 90 s.
    """
    if importlib.util.find_spec("voila") is None:
        raise NotFound("the page for a projector needs Voila: pip install 'lora-lab[show]'")
    token, port = secrets.token_hex(16), free_port(port)
    env = {**os.environ, "JUPYTER_TOKEN": token, "LORA_LAB_HOME": str(home())}
    env["JUPYTER_PATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("JUPYTER_PATH", "")])
    options = [f"--{name}={value}" for name, value in {**OPTIONS, "Voila.port": port}.items()]
    with tempfile.TemporaryDirectory() as folder:
        panels = [panel.format(str(Path(store).expanduser().resolve())) for panel in PANELS]
        cell: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        cells = [{**cell, "source": f"import lora_lab as lab\n{panel}"} for panel in panels]
        page = Path(folder) / "panels.ipynb"
        write_json(page, {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
        command = [*jupyter_app("voila.app"), str(page), *options]
        with serving("Voila", command, env, port, say, "stopping the server", quiet=True) as server:
            address = f"http://127.0.0.1:{port}/?token={token}"
            say(f"the panels are at {address} (Ctrl+C stops the server)")
            if browser:
                webbrowser.open(address)
            server.wait()
