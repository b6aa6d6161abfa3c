"""Shared helpers: random rows as batches, and an empty LORA_LAB_HOME."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lora_lab.training.batches import Batch, Row, collate, training_rows


def rows(n: int, *, labels: int | None = 3, longest: int = 12, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    lengths = [rng.randint(2, longest) for _ in range(n)]
    return [
        Row([rng.randint(1, 95) for _ in range(length)], None if labels is None else rng.randrange(labels), place)
        for place, length in enumerate(lengths)
    ]


def training_batches(rows: Sequence[Row], batch: int, steps: int, seed: int, pad: int) -> Iterator[Batch]:
    return (collate(part, pad) for part in training_rows(rows, batch, steps, seed))


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
