"""Detect whether a person is watching, and silence transformers. Doesn't import torch."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def headless() -> bool:
    """Return whether cells run unattended (LORA_LAB_HEADLESS=1), since a front end cannot be detected."""
    return os.environ.get("LORA_LAB_HEADLESS", "") not in ("", "0")


def watched() -> bool:
    """Return whether a person would see a progress bar: in a terminal, or in a notebook that is not headless."""
    return not headless() and ("ipykernel" in sys.modules or sys.stderr.isatty())


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and warnings, which would clutter lessons."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
