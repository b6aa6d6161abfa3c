import sys
from collections import Counter

import psutil
import pytest

from lora_course.classroom import room
from tests.e2e.conftest import Lab

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's count of shared pages"),
]


def memory_by_kind() -> Counter[str]:
    """Return the bytes of each kind of child process; a page shared by several processes counts once."""
    sizes: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            command, size = " ".join(process.cmdline()), process.memory_full_info().pss
        except psutil.Error:
            continue
        kinds = {"kernels": "kernels.py", "browser": "chrom", "server": "lora_lab", "jupyter": "jupyter"}
        sizes[next((kind for kind, word in kinds.items() if word in command), "driver")] += size
    return sizes


def test_browser_and_server_stay_within_their_share(lab: Lab) -> None:
    """With lesson 10's panel running, then with a solved lesson and all its pictures."""
    page = lab.run_all("10_why_low_rank.ipynb")
    page.locator(".lab-panel .card").first.wait_for(timeout=120_000)
    page.wait_for_timeout(5_000)
    lesson = memory_by_kind()
    lab.open("solutions/18_reproduce_the_paper.ipynb")
    page.wait_for_timeout(5_000)
    for name, sizes in (("10", lesson), ("18, solved", memory_by_kind())):
        print(name, {kind: f"{size / 1e9:.2f} GB" for kind, size in sizes.items()})
        assert sizes["browser"] > 10**8
        assert sizes["browser"] + sizes["server"] + sizes["jupyter"] <= room.BROWSER
