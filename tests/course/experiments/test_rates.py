import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_course.checks.regret import LOWEST
from lora_course.experiments.rates import best_rate


@given(st.floats(-0.49, 0.49), st.floats(0.01, 10), st.floats(-5, 5), st.floats(0.9, 1.1), st.floats(0.9, 1.1))
def test_best_rate_is_the_vertex_of_a_parabola(vertex, steepness, height, down, up):
    losses = {2**x: height + steepness * (x - vertex) ** 2 for x in (-down, 0, up)}
    assume(min(losses, key=losses.__getitem__) == 1)
    assert best_rate(losses) == pytest.approx(vertex, abs=1e-6)


def test_best_rate_lies_inside_the_tried_ones():
    rates = [4.4e-5, 8.8e-5, 1.8e-4, 3.5e-4, 7.1e-4, 1.4e-3]  # as docs/rates.py rounds them
    vertex = math.log2(rates[2]) + 0.3
    assert best_rate({r: (math.log2(r) - vertex) ** 2 for r in rates}) == pytest.approx(vertex)
    assert best_rate({0.5: 0.60, 1: 0.50, 2: 0.56}) == pytest.approx(LOWEST.right(0.60, 0.50, 0.56))
    assert all(math.isnan(best_rate({r: sign * r for r in rates})) for sign in (1, -1))
