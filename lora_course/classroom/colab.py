"""Prepare a lesson on Colab, which has its own torch and widget manager; elsewhere, do nothing.

Written from Colab's documentation and tested against a mock, not on Colab.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module


def ready() -> None:
    """Enable custom widgets, use fp16 for the frozen model on a GPU without bf16 (below capability 8.0, such as a
    T4) unless LORA_LAB_DTYPE is set, and fetch models and data.
    """
    if "google.colab" not in sys.modules:
        return
    import torch

    from lora_lab.training import assets

    import_module("google.colab.output").enable_custom_widget_manager()
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        os.environ.setdefault("LORA_LAB_DTYPE", "fp16")
    print(f"Colab: widgets on, dtype {os.environ.get('LORA_LAB_DTYPE', 'as measured')}")
    assets.fetch([name for name, asset in assets.ASSETS.items() if not asset.opt_in], print)
