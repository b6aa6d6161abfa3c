"""The best rate between the tried ones: exact on parabolas, unknown at an end, paired by seed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.rates import best_rate, best_rates, lowest, times


@given(st.floats(-0.49, 0.49), st.floats(0.01, 10), st.floats(-5, 5))
def test_a_parabola_is_lowest_at_its_vertex(at, steepness, height):
    a, b, c = (height + steepness * (x - at) ** 2 for x in (-1, 0, 1))
    assert lowest(a, b, c) == pytest.approx(at, abs=1e-6)


def test_the_best_rate_lies_between_the_tried_ones_and_is_unknown_at_an_end():
    rates = [1e-4 * 2**k for k in range(6)]
    vertex = math.log2(rates[2]) + 0.3
    assert best_rate({r: (math.log2(r) - vertex) ** 2 for r in rates}) == pytest.approx(vertex)
    assert math.isnan(best_rate({r: r for r in rates}))
    assert math.isnan(best_rate({r: -r for r in rates}))


def test_ratios_are_paired_by_seed():
    def row(scale):
        shifts = (0.1, 0.2, 0.3)
        tried = [scale * 1e-4 * 2**k for k in range(6)]
        return {
            "tried": [{"lr": r, "each": [(0, (math.log2(r / scale / 4e-4) - s) ** 2) for s in shifts]} for r in tried]
        }

    assert times(best_rates(row(16)), best_rates(row(1))) == pytest.approx((16, 16, 16))
