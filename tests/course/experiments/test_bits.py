"""Bits against quality, on models that take a moment."""

from __future__ import annotations

import pytest

from lora_course.experiments.bits import bits_curve, bits_of, short, weight_errors
from lora_lab import LoRA
from lora_lab.errors import BadValue
from tests.training.conftest import PLAIN


def test_seeds_of_each_dtype_are_trained_once_and_judged(tiny_encoder, opinions, tmp_path):
    own = {name: value for name, value in PLAIN.items() if name != "dtype"}
    asked = {"model": tiny_encoder, "task": opinions, "method": LoRA(rank=2), "steps": 3, "batch": 4, "seeds": 2}
    found = bits_curve(("bf16", "nf4+bf16"), store=tmp_path, fields=own, **asked)
    assert list(found.verdicts) == ["nf4+bf16"]
    assert [len(row["each"]) for row in found.table()] == [2, 2]
    assert "nf4    4.127 bits" in str(found)
    again = bits_curve(("bf16", "nf4+bf16"), store=tmp_path, fields=own, **asked)
    assert again.table() == found.table()


def test_bits_of_a_dtype():
    assert [short(dtype) for dtype in ("bf16", "nf4+bf16", "int8")] == ["bf16", "nf4", "int8"]
    assert bits_of("nf4") == pytest.approx(4.127, abs=1e-3)
    assert bits_of("fp32") == 32


def test_errors_grow_as_bits_fall():
    errors = weight_errors(("nf4", "nf2"))
    assert 0.08 < errors["nf4"] < 0.1 < errors["nf2"]


def test_no_seed_is_no_curve(tmp_path):
    with pytest.raises(BadValue, match="seeds"):
        bits_curve(seeds=0, store=tmp_path)
