"""Whether somebody is there to see a bar or to press a button. No torch: panels that need none ask too."""

from __future__ import annotations

import os
import sys


def headless() -> bool:
    """Whether cells run with nobody watching (LORA_LAB_HEADLESS=1). A front end cannot be detected, so it is said."""
    return os.environ.get("LORA_LAB_HEADLESS", "") not in ("", "0")


def watched() -> bool:
    """Whether a person is there to see a bar: a terminal or a notebook, if it does not run headless."""
    return not headless() and ("ipykernel" in sys.modules or sys.stderr.isatty())
