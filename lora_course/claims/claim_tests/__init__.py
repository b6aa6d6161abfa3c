"""The experiments on claims, by name. A new one is a function with `@experiment` in a file here, named below."""

from __future__ import annotations

from importlib import import_module

from lora_course.claims.claim_tests.base import (
    EXPERIMENTS,
    STORE,
    WORDS,
    Case,
    Experiment,
    Finding,
    Word,
    experiment,
    said,
    wanted,
)

__all__ = ["EXPERIMENTS", "STORE", "WORDS", "Case", "Experiment", "Finding", "Word", "experiment", "said", "wanted"]

# Each registers what it holds.
for _name in ("counts", "sizes", "habits", "runs", "live"):
    import_module(f"{__name__}.{_name}")
