import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lora_lab.errors import BadValue
from lora_lab.experiments import low_rank

sizes = st.integers(1, 9)
matrices = st.tuples(sizes, sizes).flatmap(
    lambda shape: arrays(float, shape, elements=st.floats(-100, 100, allow_nan=False, width=32))
)


@given(matrices, st.data())
def test_truncation_loses_the_energy_of_the_tail(matrix, data):
    """No other matrix of that rank is nearer (Eckart and Young)."""
    u, s, vt = low_rank.decompose(matrix)
    rank = data.draw(st.integers(0, len(s)))
    energy = np.square(matrix).sum()
    tolerance = 1e-9 * (energy + 1)
    lost = np.square(matrix - low_rank.truncated(u, s, vt, rank)).sum()
    assert lost == pytest.approx(np.square(s[rank:]).sum(), abs=tolerance)
    assert lost == pytest.approx((1 - low_rank.energy_kept(s, rank)) * energy, abs=tolerance)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(matrix.shape[0], rank)))
    assert lost <= np.square(matrix - basis @ basis.T @ matrix).sum() + tolerance


@given(matrices, st.floats(0, 1))
def test_rank_for_energy_is_the_smallest_that_keeps_it(matrix, share):
    s = low_rank.spectrum(matrix)
    rank = low_rank.rank_for_energy(s, share)
    assert low_rank.energy_kept(s, rank) >= share - 1e-9
    assert rank == 0 or low_rank.energy_kept(s, rank - 1) < share


@given(matrices)
def test_shuffling_keeps_the_entries_and_half_precision_the_spectrum(matrix):
    assert sorted(low_rank.shuffled(matrix).ravel()) == sorted(matrix.ravel())
    half = matrix.astype(np.float16)
    assert low_rank.spectrum(half) == pytest.approx(low_rank.spectrum(half.astype(float)), rel=1e-5, abs=1e-4)


def test_invalid_input_is_refused():
    for call, message in (
        (lambda: low_rank.decompose(np.zeros(3)), "a matrix needs two dimensions"),
        (lambda: low_rank.spectrum(np.array([[np.nan]])), "finite"),
        (lambda: low_rank.truncated(np.eye(2), np.ones(2), np.eye(2), -1), "from 0 to 2"),
        (lambda: low_rank.rank_for_energy(np.ones(3), 90), "for 90%, use 0.9"),
    ):
        with pytest.raises(BadValue, match=message):
            call()
