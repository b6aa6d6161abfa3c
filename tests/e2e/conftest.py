"""Fixtures of the browser tests: chromium, panels on pages without a kernel, and a JupyterLab without a network."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.e2e.pages import Pages, requests_elsewhere

OFF = ("gpu", "quic", "background-networking", "component-update", "sync")
BROWSER_FLAGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in OFF)]
KERNEL_TIMEOUT = 180_000  # milliseconds; other tests may keep the machine busy
expect.set_options(timeout=30_000)
# Python imports this file at startup, so the server and every kernel can connect only to this machine.
GUARD = """
import os, sys
def guard(event, arguments):
    if event == "socket.connect" and isinstance(address := arguments[1], tuple):
        if address[0] not in ("127.0.0.1", "localhost", "::1"):
            with open(os.environ["LORA_LAB_GUARD"], "a") as log:
                log.write(f"{address}\\n")
            raise OSError(f"blocked: {address}")
sys.addaudithook(guard)
"""


@dataclass
class Lab:
    """A running JupyterLab and one page of it. `requests` are those that the page sent to other machines."""

    address: str
    folder: Path
    blocked: Path
    page: Page
    requests: list[str]

    def open(self, notebook: str) -> Page:
        """Open a notebook and wait until its kernel is idle, because JupyterLab ignores cells that are run earlier."""
        base, token = self.address.split("/lab/")[0], self.address.split("token=")[1]
        self.page.goto(f"{base}/lab/tree/{notebook}?token={token}&reset")
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=KERNEL_TIMEOUT)
        self.page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status=idle]", timeout=KERNEL_TIMEOUT)
        return self.page

    def run_all(self, notebook: str) -> Page:
        """Open a notebook and choose Run All Cells, without waiting for the end."""
        page = self.open(notebook)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        return page


def guarded(folder: Path) -> dict[str, str]:
    """Return an environment whose Python programs reach only this machine and log other addresses to folder/blocked."""
    (folder / "sitecustomize.py").write_text(GUARD)
    env = {k: v for k, v in os.environ.items() if k not in ("LORA_LAB_HEADLESS", "FAST", "HF_HUB_OFFLINE")}
    path = os.pathsep.join((str(folder), str(ROOT)))  # kernels import the lab of this checkout
    return env | {"PYTHONPATH": path, "LORA_LAB_GUARD": str(folder / "blocked")}


@contextmanager
def serving(arguments, folder, **env):
    """Run a server as `python ARGUMENTS` without a network, and yield the address that it prints."""
    output = folder / "log"
    with output.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *arguments], env=guarded(folder) | env, stderr=log, stdout=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not (match := re.search(r" at (http://127\.0\.0\.1\S+)\s", output.read_text())):
            assert server.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        yield match[1]
        server.terminate()
        assert server.wait(60) == 143  # as docs/commands.md says of SIGTERM
    finally:
        server.terminate()  # stops the command; the server that it started must stop, too
        server.wait(60)
        with pytest.raises(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium on this machine (in CI this is a failure)")
    assert path, "chromium is missing; .ci/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    guard, folder = tmp_path_factory.mktemp("guard"), tmp_path_factory.mktemp("my lessons")
    arguments = ["-m", "lora_lab", "lab", "--no-browser", "--port", "0", "--dir", str(folder)]
    settings = str(guard / "settings")  # tests don't change the user's settings
    with serving(arguments, guard, JUPYTERLAB_SETTINGS_DIR=settings) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        yield Lab(address, folder, guard / "blocked", page, requests_elsewhere(page))


@pytest.fixture(scope="session")
def shared_pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return Pages(browser.new_page(), tmp_path_factory.mktemp("pages"))


@pytest.fixture
def pages(shared_pages):
    """Pages with panels that send no requests and log no errors."""
    yield shared_pages
    problems = shared_pages.problems.copy()
    shared_pages.problems.clear()
    assert not problems
