"""Who watches, and what transformers prints on its own. No torch: panels that need none ask too."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def headless() -> bool:
    """Whether cells run with nobody watching (LORA_LAB_HEADLESS=1). A front end cannot be detected."""
    return os.environ.get("LORA_LAB_HEADLESS", "") not in ("", "0")


def watched() -> bool:
    """Whether a person sees a progress bar: in a terminal or a notebook that does not run headless."""
    return not headless() and ("ipykernel" in sys.modules or sys.stderr.isatty())


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice, which would end up in lessons and in --json output."""
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
