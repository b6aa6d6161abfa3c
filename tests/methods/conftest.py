"""Methods are tested on tiny models."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def tiny_models(one_thread):
    """All of them on one thread."""
