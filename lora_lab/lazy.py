"""Modules that are imported when first used, because importing them takes time and memory."""

from importlib import import_module
from typing import Any


class Lazy:
    """A module imported on first attribute access: `torch = Lazy("torch")`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
