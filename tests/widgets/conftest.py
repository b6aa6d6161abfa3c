"""Shared helpers: a message from the browser, and waiting for a thread."""

import time
from collections.abc import Callable
from typing import Any

from lora_lab.widgets.base import Panel


def said(panel: Panel, does: str, **more: Any) -> None:
    """Send the panel the message of a button."""
    panel._handle_custom_msg({"do": does, **more}, [])


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a thread has made the condition true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.02)
