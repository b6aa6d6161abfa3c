"""What may be said: error rates and power by simulation, the forecast of more seeds, and what a verdict says."""

import math
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import LEVEL, POWER, Pair, holm, verdict, verdicts

MARGIN = 0.015
OTHER = {"better": "worse", "worse": "better", "equivalent": "equivalent", "undecided": "undecided"}


def answers(rng, seeds, rows, difference, *, seed_sd=0.007, taste=0.15, noise=0.3):
    """Two methods' answers (seeds, rows) to the same rows, about 10% of which they disagree on; accuracy near 80%.

    A row has a difficulty, and each method a taste for it; a seed moves its method's expected accuracy by 0.7 points.
    The mean difference is exact: the seeds' effects are on the accuracies, not on the thresholds.
    """
    difficulty, spread = rng.standard_normal(rows), math.sqrt(1 + taste**2 + noise**2)
    found = []
    for mean in (0.8 + difference / 2, 0.8 - difference / 2):
        accuracy = mean + seed_sd * rng.standard_normal((seeds[len(found)], 1))
        own = taste * rng.standard_normal(rows) + noise * rng.standard_normal((len(accuracy), rows))
        found.append(spread * ndtri(accuracy) + difficulty + own > 0)
    return found


def outcomes(n, seeds, rows, difference, **kind):
    """Shares of the outcomes of n simulated comparisons; one run each has no effect of seeds: they are what it says."""
    rng, pair = np.random.default_rng(n), seeds if isinstance(seeds, tuple) else (seeds, seeds)
    kind = kind | ({"seed_sd": 0} if pair == (1, 1) else {})
    found = Counter(verdict(*answers(rng, pair, rows, difference, **kind), MARGIN).outcome for _ in range(n))
    return {name: found[name] / n for name in OTHER}


def bound(n):
    """Above this, a rate seen in n simulations is above 5% (one-sided, at 1%)."""
    return LEVEL + 2.33 * math.sqrt(LEVEL * (1 - LEVEL) / n)


@pytest.mark.parametrize(
    ("seeds", "rows", "kind"),
    [*((seeds, rows, {}) for seeds, rows in ((1, 2000), (3, 2000), (2, 300), ((1, 4), 1000))),
     (3, 2000, {"taste": 0.35, "noise": 0.02}), (3, 2000, {"seed_sd": 0.02})],
)  # fmt: skip
def test_equals_are_rarely_called_different_and_what_differs_by_the_margin_equivalent(seeds, rows, kind):
    found = outcomes(300, seeds, rows, 0.0, **kind)
    assert found["better"] + found["worse"] <= bound(300)
    assert outcomes(300, seeds, rows, MARGIN, **kind)["equivalent"] <= bound(300)


@pytest.mark.parametrize(("seeds", "rows"), [(1, 300), (3, 2000)])
def test_losses_without_gains_are_rarely_called_equivalent(seeds, rows):
    """The hardest case: b is a with 1.5% of the rows broken, the same in all seeds, so all disagreement is one way."""
    rng, a = np.random.default_rng(0), np.ones((seeds, rows), bool)
    found = [verdict(a, a & (rng.random(rows) >= MARGIN), MARGIN).outcome for _ in range(500)]
    assert found.count("equivalent") / 500 <= bound(500)


def test_scores_keep_the_error_rates_too():
    rng, n = np.random.default_rng(0), 400
    found = []
    for difference in (0.0, MARGIN):
        rows = rng.exponential(size=(n, 1, 500))
        a, b = (rows + rng.normal(0, 0.01, (n, 4, 1)) + rng.exponential(0.2, (n, 4, 500)) for _ in range(2))
        found.append(Counter(verdict(x + difference, y).outcome for x, y in zip(a, b, strict=True)))
    assert (found[0]["better"] + found[0]["worse"]) / n <= bound(n)
    assert found[1]["equivalent"] / n <= bound(n)


def test_four_points_are_seen_with_five_seeds_and_none_with_many_rows_is_equivalence():
    assert outcomes(100, 5, 2000, 0.04)["better"] > 0.95
    assert outcomes(100, 1, 2000, -0.04)["worse"] > 0.95
    assert outcomes(30, 10, 8000, 0.0)["equivalent"] > 0.85


def expected(difference, rows, seeds):
    """A comparison whose spreads are not those of one draw but the mean of 150 larger ones."""
    rng = np.random.default_rng(0)
    large = [Pair(*np.asarray(answers(rng, (6, 6), rows, difference), float), MARGIN) for _ in range(150)]
    pair = Pair(*np.asarray(answers(rng, (seeds, seeds), rows, difference), float), MARGIN)
    pair.seed, pair.noise = (np.mean([getattr(one, name) for one in large], 0) for name in ("seed", "noise"))
    pair.row, pair.difference = float(np.mean([one.row for one in large])), difference
    return pair


@pytest.mark.parametrize(("difference", "rows"), [(0.02, 2000), (0.006, 2500)])
def test_so_many_more_seeds_would_tell(difference, rows):
    """The true fewest seeds more that are decided in 80% of cases are within a factor of 1.5 of what is said."""
    more = expected(difference, rows, 3).judged(1, 1).more_seeds

    def power(more):
        return 1 - outcomes(400, 3 + more, rows, difference)["undecided"]

    assert abs(power(more) - POWER) < 0.08
    assert power(math.floor(more / 1.5)) < POWER < power(math.ceil(more * 1.5))


