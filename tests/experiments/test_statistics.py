import math
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtri
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from lora_lab.errors import BadValue
from lora_lab.experiments import low_rank, statistics
from lora_lab.experiments.margins import MARGINS, judged, packed, resampled, unpacked
from lora_lab.experiments.statistics import LEVEL, POWER, Pair, holm, verdict, verdicts
from tests.conftest import assert_raises

MARGIN = 0.015
OPPOSITE = {"better": "worse", "worse": "better", "equivalent": "equivalent", "undecided": "undecided"}


@pytest.fixture
def no_forecast(monkeypatch):
    """Skip the search for more seeds and rows, which takes most of a verdict's time and does not change its outcome."""
    monkeypatch.setattr(statistics, "_fewest", lambda decided, limit: None)


def simulate(rng, seeds, rows, difference, *, seed_sd=0.007, taste=0.15, noise=0.3):
    """Return two methods' answers (seeds, rows) to the same rows; accuracy is near 80%, and about 10% of rows differ.

    Each row has a difficulty; `taste` says how much methods differ on a row. Seeds move mean accuracy by 0.7 points.
    The mean difference is exact, because seeds act on accuracies rather than on thresholds.
    """
    difficulty, spread = rng.standard_normal(rows), math.sqrt(1 + taste**2 + noise**2)
    methods = []
    for n, mean in zip(seeds, (0.8 + difference / 2, 0.8 - difference / 2), strict=True):
        accuracy = mean + seed_sd * rng.standard_normal((n, 1))
        own = taste * rng.standard_normal(rows) + noise * rng.standard_normal((n, rows))
        methods.append(spread * ndtri(accuracy) + difficulty + own > 0)
    return methods


def outcome_rates(n, seeds, rows, difference, **kind):
    """Return the rate of each outcome in n simulated comparisons; with one run each, seeds have no effect."""
    rng, pair = np.random.default_rng(n), seeds if isinstance(seeds, tuple) else (seeds, seeds)
    kind = kind | ({"seed_sd": 0} if pair == (1, 1) else {})
    counts = Counter(verdict(*simulate(rng, pair, rows, difference, **kind), MARGIN).outcome for _ in range(n))
    return {name: counts[name] / n for name in OPPOSITE}


def bound(n):
    """Return the rate in n simulations above which the true rate exceeds 5% (one-sided test at 1%)."""
    return LEVEL + 2.33 * math.sqrt(LEVEL * (1 - LEVEL) / n)


@pytest.mark.usefixtures("no_forecast")
def test_error_rates_stay_below_five_percent():
    for seeds, rows, kind in (
        *((seeds, rows, {}) for seeds, rows in ((1, 2000), (3, 2000), (2, 300), ((1, 4), 1000))),
        (3, 2000, {"taste": 0.35, "noise": 0.02}),
        (3, 2000, {"seed_sd": 0.02}),
    ):
        equal = outcome_rates(300, seeds, rows, 0.0, **kind)
        assert equal["better"] + equal["worse"] <= bound(300), (seeds, rows, kind)
        assert outcome_rates(300, seeds, rows, MARGIN, **kind)["equivalent"] <= bound(300), (seeds, rows, kind)


@pytest.mark.usefixtures("no_forecast")
@pytest.mark.parametrize(("seeds", "rows"), [(1, 300), (3, 2000)])
def test_one_sided_losses_are_rarely_called_equivalent(seeds, rows):
    """In the hardest case, b equals a but gets 1.5% of the rows wrong in all seeds: all differences have one sign."""
    rng, a = np.random.default_rng(0), np.ones((seeds, rows), bool)
    outcomes = [verdict(a, a & (rng.random(rows) >= MARGIN), MARGIN).outcome for _ in range(500)]
    assert outcomes.count("equivalent") / 500 <= bound(500)


@pytest.mark.usefixtures("no_forecast")
def test_error_rates_hold_for_scores():
    rng, n = np.random.default_rng(0), 400
    for difference, errors in ((0.0, {"better", "worse"}), (MARGIN, {"equivalent"})):
        rows = rng.exponential(size=(n, 1, 500))
        a, b = (rows + rng.normal(0, 0.01, (n, 4, 1)) + rng.exponential(0.2, (n, 4, 500)) for _ in range(2))
        outcomes = [verdict(x + difference, y).outcome for x, y in zip(a, b, strict=True)]
        assert sum(outcome in errors for outcome in outcomes) / n <= bound(n)


