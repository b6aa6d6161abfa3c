"""Panels by Voila: the page for a projector, behind a token, and nothing asked of any other machine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import GUARD
from tests.e2e.pages import panel_of
from tests.e2e.test_drawn_panels import EVERY, every_panel_is_drawn

SHOW = "from lora_course import cli; from lora_course.classroom import projector as page"
SHOW += f"; page.PANELS += ({EVERY!r},); cli.main()"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A running page, with one more cell, that can reach nobody."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    own = (str(tmp_path), str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")]))
    env = {k: v for k, v in os.environ.items() if k != "LORA_LAB_HEADLESS"}
    env |= {"PYTHONPATH": os.pathsep.join(own), "LORA_LAB_GUARD": str(tmp_path / "blocked")}
    options = ["--no-browser", "--port", "0", "--out", str(tmp_path / "runs")]
    command = [sys.executable, "-c", SHOW, "show", *options]
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stderr
        line = server.stderr.readline()
        found = re.search(r"panels are at (http://127\.0\.0\.1\S+)", line)
        assert found, line
        yield found.group(1)
        assert not (tmp_path / "blocked").exists()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_panels_are_live_behind_a_token_and_ask_no_other_machine(browser: Browser, address: str) -> None:
    page, elsewhere = browser.new_page(), []
    own = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else elsewhere.append(r.url))
    page.goto(address.partition("?")[0])
    assert "/login" in page.url  # without the token it shows nothing
    page.goto(address, wait_until="commit")  # the rest of the page comes as the cells are run
    page.locator(".lab-panel .card").nth(2).wait_for(timeout=400_000)
    every_panel_is_drawn(page, first=3)
    panel_of(page, 2).get_by_role("button", name="Start").click()
    expect(panel_of(page, 2).get_by_role("button", name="Stop")).to_be_enabled()  # the kernel answers
    assert not elsewhere
    page.close()
