"""Bytes in words, with a unit that says what they are counted in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab.accounting.units import BINARY, DECIMAL, GIB, binary, decimal

UNITS = {name: size for size, name in (*BINARY, *DECIMAL, (1, "bytes"))}


def test_the_largest_unit_of_which_there_is_one():
    assert [binary(n) for n in (515.2 * GIB, 61.79 * GIB, 8.34 * GIB, GIB - GIB / 8, 100)] == [
        "515 GiB", "61.8 GiB", "8.34 GiB", "896 MiB", "0.10 KiB",
    ]  # fmt: skip
    assert [decimal(n) for n in (140e9, 37_748_736, 4_200, 999)] == ["140 GB", "37.7 MB", "4.2 kB", "999 bytes"]
    assert decimal(999_600) == "1,000 kB"


@given(st.integers(1024, 10**15), st.sampled_from((binary, decimal)))
def test_what_is_said_is_what_there_is_but_for_rounding(count: int, said):
    number, unit = said(count).split(" ")
    assert float(number.replace(",", "")) * UNITS[unit] == pytest.approx(count, rel=0.006)
