import sys
from contextlib import suppress

import psutil
import pytest

from lora_course.classroom import room

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's count of shared pages"),
]


def memory(*words: str) -> int:
    """Return the bytes of child processes with one of these words in their command, without kernels.

    A memory page that several processes share is counted once.
    """
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "kernels.py" not in command and any(word in command for word in words):
                total += process.memory_full_info().pss
    return total


def test_browser_and_server_stay_within_their_share(lab):
    """Memory is measured with lesson 10's panel running, then with a solved lesson and all its pictures."""
    lab.run_all("10_why_low_rank.ipynb").locator(".lab-panel .card").first.wait_for(timeout=120_000)
    for show in (lambda: None, lambda: lab.open("solutions/18_reproduce_the_paper.ipynb")):
        show()
        lab.page.wait_for_timeout(5_000)
        assert memory("chrom") > 10**8
        assert memory("chrom", "lora_lab", "jupyter") <= room.BROWSER
