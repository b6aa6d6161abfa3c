"""What the panels' tests share: somebody who watches, and patience."""

import time
from collections.abc import Callable
from typing import Any

from lora_lab.widgets.base import Panel


def said(panel: Panel, does: str, **more: Any) -> None:
    """A button of the browser."""
    panel._handle_custom_msg({"do": does, **more}, [])


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what a thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
