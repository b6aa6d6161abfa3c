"""The workbench: copy the lessons, run JupyterLab locally, and examine the machine."""

import os
import platform
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue, Failed
from lora_lab.files import as_path, check_writable, read_json, write_atomically, write_json
from lora_lab.kernels import forked_kernels
from lora_lab.lazy import torch
from lora_lab.machine import free_port, jupyter_app, memory
from lora_lab.training.assets import ASSETS, home, problem_with, shipped

COPIED = ".lessons.json"  # hashes of the copied lessons, to detect those that a student has changed
FIRST = "00_whats_in_this_small_file.ipynb"
OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},  # do not ask whether to fetch news
    "@jupyterlab/notebook-extension:tracker": {
        "windowingMode": "none",  # keep drawing panels that are scrolled out of view
        "kernelShutdown": True,  # closing a lesson frees its memory; five open lessons need more than 8 GB
    },
}


def open_lab(folder: str, *, port: int, browser: bool, check: bool, say: Callable[[str], None]) -> None:
    """Copy the lessons, start JupyterLab on 127.0.0.1 with a token, and wait until it exits.

    If `check` is True, only start the server, check that it serves the first lesson, and stop the server.
    Raises: BadValue for a folder that cannot be written to; Failed if the server does not start.
    """
    if not folder:
        raise BadValue("the folder is '', which would mean the current folder: pass a folder for the lessons")
    root = as_path(folder).resolve()
    for line in copy_lessons(root):
        say(line)
    token, port = secrets.token_hex(16), free_port(0 if check else port)
    address = f"http://127.0.0.1:{port}"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "LabApp.default_url": f"/lab/tree/{FIRST}",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",  # the default manager contacts a package registry
    }
    command = [*jupyter_app("jupyterlab.labapp"), *(f"--{name}={value}" for name, value in options.items())]
    if check or not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    settings = root / ".jupyter"  # the user's own settings override these
    write_json(settings / "labconfig" / "default_setting_overrides.json", OVERRIDES)
    paths = os.pathsep.join(filter(None, [str(settings), os.environ.get("JUPYTER_CONFIG_PATH")]))
    # Importing lora_lab has set OMP_WAIT_POLICY in os.environ, for kernels that import torch before the lab.
    # The token is in the environment because every user of the machine can read command lines.
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": paths, "JUPYTER_TOKEN": token, "LORA_LAB_HOME": str(home())}
    with nullcontext(dict[str, str]()) if check else forked_kernels() as kernels:
        environment |= kernels
        with serving("JupyterLab", command, environment, port, say, "closing the workbench", quiet=check) as server:
            say(f"the workbench is open at {address}/lab/tree/{FIRST}?token={token} (Ctrl+C stops it)")
            if not check:
                if code := server.wait():
                    raise Failed(f"JupyterLab exited with code {code}; if its port is now in use, try another --port")
                return
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for localhost
            opener.open(f"{address}/api/contents/{FIRST}?token={token}", timeout=90).close()
            say("the server responds and serves the first lesson")


@contextmanager
def serving(
    app: str, command: list[str], environment: dict[str, str], port: int, say: Callable[[str], None], goodbye: str, *,
    quiet: bool,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """Start a Jupyter server, wait for its port, and stop the server when the `with` block ends, or on Ctrl+C.

    Raises: Failed if the server does not start within 90 s.
    """
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL if quiet else None)
    try:
        for _ in range(450):
            if server.poll() is not None:
                why = f"{sys.executable} -m {app.lower()}"
                raise Failed(f"{app} exited with {server.returncode}; to see why, run: {why}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        else:
            raise Failed(f"{app} did not answer within 90 s")
        try:
            yield server
        except KeyboardInterrupt:
            say(goodbye)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def copy_lessons(folder: Path) -> list[str]:
    """Copy new lessons and the glossary. Update copies that the user has not changed. Return messages for the user."""
    check_writable(folder / COPIED)
    source = shipped("notebooks")
    copied: dict[str, str] = {}
    with suppress(BadValue):
        copied = read_json(folder / COPIED)
    messages = []
    for lesson in sorted([*source.glob("*.ipynb"), *source.glob("solutions/*.ipynb"), source / "../docs/glossary.md"]):
        name = lesson.relative_to(source).as_posix().removeprefix("../")  # at JupyterLab's root, ../docs means docs
        target = folder / name
        content = lesson.read_bytes()
        new = sha256(content).hexdigest()
        present = sha256(target.read_bytes()).hexdigest() if target.exists() else None
        if present not in (None, new, copied.get(name)):
            messages.append(f"{name}: kept with your changes (delete it to get a new copy)")
            continue
        if present != new:
            write_atomically(target, content)
        copied[name] = new
    write_json(folder / COPIED, copied)
    return messages


def examine() -> dict[str, Any]:
    """Return what `lora-lab doctor --json` prints. Sizes are in bytes, and timings in seconds per layer and step."""
    from lora_lab.training import device

    choice, long = (device.choose(tokens=tokens) for tokens in device.LENGTHS)
    assets = {
        name: {"ok": not (problem := problem_with(name)), "problem": problem, "opt_in": asset.opt_in}
        for name, asset in ASSETS.items()
    }
    folder, user = home(), Path.home()
    total = torch.cuda.get_device_properties(0).total_memory if choice.device == "cuda" else memory()[0]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": choice.device,
        "dtype": choice.dtype,
        "attention": choice.attention,
        "attention_long_texts": long.attention,
        "threads": torch.get_num_threads(),
        "memory_bytes": total or 0,
        "hardware": device.describe(choice.device),
        "measured": device.measured(choice.device),
        "home": str(Path("~", folder.relative_to(user)) if folder.is_relative_to(user) else folder),
        "assets": assets,
    }


def describe(facts: Mapping[str, Any]) -> str:
    """Format the findings of `examine` as text."""
    lines = [
        f"python      {facts['python']}, torch {facts['torch']}",
        f"machine     {facts['hardware']}, {facts['memory_bytes'] / 2**30:.1f} GiB",
        f"trains on   {facts['device']}, {facts['dtype']} base, {facts['attention']} attention "
        f"({facts['attention_long_texts']} for long texts): the fastest choice measured here",
    ]
    for name, seconds in facts["measured"].items():
        dtype, attention, tokens = name.split("/")
        speed = f"{seconds * 1e3:7.1f} ms per layer per step"
        lines.append(f"            {dtype}  {attention:5}  {tokens:>3} tokens  {speed}")
    for name, asset in facts["assets"].items():
        flag = " --tweets" if asset["opt_in"] else ""
        state = "ok" if asset["ok"] else f"{asset['problem']}; run: lora-lab fetch{flag}"
        lines.append(f"asset       {name:12} {state}")
    return "\n".join([*lines, f"assets in   {facts['home']}"])
