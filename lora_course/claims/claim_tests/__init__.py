"""The experiments on claims, by name. A new one is a function with `@experiment` in a file here, named below."""

from __future__ import annotations

from importlib import import_module

from lora_course.claims.claim_tests.cases import EXPERIMENTS, STORE, WORDS, Case, Finding, Word, said, wanted

__all__ = ["EXPERIMENTS", "STORE", "WORDS", "Case", "Finding", "Word", "said", "wanted"]

# Each registers what it holds.
for _name in ("counts", "runs", "live"):
    import_module(f"{__name__}.{_name}")
