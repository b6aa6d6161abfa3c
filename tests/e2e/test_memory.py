"""What a browser with a lesson open takes, and the server behind it: their share of a machine of 8 GB."""

import sys
from collections import Counter

import psutil
import pytest

from lora_course.classroom import room
from tests.e2e.conftest import Watched

pytestmark = [pytest.mark.memory, pytest.mark.skipif(sys.platform != "linux", reason="shared pages are told on Linux")]


def shares() -> Counter[str]:
    """Bytes of the browser, the server and the kernels that this process has started; pages shared by several once."""
    found: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            words, size = " ".join(process.cmdline()), process.memory_full_info().pss
        except psutil.Error:
            continue
        kinds = {"kernels": "kernels.py", "browser": "chrom", "server": "lora_lab", "jupyter": "jupyter"}
        found[next((kind for kind, word in kinds.items() if word in words), "driver")] += size  # of the test itself
    return found


def test_browser_and_server_stay_within_their_share(watched: Watched):
    """The lesson 10 with its panel at work; then a solved lesson in its place, with all its pictures."""
    page = watched.run_all("10_why_low_rank.ipynb")
    page.locator(".lab-panel .card").first.wait_for(timeout=120_000)
    page.wait_for_timeout(5_000)
    one = shares()
    watched.open("solutions/18_reproduce_the_paper.ipynb")
    page.wait_for_timeout(5_000)
    other = shares()
    for words, found in (("10", one), ("18 with its pictures", other)):
        print(words, {kind: f"{size / 1e9:.2f} GB" for kind, size in found.items()})
        assert found["browser"] > 10**8
        assert found["browser"] + found["server"] + found["jupyter"] <= room.BROWSER
