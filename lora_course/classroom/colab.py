"""A lesson's first line on Colab, whose Python has torch and a widget manager of its own; elsewhere it does nothing.

Written from Colab's documentation and tried against a stand-in: nobody has run it there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

OLD = (8, 0)  # from this CUDA capability on a GPU multiplies bf16: a T4 has 7.5


def ready(*, capability: Callable[[], tuple[int, int] | None] | None = None) -> None:
    """Make Colab's Python ready for the lessons, and say what was done.

    Widgets from outside Colab's own set, such as anywidget's, are drawn only after its widget manager for others is
    switched on. On a GPU without bf16 the frozen model is kept in fp16, unless LORA_LAB_DTYPE says otherwise. Models
    and data are fetched where they are missing. Raises: Failed when they cannot be.
    """
    if "google.colab" not in sys.modules:
        return
    from lora_lab.training import assets

    import_module("google.colab.output").enable_custom_widget_manager()
    found = (capability or cuda_capability)()
    if found and found < OLD:
        os.environ.setdefault("LORA_LAB_DTYPE", "fp16")
    print(f"Colab: widgets on, {_gpu(found)}")
    assets.fetch([name for name, asset in assets.ASSETS.items() if not asset.opt_in], print)


def cuda_capability() -> tuple[int, int] | None:
    """What generation the GPU is of, or None where there is none."""
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def _gpu(capability: tuple[int, int] | None) -> str:
    if capability is None:
        return "no GPU (Runtime, Change runtime type, gives one; the lessons run without)"
    return (
        f"a GPU of capability {capability[0]}.{capability[1]}, dtype {os.environ.get('LORA_LAB_DTYPE', 'as measured')}"
    )