@pytest.mark.parametrize(("difference", "rows"), [(0.02, 2000), (0.006, 2500)])
def test_forecast_of_more_seeds_is_right_within_a_factor(difference, rows, monkeypatch):
    """To decide 80% of cases, simulations need between 1 / 1.5 and 1.5 times what was forecast."""
    rng = np.random.default_rng(0)  # typical variances: the mean of 150 comparisons larger than the one judged
    large = [Pair(*np.asarray(simulate(rng, (6, 6), rows, difference), float)) for _ in range(150)]
    pair = Pair(*np.asarray(simulate(rng, (3, 3), rows, difference), float))
    pair.seed, pair.noise = (np.mean([getattr(other, name) for other in large], 0) for name in ("seed", "noise"))
    pair.row, pair.difference = float(np.mean([other.row for other in large])), difference
    more = pair.judged(MARGIN, 1, 1, pairs=1).more_seeds
    monkeypatch.setattr(statistics, "_fewest", lambda decided, limit: None)

    def power(more):
        return 1 - outcome_rates(400, 3 + more, rows, difference)["undecided"]

    assert abs(power(more) - POWER) < 0.08
    assert power(math.floor(more / 1.5)) < POWER < power(math.ceil(more * 1.5))


def test_one_run_each_is_mcnemars_exact_test():
    a, b = simulate(np.random.default_rng(3), (1, 1), 2000, 0.03)
    found = verdict(a[0], b[0])
    assert found.p_difference == binomtest(int((a & ~b).sum()), int((a != b).sum())).pvalue
    assert "for these two runs only, not for other seeds" in str(found)
    assert found == verdict(a, b)


def test_identical_runs_are_equivalent_given_enough_rows():
    a = np.random.default_rng(0).random((5, 2000)) < 0.8
    for seeds in (1, 5):
        same = verdict(a[:seeds], a[:seeds])
        assert (same.outcome, same.difference, same.p_difference) == ("equivalent", 0, 1)
        few = verdict(a[:seeds, :100], a[:seeds, :100])  # in 22% of cases, 100 rows don't show a gap of 1.5% at all
        assert few.outcome == "undecided"
        assert verdict(a[:seeds, : 100 + few.more_rows], a[:seeds, : 100 + few.more_rows]).outcome == "equivalent"
    assert verdict(np.full((3, 50), 0.5), np.full((3, 50), 0.5)).outcome == "equivalent"


@pytest.mark.parametrize("seeds", [1, 4])
def test_one_row_is_never_enough(seeds):
    for a, b in ((True, False), (True, True), (0.7, 0.2)):
        found = verdict(np.full((seeds, 1), a), np.full((seeds, 1), b))
        assert (found.outcome, found.more_seeds, found.more_rows) == ("undecided", None, None)
        assert "more rows and seeds" in str(found)


def test_small_difference_is_equivalent_and_names_the_side_ahead():
    a = np.ones((3, 20_000), bool)
    b = a.copy()
    b[:, :100] = False
    found = verdict(a, b)
    assert found.outcome == "equivalent"
    assert found.p_difference < LEVEL
    assert str(found).startswith("better but within the margin of 1.5 points, by 0.5 points (90% interval 0.")
    assert str(verdict(b, a)).startswith("worse but within the margin of 1.5 points, by 0.5 points")
    assert verdict(a, b, margin=np.float32(0.004)).outcome == "better"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values):
    with mock.patch("gc.collect"):  # statsmodels calls it, which takes 0.2 s with torch loaded
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)


def test_invalid_answers_and_margins_are_refused():
    other_rows = "the methods have 5 and 4 rows: score both on the same test rows"
    assert_raises(other_rows, verdict, np.ones((2, 5)), np.ones((2, 4)))
    assert_raises("a has runs of different lengths", verdict, [[1, 0], [1]], [1, 0])
    assert_raises(r"a has the shape \(3, 0\); pass \(seeds, rows\)", verdict, np.zeros((3, 0)), np.zeros((3, 0)))
    assert_raises("b has scores", verdict, [0.5, 0.4], [1e300, 2e-300])
    assert_raises("b contains NaN or infinity; omit these rows from both", verdict, [0.5, 0.4], [0.5, math.nan])
    assert_raises("a holds int64 values; pass prediction == label", verdict, [0, 2], [0, 1])
    for margin in (0, 1.5, math.nan):
        assert_raises("0.015 is 1.5 points", verdict, [True, False], [True, True], margin)
    with pytest.raises(BadValue, match="'full' and at least one other method are needed; given: lora"):
        verdicts({"lora": [True, False]}, "full")


