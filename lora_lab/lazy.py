"""Modules that are imported when they are first used, because importing them takes time and memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Lazy:
    """A module that is imported when an attribute is first read, as in `torch = Lazy("torch")`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


if TYPE_CHECKING:
    import pandas
    import torch as torch
    from torch import Tensor as Tensor
    from torch import nn as nn
    from torch.nn import functional

    F, pd = functional, pandas
else:
    Tensor = Any  # for annotations only
    torch, nn, F, pd = map(Lazy, ("torch", "torch.nn", "torch.nn.functional", "pandas"))
