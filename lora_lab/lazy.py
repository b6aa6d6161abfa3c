"""Modules that are imported when they are first used, because importing them takes time and memory."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any


class Lazy:
    """A module that is imported when an attribute is first read, as in `torch = Lazy("torch")`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        module = sys.modules.get(self._name)
        if module is None or getattr(module.__spec__, "_initializing", False):  # another thread is importing it
            module = import_module(self._name)  # waits for that thread; torch.compile can't trace this line
        return getattr(module, attribute)


__all__ = ["F", "Lazy", "Tensor", "nn", "pd", "torch"]

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
else:
    Tensor = Any  # for annotations only
    torch, nn, F, pd = map(Lazy, ("torch", "torch.nn", "torch.nn.functional", "pandas"))
