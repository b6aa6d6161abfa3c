"""A real JupyterLab and a real browser, with every way out of this machine blocked and watched."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.pages import Pages, elsewhere

ROOT = Path(__file__).parents[2]
OFF = ("gpu", "quic", "background-networking", "component-update", "sync")
BROWSER_FLAGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in OFF)]
KERNEL = 180_000  # milliseconds until a kernel is there, on a slow machine that runs other tests beside
expect.set_options(timeout=30_000)  # the kernel answers at once, but perhaps with tests beside it
# Python imports this by itself at start: the server and every kernel refuse to connect anywhere but to this machine.
GUARD = """
import os, socket
connect = socket.socket.connect
def guarded(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
        with open(os.environ["LORA_LAB_GUARD"], "a") as log:
            log.write(f"{address}\\n")
        raise OSError(f"blocked: {address}")
    return connect(self, address)
socket.socket.connect = guarded
"""


@dataclass
class Lab:
    """A running workbench."""

    address: str
    folder: Path
    blocked: Path

    def url(self, notebook: str) -> str:
        base, token = self.address.split("/lab/")[0], self.address.split("token=")[1]
        return f"{base}/lab/tree/{notebook}?token={token}&reset"


@dataclass
class Watched:
    """A page, and what it asked of other machines or complained of."""

    page: Page
    lab: Lab
    elsewhere: list[str]

    def open(self, notebook: str) -> Page:
        """The notebook's page with its kernel idle: what is run before that is not run at all, and nothing says so."""
        self.page.goto(self.lab.url(notebook))
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=KERNEL)
        self.page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status=idle]", timeout=KERNEL)
        return self.page

    def run_all(self, notebook: str) -> Page:
        """The notebook's page after Run All Cells, which goes on."""
        page = self.open(notebook)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        return page


def guarded(folder: Path) -> dict[str, str]:
    """The environment of a user whose programs reach this machine alone; FOLDER/blocked says what else they tried."""
    (folder / "sitecustomize.py").write_text(GUARD)
    env = {k: v for k, v in os.environ.items() if k not in ("LORA_LAB_HEADLESS", "FAST", "HF_HUB_OFFLINE")}
    path = os.pathsep.join((str(folder), str(ROOT)))  # kernels, too, import the lab that these tests are of
    return env | {"PYTHONPATH": path, "LORA_LAB_GUARD": str(folder / "blocked")}


@contextmanager
def serving(words: list[str], guard: Path, **env: str) -> Iterator[str]:
    """A server of ours, run by Python with these words: the address that it prints."""
    with (guard / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *words], env=guarded(guard) | env, stderr=log, stdout=log, start_new_session=True
        )
    try:
        yield _address(server, guard / "log")
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # not SIGINT, which a shell's background jobs don't hear
        server.wait(60)


def _address(server: subprocess.Popen, log: Path, seconds: int = 120) -> str:
    for _ in range(seconds * 5):
        if found := re.search(r" at (http://127\.0\.0\.1\S+)\s", log.read_text()):
            return found.group(1)
        assert server.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A workbench that can reach nobody."""
    guard, folder = tmp_path_factory.mktemp("guard"), tmp_path_factory.mktemp("my lessons")
    words = ["-m", "lora_lab", "lab", "--no-browser", "--port", "0", "--dir", str(folder)]
    settings = str(guard / "settings")  # a test that changes the theme leaves the user's alone
    with serving(words, guard, JUPYTERLAB_SETTINGS_DIR=settings) as address:
        yield Lab(address, folder, guard / "blocked")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium on this machine (in CI this is a failure)")
    assert path, "chromium is missing; .ci/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@contextmanager
def watching(browser: Browser, lab: Lab) -> Iterator[Watched]:
    """A fresh page of a fresh visitor."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    yield Watched(page, lab, elsewhere(page))
    context.close()


@pytest.fixture
def watched(browser: Browser, lab: Lab) -> Iterator[Watched]:
    with watching(browser, lab) as watched:
        yield watched


@pytest.fixture
def pages(browser: Browser, tmp_path: Path) -> Iterator[Pages]:
    """Pages that asked nothing of others and complained of nothing."""
    pages = Pages(browser, tmp_path)
    yield pages
    for view in pages.opened:
        view.close()
    assert not pages.trouble