@st.composite
def answer_pairs(draw):
    seeds_a, seeds_b = draw(st.sampled_from([(1, 1), (2, 2), (4, 4), (2, 3), (1, 3)]))
    rows, accuracy_a, accuracy_b = draw(st.integers(1, 60)), draw(st.floats(0, 1)), draw(st.floats(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    a, b = rng.random((seeds_a, rows)) < accuracy_a, rng.random((seeds_b, rows)) < accuracy_b
    return (a, b) if draw(st.booleans()) else (a * rng.random(a.shape), b * rng.random(b.shape))


@given(answer_pairs(), st.sampled_from([0.015, 0.1, 0.6]))
def test_outcome_intervals_and_p_values_agree(pair, margin):
    """The results also agree with those of the reversed comparison, and do not depend on the order of the rows."""
    found, reverse = verdict(*pair, margin), verdict(*pair[::-1], margin)
    equivalent = found.outcome == "equivalent"
    assert equivalent == (found.p_equivalence < LEVEL) == (-margin < found.low <= found.high < margin)
    assert (found.p_difference < LEVEL) == (found.low95 > 0 or found.high95 < 0)
    assert found.low95 <= found.difference <= found.high95
    if found.outcome != "undecided":
        assert found.more_seeds is found.more_rows is None
    assert (found.word != found.outcome) == (equivalent and found.p_difference < LEVEL)
    assert str(found).startswith(found.word)
    assert (reverse.outcome, reverse.difference) == (OPPOSITE[found.outcome], -found.difference)
    ends = (found.low, found.high, found.low95, found.high95)
    reverse_ends = (-reverse.high, -reverse.low, -reverse.high95, -reverse.low95)
    assert reverse_ends == pytest.approx(ends, rel=1e-9, abs=1e-12)
    assert (reverse.p_difference, reverse.p_equivalence) == pytest.approx((found.p_difference, found.p_equivalence))
    assert (reverse.more_seeds, reverse.more_rows) == (found.more_seeds, found.more_rows)
    order = np.random.default_rng(0).permutation(pair[0].shape[1])
    shuffled = verdict(*(answers[:, order] for answers in pair), margin)
    assert shuffled.outcome == found.outcome
    for name in ("difference", "low", "high95"):
        assert getattr(shuffled, name) == pytest.approx(getattr(found, name), rel=1e-6, abs=1e-9)


def letter_of(found) -> str:
    both = found.outcome == "equivalent" and found.p_difference < LEVEL
    return ("B" if found.difference > 0 else "W") if both else found.outcome[0]


@pytest.mark.parametrize("case", ["four methods", "one seed", "unpaired seeds", "losses", "identical"])
def test_results_at_every_margin_equal_those_of_verdicts(case):
    """With Holm's correction (`together`), more letters may be undecided than without it (`outcomes`)."""
    rng = np.random.default_rng(len(case))
    a, b = simulate(rng, (4, 4), 600, 0.03)
    scores = {"a": a, "b": b}
    if case == "four methods":
        scores |= dict(zip("cd", simulate(rng, (4, 4), 600, 0.015), strict=True))
    elif case == "one seed":
        scores = {"a": a[:1], "b": b[:1]}
    elif case == "unpaired seeds":
        scores["b"] = b[:2]
    elif case == "losses":
        scores = {name: -rng.random((3, 200)) for name in "ab"}
    elif case == "identical":
        scores["b"] = a.copy()
    margins, corrected = MARGINS[::7], 0
    for rival, entries in judged(scores, margins).items():
        more = {name: iter(entry["more"]) for name, entry in entries.items()}  # an item for each undecided margin
        for position, margin in enumerate(margins):
            for name, found in verdicts(scores, rival, margin).items():
                entry, alone = entries[name], verdict(scores[name], scores[rival], margin)
                assert entry["together"][position] == letter_of(found)
                assert entry["outcomes"][position] == letter_of(alone)
                corrected += letter_of(found) != letter_of(alone)
                low, high = next(ends for start, *ends in reversed(entry["within"]) if start <= position)
                assert (low, high) == pytest.approx((found.low, found.high), abs=1e-5)
                assert (entry["low"], entry["high"]) == pytest.approx((found.low95, found.high95), abs=1e-5)
                if found.outcome == "undecided":
                    sizes = found.more_seeds, found.more_rows
                    assert next(more[name]) == [n and int(float(f"{n:.2g}")) for n in sizes]
        assert all(next(rest, None) is None for rest in more.values())
    assert (corrected > 0) == (case == "four methods")


def test_answers_survive_json():
    rng = np.random.default_rng(0)
    for scores in (rng.random((3, 77)) < 0.5, rng.standard_normal((2, 5)).astype(np.float32)):
        restored = unpacked(packed(scores))
        assert np.array_equal(restored, scores)
        assert (restored.dtype == bool) == (scores.dtype == bool)


def test_resampled_studies_rarely_miss_the_truth():
    a, b = simulate(np.random.default_rng(1), (4, 4), 1000, 0.03)
    margins = MARGINS[::6]
    found = resampled(a, b, 100, margins)
    assert found["truth"] == pytest.approx(a.mean() - b.mean(), abs=1e-6)
    missed = sum(not low <= found["truth"] <= high for _, low, high in found["studies"])
    assert missed <= 12  # of the 95% intervals; the chance of more misses is below 1 in 500
    for outcomes in found["outcomes"]:
        assert len(outcomes) == len(margins)
        assert set(outcomes.rstrip("eBW")) <= set("ubw")  # if equivalent at a margin, then also at each larger margin
    assert resampled(a, b, 100, margins) == found != resampled(a, b, 100, margins, seed=1)


# ---- singular values

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


def test_invalid_matrix_is_refused():
    assert_raises(r"the shape is \(3,\)", low_rank.decompose, np.zeros(3))
    assert_raises("finite", low_rank.spectrum, np.array([[np.nan]]))
    assert_raises("from 0 to 2", low_rank.truncated, np.eye(2), np.ones(2), np.eye(2), -1)
    assert_raises("for 90%, use 0.9", low_rank.rank_for_energy, np.ones(3), 90)