def test_one_run_each_is_mcnemars_exact_test_and_says_so():
    a, b = answers(np.random.default_rng(3), (1, 1), 2000, 0.03)
    found = verdict(a[0], b[0])
    assert found.p_difference == binomtest(int((a & ~b).sum()), int((a != b).sum())).pvalue
    assert "for these two runs only, not for other seeds" in str(found)
    assert found == verdict(a, b)


def test_identical_runs_are_equivalent_when_there_are_rows_enough():
    a = np.random.default_rng(0).random((5, 2000)) < 0.8
    for seeds in (1, 5):
        same = verdict(a[:seeds], a[:seeds])
        assert (same.outcome, same.difference, same.p_difference) == ("equivalent", 0, 1)
        few = verdict(a[:seeds, :100], a[:seeds, :100])  # 1.5% would leave no trace in 100 rows in 22% of cases
        assert few.outcome == "undecided"
        assert verdict(a[:seeds, : 100 + few.more_rows], a[:seeds, : 100 + few.more_rows]).outcome == "equivalent"
    assert verdict(np.full((3, 50), 0.5), np.full((3, 50), 0.5)).outcome == "equivalent"


@pytest.mark.parametrize("seeds", [1, 4])
def test_one_row_says_nothing(seeds):
    for a, b in ((True, False), (True, True), (0.7, 0.2)):
        found = verdict(np.full((seeds, 1), a), np.full((seeds, 1), b))
        assert (found.outcome, found.more_seeds, found.more_rows) == ("undecided", None, None)
        assert "more rows and seeds" in str(found)


def test_a_difference_within_the_margin_is_equivalent_and_its_sentence_says_who_is_ahead():
    a = np.ones((3, 20_000), bool)
    b = a.copy()
    b[:, :100] = False
    found = verdict(a, b)
    assert found.outcome == "equivalent"
    assert found.p_difference < LEVEL
    assert str(found).startswith("better but within the margin of 1.5 points, by 0.5 points (90% interval 0.")
    assert str(verdict(b, a)).startswith("worse but within the margin of 1.5 points, by 0.5 points")
    assert verdict(a, b, margin=0.004).outcome == "better"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    with mock.patch("gc.collect"):  # which it calls, 0.2 s beside torch
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs)


def test_holm_is_over_all_methods_and_says_so():
    a, b = answers(np.random.default_rng(0), (1, 1), 2000, 0.015)
    among = verdicts({"a": a, "b": b, "c": b}, against="b")["a"]
    assert among.p_difference == min(1, 2 * verdict(a, b).p_difference)
    assert "Holm over 2 pairs" in str(among)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.ones((2, 5)), np.ones((2, 4)), "5 rows against 4; score both methods on the same test rows"),
        ([[1, 0], [1]], [1, 0], "a has runs of different lengths"),
        (np.zeros((3, 0)), np.zeros((3, 0)), r"a has the shape \(3, 0\); pass \(seeds, rows\)"),
        ([0.5, 0.4], [0.5, math.nan], "b contains NaN or infinity; omit those rows from both"),
        ([0, 2], [0, 1], "a holds int64 values; pass prediction == label"),
    ],
)
def test_what_cannot_be_compared_is_said_with_the_fix(a, b, said):
    with pytest.raises(BadValue, match=said):
        verdict(a, b)


def test_an_impossible_margin_and_an_unknown_opponent_are_named():
    for margin in (0, 1.5, math.nan):
        with pytest.raises(BadValue, match=r"0.015 is 1.5 points"):
            verdict([True, False], [True, True], margin)
    with pytest.raises(BadValue, match="'full' and at least one other method are needed; given: lora"):
        verdicts({"lora": [True, False]}, "full")


@st.composite
def runs(draw):
    seeds, other = draw(st.sampled_from([(1, 1), (2, 2), (4, 4), (2, 3), (1, 3)]))
    rows, share = draw(st.integers(1, 60)), draw(st.floats(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    a, b = (rng.random((n, rows)) < p for n, p in ((seeds, share), (other, draw(st.floats(0, 1)))))
    return (a, b) if draw(st.booleans()) else (a * rng.random(a.shape), b * rng.random(b.shape))


@given(runs(), st.sampled_from([0.015, 0.1, 0.6]))
def test_outcome_intervals_and_p_values_agree_also_turned_round_and_with_the_rows_in_another_order(pair, margin):
    found, back = verdict(*pair, margin), verdict(*pair[::-1], margin)
    equivalent = found.outcome == "equivalent"
    assert equivalent == (found.p_equivalence < LEVEL) == (-margin < found.low <= found.high < margin)
    assert (found.p_difference < LEVEL) == (found.low95 > 0 or found.high95 < 0)
    assert found.low95 <= found.difference <= found.high95
    if found.outcome != "undecided":
        assert found.more_seeds is found.more_rows is None
    assert (found.word != found.outcome) == (equivalent and found.p_difference < LEVEL)
    assert str(found).startswith(found.word)
    assert (back.outcome, back.difference) == (OTHER[found.outcome], -found.difference)
    for end, other in (("low", "high"), ("low95", "high95")):
        assert getattr(back, end) == pytest.approx(-getattr(found, other), rel=1e-9, abs=1e-12)
    assert (back.p_difference, back.p_equivalence) == pytest.approx((found.p_difference, found.p_equivalence))
    assert (back.more_seeds, back.more_rows) == (found.more_seeds, found.more_rows)
    order = np.random.default_rng(0).permutation(pair[0].shape[1])
    shuffled = verdict(*(x[:, order] for x in pair), margin)
    assert shuffled.outcome == found.outcome
    assert (shuffled.difference, shuffled.low, shuffled.high95) == pytest.approx(
        (found.difference, found.low, found.high95), rel=1e-6, abs=1e-9
    )
